#!/usr/bin/env python3
"""A model of what a GRPO step costs on 1, 8, 64 and 512 GPUs: seconds, bytes on the wire, memory, and what limits it.

    tools/cost_model.py [--groups 512] [--group-size 8] [--image 391] [--text 309] [--response 150] [--decode-groups 8] [--shard] ...

A model, not a measurement: operations and bytes are counted from the shapes as bench/roofline.c counts them, what is sent is what
src/comm sends, and rates are the options' (--help). Letters are those of docs/PERFORMANCE.md."""
import argparse
import math
from dataclasses import dataclass

WORD, HALF, MOMENTS = 4, 2, 2  # bytes of a float32, of a bfloat16; blocks of AdamW's moments
GIB = 2.0 ** 30


@dataclass
class Shape:
    """The letters of src/model/params.h."""
    name: str
    H: int
    F: int
    L: int
    heads: int
    kv_heads: int
    V: int
    tied: bool
    E: int = 1280
    M: int = 5120
    depth: int = 32
    C: int = 1176
    S: int = 4

    @property
    def Q(self):
        return self.H

    @property
    def KV(self):
        return self.H // self.heads * self.kv_heads

    def tower(self):
        """Parameters of the vision tower and its merger."""
        block = 4 * self.E * self.E + 2 * self.E * self.M + 9 * self.E + self.M
        merger = self.S * self.E
        return self.depth * block + self.E * self.C + 2 * self.E + merger * merger + merger + merger * self.H + self.H

    def layer(self):
        return 2 * self.Q * self.H + 2 * self.KV * self.H + 3 * self.H * self.F

    def parameters(self):
        text = self.L * (self.layer() + self.Q + 2 * self.KV + 2 * self.H) + self.H
        return self.tower() + text + self.V * self.H * (1 if self.tied else 2)


SHAPES = [Shape("Qwen2-VL-2B", 1536, 8960, 28, 12, 2, 151936, True), Shape("Qwen2-VL-7B", 3584, 18944, 28, 28, 4, 152064, False)]


def vision_flops(s, patches):
    products = 2 * patches * (s.E * s.C + s.depth * (4 * s.E * s.E + 2 * s.E * s.M)) \
        + 2 * patches / s.S * (s.S * s.E * s.S * s.E + s.H * s.S * s.E)
    return products + 4 * s.E * patches * patches * s.depth


def text_flops(s, rows, pairs, head_rows):
    return s.L * (2 * rows * s.layer() + 4 * s.Q * pairs) + 2 * head_rows * s.V * s.H


def group_costs(s, o):
    """Seconds that a GPU needs to roll a group out, and to learn from it."""
    G, T, n = o.group_size, o.response, o.image + o.text
    vision = vision_flops(s, 4 * o.image)
    prompt_pairs = n * (n + 1) / 2
    pairs = prompt_pairs + G * ((T - 1) * n + T * (T - 1) / 2)
    prefill = (vision + text_flops(s, n, prompt_pairs, 1)) / o.flops
    # decode: weights once a token for all groups that decode together, and each group's own keys and values
    kv = HALF * 2 * s.KV * s.L
    weights = HALF * (s.parameters() - s.tower() - (0 if s.tied else s.V * s.H))
    token_bytes = weights / o.decode_groups + kv * (n + G * T / 2)
    token_flops = text_flops(s, G, G * (n + T / 2), G)
    decode = (T - 1) * max(token_bytes / o.bandwidth, token_flops / o.flops)
    forward = vision + text_flops(s, n + G * (T - 1), pairs, G * T)
    return prefill + decode, 3 * forward / o.flops


def group_bytes(o):
    """The record on the wire (src/base/group.c), scored, two rewards; text of about four bytes a token."""
    tokens = o.group_size * o.response
    return 72 + 4 * (o.group_size + 1) + 16 * tokens + o.group_size * (1 + 4) + 4 * tokens + o.group_size * (2 * 4 + 4 + 1 + 16)


def learner_bytes(s, owners):
    """Weights and gradients in float32, which every learner holds whole, the packed bfloat16 copy, and its share of the moments."""
    return s.parameters() * ((2 + MOMENTS / owners) * WORD + HALF)


