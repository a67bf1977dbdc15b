"""transformers' generate: seconds for the responses of one group, its prompt and image processed beforehand. See common.arguments;
"attention" is sdpa or eager."""
import torch

import common

a = common.arguments()
model, processor = common.open_model(a, a["dtype"], a["attention"])
model.eval()
inputs = common.group_inputs(a, processor, model)
prompt = inputs["input_ids"].shape[1]
shortest = a["response"]


def generate():
    global shortest
    with torch.inference_mode():
        out = model.generate(**inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=a["response"])
    shortest = min(shortest, out.shape[1] - prompt)


seconds = common.timed(a, generate)
common.report(seconds=seconds, prompt_tokens=prompt, shortest=shortest)
