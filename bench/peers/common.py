"""What the peers share: the model folder and data set that favor reads, and how a result is handed over. A peer prints one JSON
object as its last line: lists of seconds, its checks, nothing of its warm-up."""
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def arguments():
    """The case and the setting as one JSON object: model, data, group, response, dtype, threads, warmup, steps, and the setting's own keys."""
    return json.loads(sys.argv[1])


def open_model(a, dtype="float32", attention="sdpa"):
    import torch
    from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration, Qwen2VLProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
    torch.set_num_threads(a["threads"])
    tokenizer = AutoTokenizer.from_pretrained(a["model"], padding_side="left")
    processor = Qwen2VLProcessor(image_processor=Qwen2VLImageProcessor.from_pretrained(a["model"]), tokenizer=tokenizer,
                                 video_processor=Qwen2VLVideoProcessor(), chat_template=tokenizer.chat_template)
    model = Qwen2VLForConditionalGeneration.from_pretrained(a["model"], dtype=getattr(torch, dtype), attn_implementation=attention)
    return model, processor


def records(a):
    with open(os.path.join(a["data"], "train.jsonl")) as f:
        return [dict(r, image=os.path.join(a["data"], r["image"])) for r in map(json.loads, f)]


def group_inputs(a, processor, model):
    """The first record's prompt, once for each of the group's responses, as transformers wants it."""
    from PIL import Image
    record, rows = records(a)[0], a["group"]
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": record["problem"]}]}], add_generation_prompt=True)
    inputs = processor(images=[Image.open(record["image"])] * rows, text=[text] * rows, return_tensors="pt", padding=True)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    return inputs


def timed(a, work):
    """Seconds of `steps` runs after `warmup` ones."""
    import time
    seconds = []
    for _ in range(a["warmup"] + a["steps"]):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return seconds[a["warmup"]:]


def report(**values):
    print(json.dumps(values), flush=True)
