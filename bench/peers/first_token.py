"""From nothing to the first sampled token with transformers; the caller times the whole process. Prints what imports alone took."""
import time

begin = time.perf_counter()
import torch
from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor  # noqa: F401
from trl import GRPOTrainer  # noqa: F401
imports = time.perf_counter() - begin

import common

a = common.arguments()
model, processor = common.open_model(a, "float32")
a["group"] = 1
inputs = common.group_inputs(a, processor, model)
with torch.inference_mode():
    model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=1)
common.report(imports=imports)
