#!/usr/bin/env python3
"""Reads a run's folder as TensorBoard does and compares with its metrics.jsonl: each step's metrics, once, in order.

usage: tools/check_events.py RUN_DIR   (needs tensorboard)

Prints the number of tags and of values; exit code 1 and a message if something differs."""
import json
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def single(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def main():
    expected = {}
    for line in open(sys.argv[1] + "/metrics.jsonl"):
        metrics = json.loads(line)
        step = metrics.pop("step")
        for name, x in metrics.items():
            if isinstance(x, (int, float)):
                tag = name if name.startswith("eval/") else "train/" + name
                expected.setdefault(tag, []).append((step, single(x)))
    read = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
    read.Reload()
    got = {tag: [(s.step, s.value) for s in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    for tag in sorted(expected.keys() | got.keys()):
        if expected.get(tag) != got.get(tag):
            sys.exit(f"{tag}: metrics.jsonl has {expected.get(tag)}\nTensorBoard reads {got.get(tag)}")
    print(f"{sys.argv[1]}: {len(got)} tags, {sum(map(len, got.values()))} values, as in metrics.jsonl")


main()
