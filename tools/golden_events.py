#!/usr/bin/env python3
"""Writes a TensorBoard event file with TensorBoard's own record writer to tests/golden/report/events.bin: the beginning of a file, two steps'
metrics and an evaluation of the second, as src/report/events.h has them.

usage: tools/golden_events.py [OUT]   (needs tensorboard)
"""
import pathlib
import sys

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


def scalars(time, step, values):
    return Event(wall_time=time, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=x) for tag, x in values]))


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "tests/golden/report/events.bin")
    out.parent.mkdir(exist_ok=True)
    events = [
        Event(wall_time=1764275000.25, file_version="brain.Event:2"),
        Event(wall_time=1764275000.25, session_log=SessionLog(status=SessionLog.START)),
        scalars(1764275001.5, 1, [("train/loss", 0.1), ("train/rewards/accuracy/mean", 0.0), ("train/num_tokens", 16777217.0)]),
        scalars(1764275002.75, 300, [("train/loss", -2.5e-7)]),
        scalars(1764275003.0, 300, [("eval/accuracy", 0.465)]),
    ]
    with open(out, "wb") as f:
        writer = RecordWriter(f)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()
    print(f"{out}: {out.stat().st_size} bytes")


main()
