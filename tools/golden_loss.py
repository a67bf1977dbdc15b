#!/usr/bin/env python3
"""Golden values for advantages, loss, gradient and loss metrics: what TRL's own GRPOTrainer makes of given numbers.

A real GRPOTrainer is built on a tiny random model. Only its two doors to the model are replaced: what generation
returns (fixed token ids) and what the forward pass returns (fixed per-token log-probabilities and entropies). All that
lies between (rewards, advantages, truncation masks, normalisers, loss, metrics) is TRL's code, unchanged. The tensors
are float64 holding float32 values, so that TRL's result is exact and the test's tolerance can be tight.

    python3 tools/golden_loss.py tests/golden/learner/loss.json
"""
import itertools
import json
import os
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

GROUP, GROUPS, MAX_TOKENS = 4, 3, 9
EOS, PAD, WORD = 1, 0, 2
CLIP_LOW, CLIP_HIGH = 0.2, 0.28
# a length of MAX_TOKENS is a response that was cut (its last token is no EOS), but for sequence 5, which ends there
LENGTHS = [5, 9, 1, 7, 3, 9, 9, 4, 8, 2, 6, 9]
TRUNCATED = [n == MAX_TOKENS and i != 5 for i, n in enumerate(LENGTHS)]
REWARDS = [[1, 0, 0.5, 0, 1, 1, 1, 1, 0, 0, 0, 1], [1, 0, 1, 0, 1, 1, 1, 1, 0, 1, 0.25, 1]]  # group 1: all alike
WEIGHTS = [1.0, 0.5]


def f32(x):
    """float32 values as Python floats, printed short: they parse back to the same float."""
    return [float(str(v)) for v in np.asarray(x, dtype=np.float32).ravel()]


def numbers():
    rng = np.random.default_rng(7)
    n = sum(LENGTHS)
    old = -rng.gamma(1.0, 1.2, n)
    logp = old + rng.normal(0, 0.5, n)  # many ratios on either side of both clips
    logp[::7] = old[::7]                 # and some exactly 1
    return dict(logp=f32(np.minimum(logp, 0)), old=f32(old), ref=f32(np.minimum(old + rng.normal(0, 0.5, n), 0)),
                entropy=f32(rng.gamma(2.0, 0.5, n)))


def padded(flat):
    out, at = torch.zeros(len(LENGTHS), MAX_TOKENS, dtype=torch.float64), 0
    for i, n in enumerate(LENGTHS):
        out[i, :n] = torch.tensor(flat[at:at + n], dtype=torch.float64)
        at += n
    return out


def trainer_for(folder, loss_type, beta, scale, mask_truncated):
    tokenizer = Tokenizer(models.WordLevel({"<pad>": PAD, "<eos>": EOS, "word": WORD}, unk_token="word"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>",
                                        unk_token="word")
    config = Qwen2Config(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                         num_key_value_heads=1, eos_token_id=EOS, pad_token_id=PAD)
    Qwen2ForCausalLM(config).save_pretrained(folder)  # the reference model is opened by path

    def reward(row):
        def given(completions, **_):
            return REWARDS[row]
        given.__name__ = ("accuracy", "format")[row]
        return given

    args = GRPOConfig(output_dir=folder, per_device_train_batch_size=len(LENGTHS), num_generations=GROUP,
                      max_completion_length=MAX_TOKENS, loss_type=loss_type, beta=beta, epsilon=CLIP_LOW,
                      epsilon_high=CLIP_HIGH, scale_rewards=scale, mask_truncated_completions=mask_truncated,
                      reward_weights=WEIGHTS, num_iterations=2,  # 2: old log-probabilities are kept
                      # the plain k3 term of the GRPO paper; TRL's default multiplies it by the ratio
                      use_bias_correction_kl=False,
                      gradient_checkpointing=False, use_cpu=True, bf16=False, report_to=[])
    t = GRPOTrainer(model=folder, reward_funcs=[reward(0), reward(1)], args=args,
                    train_dataset=Dataset.from_dict({"prompt": ["word"] * 3}), processing_class=tokenizer)
    t.model.train()
    t.current_gradient_accumulation_steps = 1
    return t


def run(loss_type, beta, scale, mask_truncated, given):
    logp = padded(given["logp"]).requires_grad_()
    old, ref, entropy = (padded(given[k]) for k in ("old", "ref", "entropy"))
    with tempfile.TemporaryDirectory() as folder:
        t = trainer_for(folder, loss_type, beta, scale, mask_truncated)

        def generate(prompt_ids, *_):
            ids = [[WORD] * n if cut else [WORD] * (n - 1) + [EOS] for n, cut in zip(LENGTHS, TRUNCATED)]
            return ids, None

        def forward(model, *_, compute_entropy=False, **__):
            if compute_entropy:
                return logp, entropy, None
            return (ref if t.ref_model is not None and model is t.ref_model else old), None, None

        t._generate_single_turn = generate
        t._get_per_token_logps_and_entropies = forward
        inputs = t._generate_and_score_completions([{"prompt": "word"} for _ in LENGTHS])
        assert (inputs["old_per_token_logps"] == old).all() and (beta == 0) == ("ref_per_token_logps" not in inputs)
        loss = t._compute_loss(t.model, inputs)
        loss.backward()
        metrics = {k: v[-1] for k, v in t._metrics["train"].items()}
    gradient = [g for i, n in enumerate(LENGTHS) for g in logp.grad[i, :n].tolist()]
    return dict(loss_type=loss_type, beta=beta, scale_rewards=scale, mask_truncated=mask_truncated, loss=loss.item(),
                advantages=f32(inputs["advantages"]), gradient=[float(f"{g:.10g}") for g in gradient],
                metrics={k: float(f"{v:.10g}") for k, v in sorted(metrics.items())})


def main():
    given = numbers()
    cases = [run(*c, given) for c in itertools.product(("grpo", "dr_grpo", "dapo"), (0.0, 0.04), ("group", "none"),
                                                       (False, True))]
    weighted = [sum(w * r[i] for w, r in zip(WEIGHTS, REWARDS)) for i in range(len(LENGTHS))]
    out = dict(trl=trl.__version__, group=GROUP, max_tokens=MAX_TOKENS, clip_low=CLIP_LOW, clip_high=CLIP_HIGH,
               lengths=LENGTHS, truncated=TRUNCATED, rewards=REWARDS, weights=WEIGHTS, reward=weighted, **given,
               cases=cases)
    with open(sys.argv[1], "w") as f:
        json.dump(out, f, separators=(",", ":"))
        f.write("\n")
    print(f"{sys.argv[1]}: {len(cases)} cases by TRL {trl.__version__}")


if __name__ == "__main__":
    main()
