#!/usr/bin/env python3
"""Reads a run's TensorBoard event file and compares it with its metrics.jsonl: each step's finite numbers, once, in order. An evaluation that
was killed before its checkpoint may stand twice, with the same value.

    events.py RUN_DIR

Prints nothing and leaves with 0 if they agree, else a message and 1. (tools/check_events.py does the same by TensorBoard's own reader.)"""
import glob
import json
import struct
import sys


def shifted(c):
    for _ in range(8):
        c = c >> 1 ^ (0x82F63B78 if c & 1 else 0)
    return c


TABLE = [shifted(byte) for byte in range(256)]


def masked(data):
    """CRC-32C, masked as TFRecord has it"""
    c = 0xFFFFFFFF
    for byte in data:
        c = c >> 8 ^ TABLE[(c ^ byte) & 255]
    c ^= 0xFFFFFFFF
    return ((c >> 15 | c << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    at = 0
    while at < len(data):
        n, check = struct.unpack_from("<QI", data, at)
        event = data[at + 12 : at + 12 + n]
        if check != masked(data[at : at + 8]) or struct.unpack_from("<I", data, at + 12 + n)[0] != masked(event):
            sys.exit(f"a wrong checksum in the record at byte {at}")
        yield event
        at += 16 + n


def varint(data, at):
    x = shift = 0
    while True:
        byte = data[at]
        x |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return x, at


def fields(data):
    """{number: [values]} of a message in protocol buffers' encoding"""
    found, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = varint(data, at)
        else:
            n, at = varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
            value, at = data[at : at + n], at + n
        found.setdefault(key >> 3, []).append(value)
    return found


def main():
    run = sys.argv[1]
    files = sorted(glob.glob(run + "/events.out.tfevents.*"))
    if not files or any(open(name, "rb").read() for name in files[:-1]):
        sys.exit(f"{len(files)} event files in {run}, of which the last alone should have anything in it")
    expected, got = [], []
    for line in open(run + "/metrics.jsonl"):
        metrics = json.loads(line)
        step = metrics.pop("step")
        for name, x in metrics.items():
            if isinstance(x, (int, float)):
                expected.append((step, name if name.startswith("eval/") else "train/" + name, struct.pack("<f", x)))
    for event in map(fields, records(open(files[-1], "rb").read())):
        for summary in event.get(5, []):
            for value in map(fields, fields(summary)[1]):
                scalar = (event[2][0], value[1][0].decode(), value[2][0])
                if not (scalar[1].startswith("eval/") and scalar in got[-8:]):
                    got.append(scalar)
    for i in range(max(len(expected), len(got))):
        if expected[i : i + 1] != got[i : i + 1]:
            sys.exit(f"value {i + 1} of {files[-1]}: {got[i : i + 1]} instead of {expected[i : i + 1]}")


main()
