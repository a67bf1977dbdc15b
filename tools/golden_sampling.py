#!/usr/bin/env python3
"""Writes golden truncations of transformers' logits warpers to tests/golden/backend/sampling.json.

Each case: logits, sampling settings, and after all warpers the kept ids with their log-probabilities under the truncated
distribution ("sampling_logp") and under softmax(logits / temperature) ("logp"), and the entropy of the latter.
Where equal logits straddle the edge of top_p, which of them stay is a matter of the sort; favor documents that lower ids
stay, so the kept ids are put in that form (the number kept and their logits are the warper's).
Cases whose edge is within rounding of a threshold are left out: there float32 decides.

usage: tools/golden_sampling.py [OUT.json]   (needs torch and transformers)
"""
import json
import pathlib
import sys

import torch
from transformers.generation.logits_process import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

NEAR = 1e-5


def truncate(scores, warper):
    """The warper's result, with ties at its edge given to the lower ids."""
    after = warper(None, scores[None])[0]
    count = int((after > -torch.inf).sum())
    order = sorted(range(len(scores)), key=lambda i: (-scores[i].item(), i))[:count]
    kept = scores[after > -torch.inf].sort().values
    assert torch.equal(kept, scores[order].sort().values), "more than ties differ"
    result = torch.full_like(scores, -torch.inf)
    result[order] = scores[order]
    return result


def near_threshold(scores, top_p, min_p):
    probs = scores.double().softmax(-1)
    sums = probs.sort(descending=True).values.cumsum(-1)
    return (top_p < 1 and bool(((sums - top_p).abs() < NEAR).any())) or \
           (min_p > 0 and bool(((probs / probs.max() - min_p).abs() < NEAR).any()))


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                       pathlib.Path(__file__).parent.parent / "tests/golden/backend/sampling.json")
    torch.manual_seed(1)
    cases = []
    settings = [(1.0, 0, 1.0, 0.0), (0.7, 0, 1.0, 0.0), (1.0, 5, 1.0, 0.0), (1.3, 1, 1.0, 0.0), (1.0, 0, 0.9, 0.0),
                (1.0, 0, 0.31, 0.0), (0.5, 0, 0.77, 0.0), (1.0, 0, 1.0, 0.05), (1.0, 0, 1.0, 0.7), (0.9, 20, 0.8, 0.0),
                (1.1, 7, 0.57, 0.1), (1.0, 30, 1.0, 0.2), (1.0, 0, 0.95, 0.02), (2.0, 0, 0.01, 0.0), (1.0, 100, 0.63, 0.0)]
    for kind in ("random", "tied", "flat"):
        for temperature, top_k, top_p, min_p in settings:
            for V in (5, 40):
                logits = torch.randn(V) * 2
                if kind == "tied":
                    logits = logits.round()
                elif kind == "flat":
                    logits = torch.zeros(V)
                scaled = logits / temperature
                scores, doubtful = scaled, False
                if top_k:
                    scores = truncate(scores, TopKLogitsWarper(top_k))
                if top_p < 1:
                    doubtful |= near_threshold(scores, top_p, 0)
                    scores = truncate(scores, TopPLogitsWarper(top_p))
                if min_p:
                    doubtful |= near_threshold(scores, 1, min_p)
                    scores = truncate(scores, MinPLogitsWarper(min_p))
                if doubtful:
                    continue
                full = scaled.double().log_softmax(-1)
                kept = (scores > -torch.inf).nonzero()[:, 0]
                cut = scores.double().log_softmax(-1)[kept]
                cases.append({
                    "logits": logits.tolist(), "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
                    "kept": kept.tolist(), "sampling_logp": [round(v, 7) for v in cut.tolist()],
                    "logp": [round(v, 7) for v in full[kept].tolist()],
                    "entropy": round(float(-(full.exp() * full).sum()), 7)})
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    print(f"{out}: {len(cases)} cases")


if __name__ == "__main__":
    main()
