#!/usr/bin/env python3
"""favor and its peers side by side; started by bench/compare.sh, which says what the options mean.

Every measurement is a pair: the peer's process, then favor's, on the same model folder, images and prompt. In the first round the
peer runs in each of its settings, in later rounds in the one that was fastest. A round's ratio is the peer's median over favor's.
Each process is one line of --out; the table is made of all lines there are in it. Pairs in which other processes used more than a
quarter of a core meanwhile are set aside (judged by that load, never by the result); a row that has no other pair is marked "loaded"."""
import argparse
import json
import os
import statistics
import sys
import time

import fixtures
from favor_train import Failed, run, train

OTHERS_MAX = 0.25
HERE = os.path.dirname(os.path.abspath(__file__))
SHORT = dict(image=224, text=60, group=8, response=64)
LONG = dict(image=448, text=200, group=16, response=64)
TRL = [{"checkpointing": False}, {"checkpointing": True}]
GENERATE = [{"attention": "sdpa"}, {"attention": "eager"}]
LEARN = [{"head": "fused", "attention": "sdpa"}, {"head": "full", "attention": "sdpa"}]


class Comparison:
    """One row of the table. key: which of a process's numbers is compared; goal: the ratio to reach, by size."""

    def __init__(self, title, peer, case, dtype, settings, key, goal):
        self.title, self.peer, self.case, self.dtype, self.settings, self.key, self.goal = title, peer, case, dtype, settings, key, goal


COMPARISONS = {
    "step": Comparison("GRPO step, float32", "trl_step", SHORT, "float32", TRL, "seconds", {"tiny": 6, "small": 5}),
    "step-bf16": Comparison("GRPO step, bfloat16", "trl_step", SHORT, "bfloat16", TRL, "seconds", {"small": 6}),
    "long": Comparison("GRPO step, 256 image + 200 text tokens, G 16", "trl_step", LONG, "float32", TRL, "seconds",
                       {"tiny": 15, "small": 10}),
    "generate": Comparison("generation, float32", "generate", SHORT, "float32", GENERATE, "rollout", {"tiny": 7, "small": 6}),
    "generate-bf16": Comparison("generation, bfloat16", "generate", SHORT, "bfloat16", GENERATE, "rollout", {"tiny": 7, "small": 6}),
    "learn": Comparison("forward + backward, float32", "forward_backward", SHORT, "float32", LEARN, "learn", {"tiny": 3.5, "small": 3.5}),
    "start": Comparison("start to first sampled token", "first_token", SHORT, "float32", [{}], "wall", {}),
}


class Bench:
    def __init__(self, options):
        self.o = options
        self.favor = os.path.join(options.build, "favor")
        self.dir = os.path.join(options.build, "bench")
        self.log = os.path.join(self.dir, "process.log")

    def fixtures(self, size, case):
        return fixtures.ensure(self.dir, size, case)

    def fail(self, command):
        with open(self.log) as f:
            sys.exit(f.read()[-4000:] + "\nfailed: " + " ".join(command))

    def run_peer(self, c, size, setting):
        model, data = self.fixtures(size, c.case)
        a = dict(c.case, model=model, data=data, dtype=c.dtype, threads=self.o.threads, warmup=self.o.warmup, steps=self.o.steps, **setting)
        command = [sys.executable, os.path.join(HERE, c.peer + ".py"), json.dumps(a)]
        code, out, cost = run(command, self.log)
        if code:
            self.fail(command)
        result = dict(json.loads(out.splitlines()[-1]), **cost)
        if "shortest" in result and result["shortest"] != c.case["response"]:
            sys.exit(f"{c.peer}: a response ended early: this is not the work that was to be compared")
        if c.key in ("rollout", "learn"):  # alone in its process
            result[c.key] = result["seconds"]
        if c.key == "wall":
            result["wall"] = [result["wall"]]
        return result

    def run_favor(self, c, size, setting):
        """None where this favor has no such dtype. Where the peer keeps few activations, so does favor."""
        return self.first_token(c, size) if c.key == "wall" else self.train(c, size, setting.get("checkpointing", False))

    def train(self, c, size, recompute):
        model, data = self.fixtures(size, c.case)
        try:
            measured, lines, cost = train(self.favor, self.dir, model, data, c.case, 2 * self.o.steps, self.o.warmup, self.o.threads, c.dtype,
                                          recompute=recompute)
        except Failed as e:
            if e.code == 2 and c.dtype != "float32" and "dtype" in e.text:
                return None
            raise
        return dict(seconds=[m["step_time"] for m in measured], rollout=[m["time/rollout"] for m in measured],
                    learn=[m["time/forward"] + m["time/backward"] for m in measured],
                    prompt_tokens=lines[0]["num_tokens"] - c.case["group"] * c.case["response"], **cost)

    def first_token(self, c, size):
        model, data = self.fixtures(size, c.case)
        command = [self.favor, "generate", "--model", model, "--image", os.path.join(data, "0.png"), "--prompt",
                   "what is the person in this image doing", "--max-tokens", "1"]
        runs = []
        for _ in range(1 + 2 * self.o.steps):
            code, _, cost = run(command, self.log)
            if code:
                self.fail(command)
            runs.append(cost)
        return dict(wall=[r["wall"] for r in runs[1:]], mib=max(r["mib"] for r in runs), others=runs[-1]["others"])

    def record(self, **line):
        with open(self.o.out, "a") as f:
            print(json.dumps(line), file=f)

    def pair(self, name, c, size, setting, stamp):
        """The peer in that setting, then favor. False where favor can't."""
        mine = {"name": name, "size": size, "pair": stamp, "threads": self.o.threads}
        peer = self.run_peer(c, size, setting)
        self.record(side="peer", setting=setting, **mine, **peer)
        favor = self.run_favor(c, size, setting)
        if not favor:
            self.record(side="favor", missing=True, others=0, **mine)
            return peer
        if peer.get("prompt_tokens", favor.get("prompt_tokens")) != favor.get("prompt_tokens"):
            sys.exit(f"prompt tokens differ: peer {peer['prompt_tokens']}, favor {favor['prompt_tokens']}")
        self.record(side="favor", **mine, **favor)
        say = " ".join(f"{k}={v}" for k, v in setting.items())
        print(f"{size} {name} {say}: peer {statistics.median(peer[c.key]):.3f} s, favor {statistics.median(favor[c.key]):.3f} s, "
              f"others' load {peer['others']:.2f} and {favor['others']:.2f} cores", file=sys.stderr)
        return peer

    def measure(self):
        for size in self.o.size:
            for name in self.o.only:
                c = COMPARISONS[name]
                settings = c.settings
                for r in range(self.o.rounds):
                    medians = []
                    for i, setting in enumerate(settings):
                        peer = self.pair(name, c, size, setting, f"{time.time():.0f}-{r}-{i}")
                        medians.append(statistics.median(peer[c.key]))
                    settings = [settings[medians.index(min(medians))]]


