#!/usr/bin/env python3
"""Compares `favor preprocess` with transformers' image processor on a folder of photos.

usage: check_images.py FAVOR MODEL_FOLDER PHOTO_FOLDER [COUNT]

FAVOR is the program, MODEL_FOLDER holds preprocessor_config.json or processor_config.json. Takes COUNT photos (default
100) spread evenly over the folder, four to a call. pixel_values must agree within 1e-6 and image_grid_thw exactly.
Prints the largest difference and how many photos are equal to the bit. Exit code 1 if a photo fails. Needs Pillow 13
(older ones resize tall images in another order) and transformers 5.
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image, ImageOps
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil


def read_safetensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    types = {"F32": np.float32, "I64": np.int64}
    out = {}
    for name, t in header.items():
        begin, end = t["data_offsets"]
        out[name] = np.frombuffer(data[begin:end], types[t["dtype"]]).reshape(t["shape"])
    return out


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    favor, model, folder = sys.argv[1:4]
    count = int(sys.argv[4]) if len(sys.argv) == 5 else 100
    photos = sorted(
        os.path.join(d, f) for d, _, files in os.walk(folder) for f in files
        if f.lower().endswith((".jpg", ".jpeg", ".png", ".webp")))
    if not photos:
        sys.exit(f"{folder}: no photos")
    photos = [photos[i * len(photos) // min(count, len(photos))] for i in range(min(count, len(photos)))]
    processor = Qwen2VLImageProcessorPil.from_pretrained(model)
    worst, bad, exact, patches = 0.0, 0, 0, 0
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "out.safetensors")
        for start in range(0, len(photos), 4):
            group = photos[start:start + 4]
            arguments = [a for p in group for a in ("--image", p)]
            subprocess.run([favor, "preprocess", "--model", model, *arguments, "--out", out], check=True)
            got = read_safetensors(out)
            images = [ImageOps.exif_transpose(Image.open(p)).convert("RGB") for p in group]
            want = processor(images=images, return_tensors="np")
            row = 0
            for i, photo in enumerate(group):
                rows = int(np.prod(want["image_grid_thw"][i]))
                difference = float("inf")
                if np.array_equal(got["image_grid_thw"][i], want["image_grid_thw"][i]):
                    a, b = got["pixel_values"][row:row + rows], want["pixel_values"][row:row + rows]
                    difference = float(np.abs(a - b).max())
                if not difference <= 1e-6:
                    bad += 1
                    print(f"{photo}: grid {got['image_grid_thw'][i].tolist()} / {want['image_grid_thw'][i].tolist()}, "
                          f"largest difference {difference:g}")
                worst = max(worst, difference)
                exact += difference == 0
                row += rows
                patches += rows
    print(f"{len(photos)} photos, {patches} patches: largest difference {worst:g}, {exact} equal to the bit, "
          f"{bad} fail")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
