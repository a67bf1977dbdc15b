#!/usr/bin/env python3
"""Writes a few steps of torch.optim.AdamW (float32, CPU) to tests/golden/backend/adamw.json.

Settings are rounded to float32 first, because that is what favor's optimiser takes.

usage: tools/golden_adamw.py [OUT.json]   (needs torch)
"""
import json
import pathlib
import sys

import torch


def single(x):
    return torch.tensor(x, dtype=torch.float32).item()


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                       pathlib.Path(__file__).parent.parent / "tests/golden/backend/adamw.json")
    torch.manual_seed(2)
    cases = []
    for lr, betas, eps, decay in [(1e-3, (0.9, 0.999), 1e-8, 0.0), (1e-2, (0.9, 0.95), 1e-6, 0.1),
                                  (0.3, (0.0, 0.5), 1e-3, 0.01)]:
        lr, betas, eps, decay = single(lr), tuple(map(single, betas)), single(eps), single(decay)
        w = torch.nn.Parameter(torch.randn(37))
        start = w.detach().clone()
        optimizer = torch.optim.AdamW([w], lr=lr, betas=betas, eps=eps, weight_decay=decay, foreach=False)
        steps = []
        for step in range(5):
            w.grad = torch.randn(37) * 10.0 ** torch.randint(-5, 2, (37,))
            if step == 2:
                w.grad[:10] = 0
            optimizer.step()
            state = optimizer.state[w]
            steps.append({"g": w.grad.tolist(), "w": w.detach().tolist(), "m": state["exp_avg"].tolist(),
                          "v": state["exp_avg_sq"].tolist()})
        cases.append({"lr": lr, "beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": decay,
                      "start": start.tolist(), "steps": steps})
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
    print(f"{out}: {len(cases)} cases")


if __name__ == "__main__":
    main()