def spread(values, form="{:.3g}"):
    return " / ".join(form.format(v) for v in (min(values), statistics.median(values), max(values)))


def table(path):
    """Rows of the comparisons that the file has lines of."""
    with open(path) as f:
        lines = [json.loads(line) for line in f]
    print("| what | size | peer's setting | peer | favor | ratio | goal |\n| --- | --- | --- | --- | --- | --- | --- |")
    for name, c in COMPARISONS.items():
        for size in ("tiny", "small"):
            mine = [x for x in lines if x["name"] == name and x["size"] == size]
            favor = {x["pair"]: x for x in mine if x["side"] == "favor"}
            peers = [x for x in mine if x["side"] == "peer"]
            if not peers:
                continue
            every, noisy = peers, {x["pair"] for x in mine if x["others"] > OTHERS_MAX}
            peers = [x for x in peers if x["pair"] not in noisy] or peers
            by_setting = {}
            for x in peers:
                by_setting.setdefault(json.dumps(x["setting"]), []).append(x)
            best = min(by_setting.values(), key=lambda xs: statistics.median(v for x in xs for v in x[c.key]))
            say = ", ".join(f"{k} {v}".lower() for k, v in best[0]["setting"].items()) or "-"
            if best[0]["pair"] in noisy:
                say += " (loaded)"
            row(c, size, say, best, [favor[x["pair"]] for x in best if x["pair"] in favor])
            if name == "step":
                memory(size, every, favor)


def row(c, size, say, peers, favors):
    def shown(xs):
        values = [v for x in xs for v in x[c.key]]
        if c.key == "rollout":
            return spread([c.case["group"] * c.case["response"] / v for v in values], "{:.0f}") + " tok/s"
        return spread(values) + " s"
    goal = f">= {c.goal[size]}" if size in c.goal else "-"
    if c.key == "wall":
        goal = {"tiny": "< 0.1 s", "small": "< 0.3 s"}[size]
        say = "imports alone " + spread([x["imports"] for x in peers]) + " s"
    favors = [x for x in favors if not x.get("missing")]
    if not favors:
        print(f"| {c.title} | {size} | {say} | {shown(peers)} | n/a | n/a | {goal} |")
        return
    by_pair = {x["pair"]: x for x in favors}
    ratios = [statistics.median(p[c.key]) / statistics.median(by_pair[p["pair"]][c.key]) for p in peers if p["pair"] in by_pair]
    print(f"| {c.title} | {size} | {say} | {shown(peers)} | {shown(favors)} | {spread(ratios)} | {goal} |")


def memory(size, peers, favor):
    """Setting by setting: both keep their activations, or both make them again. The goal is for where memory is what counts."""
    for setting in TRL:
        mine = [x for x in peers if x["setting"] == setting]
        most = max((favor[x["pair"]]["mib"] for x in mine if "mib" in favor.get(x["pair"], {})), default=None)
        if most is None:
            continue
        least, frugal = min(x["mib"] for x in mine), setting["checkpointing"]
        say = "checkpointing true; favor: recompute" if frugal else "checkpointing false"
        goal = (">= 5" if size == "tiny" else ">= 2") if frugal else "-"
        print(f"| peak memory of the job | {size} | {say} | {least:.0f} MiB | {most:.0f} MiB | {least / most:.3g} | {goal} |")


def main():
    p = argparse.ArgumentParser(description="favor and its peers side by side")
    p.add_argument("--build", default="build", help="folder that favor was built in")
    p.add_argument("--size", nargs="+", choices=("tiny", "small"), default=["tiny", "small"])
    p.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS))
    p.add_argument("--quick", action="store_true", help="one round of two steps instead of three of four")
    p.add_argument("--rounds", type=int)
    p.add_argument("--steps", type=int, help="measured steps a process (favor: twice as many)")
    p.add_argument("--warmup", type=int, help="steps before them")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", help="JSON lines, appended to (default BUILD/bench/compare.jsonl)")
    p.add_argument("--table", action="store_true", help="measure nothing: print the table of what --out has")
    o = p.parse_args()
    o.rounds = o.rounds or (1 if o.quick else 3)
    o.steps = o.steps or (2 if o.quick else 4)
    o.warmup = (1 if o.quick else 2) if o.warmup is None else o.warmup
    o.out = o.out or os.path.join(o.build, "bench", "compare.jsonl")
    if not o.table:
        os.makedirs(os.path.join(o.build, "bench"), exist_ok=True)
        Bench(o).measure()
    table(o.out)


if __name__ == "__main__":
    main()
