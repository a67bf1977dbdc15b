#!/usr/bin/env python3
"""How the cost of favor's GRPO step grows; started by bench/scaling.sh. One axis at a time around a middle: tiny model, G 8, 64
image tokens, 60 text tokens, responses of 64 tokens, one process. Each point is a `favor train` of its own; its line goes to a TSV
file, and table and plot are made of all lines there are in it."""
import argparse
import os
import statistics
import sys

import fixtures
import plot
from favor_train import train

MIDDLE = dict(image=224, text=60, group=8, response=64)
# axis: title, points as (what the axis shows, changes to the middle)
AXES = {
    "group": ("responses a group (G)", [(g, {"group": g}) for g in (2, 4, 8, 16, 32)]),
    "image": ("image tokens", [(16, {"image": 112}), (64, {}), (256, {"image": 448}), (1024, {"image": 896})]),
    "response": ("tokens a response", [(t, {"response": t}) for t in (32, 64, 128, 256, 512)]),
    "ranks": ("rollout ranks (8 groups a step)", [(n, {"ranks": n}) for n in (1, 2, 4, 8)]),
}
COLUMNS = ["axis", "x", "step_s", "step_min_s", "step_max_s", "rollout_s", "forward_s", "backward_s", "memory_mib", "others_cores"]


def measure(o, axis, x, change):
    case = dict(MIDDLE, **{k: v for k, v in change.items() if k != "ranks"})
    model, data = fixtures.ensure(o.dir, "tiny", case)
    # small groups often have equal rewards, and such steps are left out
    how = dict(steps=o.steps * max(1, MIDDLE["group"] // case["group"]), warmup=1, threads=o.threads)
    if axis == "ranks":  # one learner and one reward rank beside them; each rank has a thread
        how.update(threads=1, groups=8, ranks=x + 2, placement=f"{{rollout: {x}, reward: 1, learner: 1}}")
    steps, _, cost = train(os.path.join(o.build, "favor"), o.dir, model, data, case, **how)
    last = steps[-1]
    memory = last["memory/learner_peak_rss_mib"]
    if axis == "ranks":
        memory += x * last["memory/rollout_peak_rss_mib"] + last["memory/reward_peak_rss_mib"]
    seconds = [m["step_time"] for m in steps]
    middle = [statistics.median(m["time/" + phase] for m in steps) for phase in ("rollout", "forward", "backward")]
    numbers = [statistics.median(seconds), min(seconds), max(seconds), *middle]
    return [axis, str(x), *(f"{v:.4g}" for v in numbers), f"{memory:.0f}", f"{cost['others']:.2f}"]


def read(path):
    """{(axis, x): row}; a later line of a point wins."""
    rows = {}
    if os.path.exists(path):
        with open(path) as f:
            for line in list(f)[1:]:
                row = dict(zip(COLUMNS, line.rstrip("\n").split("\t")))
                rows[row["axis"], int(row["x"])] = row
    return rows


def write(path, rows):
    with open(path, "w") as f:
        print("\t".join(COLUMNS), file=f)
        for axis in AXES:
            for x, _ in AXES[axis][1]:
                if (axis, x) in rows:
                    print("\t".join(rows[axis, x][c] for c in COLUMNS), file=f)


def markdown(rows):
    for axis, (title, points) in AXES.items():
        mine = [rows[axis, x] for x, _ in points if (axis, x) in rows]
        if mine:
            print(f"\n| {title} | " + " | ".join(r["x"] for r in mine) + " |\n|" + " --- |" * (len(mine) + 1))
            for name, column in (("seconds a step", "step_s"), ("rollout", "rollout_s"), ("forward", "forward_s"),
                                 ("backward", "backward_s"), ("peak memory, MiB", "memory_mib")):
                print(f"| {name} | " + " | ".join(r[column] for r in mine) + " |")


def draw(path, rows):
    panels = []
    for column, name in (("step_s", "seconds a step"), ("memory_mib", "peak memory, MiB")):
        for axis, (title, points) in AXES.items():
            values = [(x, float(rows[axis, x][column])) for x, _ in points if (axis, x) in rows]
            if values:
                panels.append((title, name, values))
    plot.write(path, panels, across=sum(any(a == axis for a, _ in rows) for axis in AXES))


def main():
    p = argparse.ArgumentParser(description="how the cost of a step grows")
    p.add_argument("--build", default="build")
    p.add_argument("--axis", nargs="+", choices=AXES, default=list(AXES))
    p.add_argument("--point", nargs="+", type=int, help="these points of the axis alone")
    p.add_argument("--table", action="store_true", help="measure nothing: tables and plot of what --out has")
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", default="docs/scaling.tsv")
    p.add_argument("--plot", default="docs/scaling.svg")
    o = p.parse_args()
    o.dir = os.path.join(o.build, "bench")
    os.makedirs(o.dir, exist_ok=True)
    rows = read(o.out)
    for axis in [] if o.table else o.axis:
        for x, change in [p for p in AXES[axis][1] if not o.point or p[0] in o.point]:
            row = measure(o, axis, x, change)
            print("\t".join(row), file=sys.stderr)
            rows[axis, x] = dict(zip(COLUMNS, row))
            write(o.out, rows)
    markdown(rows)
    draw(o.plot, rows)


if __name__ == "__main__":
    main()
