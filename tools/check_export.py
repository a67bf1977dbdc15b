#!/usr/bin/env python3
"""Three ways to one model: a checkpoint, the folder that `favor export` makes of it, and that folder opened by transformers.

usage: check_export.py FAVOR CHECKPOINT.h5 [IMAGE ...]

Exports to a temporary folder, scores some responses with `favor score` on the checkpoint and on the folder (which must agree to the
printed digit) and with transformers in float32 (within 2e-5). Each image gives a case, and text alone one. Exit code 1 if they differ."""
import json
import subprocess
import sys
import tempfile

import torch
from PIL import Image, ImageOps
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

RESPONSES = ["<think>A person moves.</think>\n<answer>running</answer>", "It's not clear: 12 people, na\u00efve guess \u65e5\u672c"]


def favor_score(favor, model, images, response):
    pictures = [a for i in images for a in ("--image", i)]
    run = subprocess.run([favor, "score", "--json", "--model", model, *pictures, "--prompt", "What is this?", "--response", response],
                         check=True, stdout=subprocess.PIPE)
    return json.loads(run.stdout)


def transformers_score(model, processor, images, scored):
    """Log-probabilities for the ids that favor used; the images are transformers' own."""
    ids = torch.tensor([scored["prompt_ids"] + scored["response_ids"]])
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
    if images:
        pixels = processor(images=[ImageOps.exif_transpose(Image.open(i)).convert("RGB") for i in images], return_tensors="pt")
        inputs |= dict(pixels, mm_token_type_ids=(ids == model.config.image_token_id).long())
    n = len(scored["prompt_ids"])
    with torch.no_grad():
        logits = model(**inputs).logits[0, n - 1:-1]
    return torch.log_softmax(logits, -1).gather(1, ids[0, n:, None])[:, 0].tolist()


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    favor, checkpoint, pictures = sys.argv[1], sys.argv[2], sys.argv[3:]
    worst, bad = 0.0, 0
    with tempfile.TemporaryDirectory() as work:
        folder = f"{work}/exported"
        subprocess.run([favor, "export", checkpoint, folder], check=True)
        model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for images in [[i] for i in pictures] + [[]]:
            for response in RESPONSES:
                one, two = favor_score(favor, checkpoint, images, response), favor_score(favor, folder, images, response)
                three = transformers_score(model, processor, images, one)
                difference = max(abs(a - b) for a, b in zip(one["logprobs"], three, strict=True))
                same_ids = one["response_ids"] == tokenizer(response, add_special_tokens=False)["input_ids"]
                worst = max(worst, difference)
                if one != two or not same_ids or not difference <= 2e-5:
                    bad += 1
                    print(f"{images or 'text alone'}: checkpoint {'=' if one == two else '!='} folder, ids "
                          f"{'equal' if same_ids else 'differ'}, transformers differs by {difference:.2g}")
    print(f"largest difference to transformers {worst:.2g}; {bad} failures")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
