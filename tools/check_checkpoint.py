#!/usr/bin/env python3
"""Reads a favor checkpoint with h5py alone and checks it: the layout, that every tensor has finite size and its moments in pairs, and, if
asked, the digest (slow: for small files) and what `favor inspect --json` says of it.

    check_checkpoint.py [--digest] [--against INSPECT.json] CHECKPOINT.h5

Prints one line a tensor; exit code 1 and a message if something is wrong."""
import argparse
import json
import math
import sys

import h5py
import numpy as np

MASK = (1 << 64) - 1


def hash_bytes(h, data):
    for b in data:
        h = ((h ^ b) * 1099511628211) & MASK
    return h


def hash_block(h, data):
    words = np.frombuffer(data[: len(data) // 8 * 8], dtype="<u8")
    for w in words.tolist():
        h = ((h ^ w) * 0x9FB21C651E98DF25) & MASK
        h ^= h >> 32
    return hash_bytes(h, data[len(words) * 8 :])


def mix(x):
    x ^= x >> 30
    x = (x * 0xBF58476D1CE4E5B9) & MASK
    x ^= x >> 27
    x = (x * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def digest(f):
    """The digest as src/checkpoint/checkpoint_write.c makes it."""
    total = 14695981039346656037
    for name in sorted(f["model"], key=lambda n: n.encode()):
        values = f["model"][name]
        h = hash_bytes(14695981039346656037, name.encode() + b"\0")
        h = hash_block(h, np.array([values.ndim], dtype="<i8").tobytes())
        h = hash_block(h, np.array(values.shape, dtype="<i8").tobytes())
        h = hash_block(h, values[()].tobytes())
        for moment in ("exp_avg", "exp_avg_sq"):
            group = f["optimizer"][moment]
            h = hash_bytes(h, bytes([name in group]))
            if name in group:
                h = hash_block(h, group[name][()].tobytes())
        total = (mix(total ^ mix(h)) + h) & MASK
    return f"{total:016x}"


def statistics(x):
    x = np.asarray(x, dtype=np.float64).ravel()
    finite = x[np.isfinite(x)]
    known = finite.size > 0
    return {
        "mean": finite.mean() if known else None,
        "std": finite.std() if known else None,
        "min": finite.min() if known else None,
        "max": finite.max() if known else None,
        "norm": math.sqrt(float((finite**2).sum())),
        "nonfinite": x.size - finite.size,
    }


def near(a, b):
    if a is None or b is None:
        return a is None and b is None
    return abs(a - b) <= 1e-9 * max(1.0, abs(a), abs(b))


def compare(f, tensors, said):
    """Yields what `favor inspect --json` says wrongly."""
    for key in ("format", "favor_version", "step", "digest", "policy_version", "cursor", "ranks", "config"):
        if f.attrs[key] != said[key]:
            yield f"{key}: {f.attrs[key]!r} in the file, {said[key]!r} said"
    if int(f.attrs["seed"]) != int(said["seed"]):
        yield f"seed: {f.attrs['seed']} in the file, {said['seed']} said"
    if [t["name"] for t in said["tensors"]] != list(tensors):
        yield "the lists of tensors differ"
        return
    for t in said["tensors"]:
        name = t["name"]
        if tuple(t["shape"]) != f["model"][name].shape or t["optimizer"] != (name in f["optimizer"]["exp_avg"]):
            yield f"{name}: shape or moments differ"
        for key, value in tensors[name].items():
            if not near(value, t[key]):
                yield f"{name}: {key} is {value}, {t[key]} said"
    columns = f["text/columns"].asstr()[()].tolist()
    if columns != list(said["history"]):
        yield "the metrics differ"
    for name in columns:
        values = [None if math.isnan(v) else v for v in f["history"][name][()].tolist()]
        if values != said["history"][name]:
            yield f"history {name} differs"
    files = {entry["name"]: entry["size"] for entry in said["files"]}
    if {name: f["files"][name].size for name in f["files"]} != files:
        yield "the files differ"


def check(path, with_digest, against):
    wrong = []
    with h5py.File(path, "r") as f:
        for key in ("favor_version", "config", "ranks", "digest"):
            if not isinstance(f.attrs[key], str):
                wrong.append(f"the attribute {key} is {type(f.attrs[key]).__name__}, not str")
            elif f["text"][key].asstr()[0] != f.attrs[key]:
                wrong.append(f"the attribute {key} is not what /text says")
        tensors = {}
        for name, values in f["model"].items():
            if values.dtype != np.dtype("<f4"):
                wrong.append(f"{name} is {values.dtype}")
            if values.size and values.ndim and not values.fletcher32:
                wrong.append(f"{name} has no checksum")
            for moment in ("exp_avg", "exp_avg_sq"):
                group = f["optimizer"][moment]
                if (name in group) != (name in f["optimizer"]["exp_avg"]) or (name in group and group[name].shape != values.shape):
                    wrong.append(f"{moment} of {name} does not fit")
            tensors[name] = statistics(values[()])
            print(name, values.shape, " ".join(f"{k}={v}" for k, v in tensors[name].items()))
        for line in f["samples/json"].asstr()[()].ravel():
            if line:
                json.loads(line)
        if with_digest and digest(f) != f.attrs["digest"]:
            wrong.append(f"the digest is {digest(f)}, the file says {f.attrs['digest']}")
        if against:
            with open(against, encoding="utf-8") as said:
                wrong += compare(f, tensors, json.load(said))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--digest", action="store_true", help="make the digest again (slow)")
    parser.add_argument("--against", help="output of favor inspect --json")
    arguments = parser.parse_args()
    wrong = check(arguments.checkpoint, arguments.digest, arguments.against)
    for message in wrong:
        print(f"{arguments.checkpoint}: {message}", file=sys.stderr)
    print("wrong" if wrong else "good")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