def ranks(gpus, placement):
    """(rollout, learner) ranks with a GPU; auto's proportion of learners, the reward rank needs none."""
    if placement == "colocate" or gpus == 1:
        return gpus, gpus
    learners = max(1, (gpus - 1) // 3)
    return gpus - learners, learners


def step(s, o, gpus, placement):
    """One row of the table."""
    R, L = ranks(gpus, placement)
    apart = placement != "colocate" and gpus > 1
    roll, learn = group_costs(s, o)
    block = WORD * s.parameters()
    sent = 2 * (L - 1) / L * block  # gradients: slices out, sums back; each learner
    hops = math.ceil(math.log2(R + 1)) if apart else 0  # a binomial tree: the leader sends the block so many times
    link = o.inside if gpus <= o.node else o.outside
    owners = L if o.shard else 1  # of the moments; weights in place of gradients are sent back: as many bytes
    seconds = {
        "rollout": math.ceil(o.groups / R) * roll,
        "learn": math.ceil(o.groups / L) * learn,
        "gradients": sent / link,
        "optimizer": 9 * block / owners / o.bandwidth,
        "publish": hops * block / link,
        "records": 2 * o.groups * group_bytes(o) / L / link if gpus > 1 else 0.0,
    }
    memory = learner_bytes(s, owners)
    total = sum(seconds.values())
    limit = max(seconds, key=seconds.get)
    if memory > o.memory * GIB:
        limit = "memory: does not fit"
    return dict(R=R, L=L, seconds=seconds, total=total, sent=sent, publish=hops * block, records=2 * o.groups * group_bytes(o),
                memory=memory, limit=limit)


def gb(x):
    return f"{1e-9 * x:.3g}"


def table(s, o):
    print(f"\n**{s.name}**: {1e-9 * s.parameters():.3f} G parameters, block of weights {gb(WORD * s.parameters())} GB, "
          f"group record {1e-3 * group_bytes(o):.1f} kB\n")
    print("| GPUs | placement | rollout, learner | rollout s | learn s | gradients s | AdamW s | publish s | step s | efficiency | "
          "sent by each learner, GB | by the leader, publishing, GB | records, MB | learner GiB | most time in |")
    print("|" + " --- |" * 15)
    one = step(s, o, 1, "colocate")["total"]
    for gpus in (1, 8, 64, 512):
        for placement in ("colocate",) if gpus == 1 else ("colocate", "auto"):
            r = step(s, o, gpus, placement)
            t = r["seconds"]
            print(f"| {gpus} | {placement} | {r['R']}, {r['L']} | " +
                  " | ".join(f"{t[k]:.3g}" for k in ("rollout", "learn", "gradients", "optimizer", "publish")) +
                  f" | {r['total']:.3g} | {100 * one / gpus / r['total']:.0f}% | {gb(r['sent'])} | {gb(r['publish'])} | "
                  f"{1e-6 * r['records'] if gpus > 1 else 0:.1f} | {r['memory'] / GIB:.0f} | {r['limit']} |")


def main():
    p = argparse.ArgumentParser(description="model of a GRPO step's cost on many GPUs; not a measurement",
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--groups", type=int, default=512, help="groups a step, over all ranks")
    p.add_argument("--group-size", type=int, default=8)
    p.add_argument("--image", type=int, default=391, help="image tokens (391: 640 x 480)")
    p.add_argument("--text", type=int, default=309, help="other tokens of the prompt")
    p.add_argument("--response", type=int, default=150)
    p.add_argument("--decode-groups", type=int, default=8, help="groups that a rollout rank decodes together (rollout.groups)")
    p.add_argument("--flops", type=float, default=4e14, help="bfloat16 operations a second that a GPU reaches in products")
    p.add_argument("--bandwidth", type=float, default=2.4e12, help="bytes a second that a GPU reads from its memory")
    p.add_argument("--inside", type=float, default=2e11, help="bytes a second a rank sends inside a node")
    p.add_argument("--outside", type=float, default=2.5e10, help="bytes a second a rank sends between nodes")
    p.add_argument("--node", type=int, default=8, help="GPUs a node")
    p.add_argument("--memory", type=float, default=80, help="GiB of a GPU")
    p.add_argument("--shard", action="store_true", help="learner.shard: the moments are divided among the learners")
    o = p.parse_args()
    for s in SHAPES:
        table(s, o)


if __name__ == "__main__":
    main()
