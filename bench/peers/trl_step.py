"""TRL's GRPOTrainer on the CPU, one prompt a step: seconds of its steps. See common.arguments; dtype bfloat16 is TRL's autocast
(float32 weights), "checkpointing" its gradient checkpointing."""
import os
import sys
import tempfile
import time

import common

a = common.arguments()
model, processor = common.open_model(a, "float32")

from datasets import Dataset, Image
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

rows = common.records(a)
data = Dataset.from_dict({"prompt": [[{"role": "user", "content": r["problem"]}] for r in rows], "image": [r["image"] for r in rows],
                          "solution": [r["solution"] for r in rows]}).cast_column("image", Image())


def contains(completions, solution, **_):
    return [float(s in c[0]["content"].lower().replace(" ", "").replace("_", "")) for c, s in zip(completions, solution)]


class Clock(TrainerCallback):
    def __init__(self):
        self.seconds, self.phases, self.now = [], [], {}

    def around(self, owner, name, phase):
        work = getattr(owner, name)

        def timed(*x, **k):
            begin = time.perf_counter()
            try:
                return work(*x, **k)
            finally:
                self.now[phase] = self.now.get(phase, 0) + time.perf_counter() - begin
        setattr(owner, name, timed)

    def on_step_begin(self, *x, **k):
        self.now, self.begin = {}, time.perf_counter()

    def on_step_end(self, *x, **k):
        self.seconds.append(time.perf_counter() - self.begin)
        self.phases.append(self.now)


with tempfile.TemporaryDirectory() as folder:
    options = GRPOConfig(
        output_dir=folder, use_cpu=True, per_device_train_batch_size=a["group"], gradient_accumulation_steps=1, num_generations=a["group"],
        max_completion_length=a["response"], beta=0.0, bf16=a["dtype"] == "bfloat16", gradient_checkpointing=a["checkpointing"],
        max_steps=a["warmup"] + a["steps"], logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True, learning_rate=1e-6,
        temperature=1.0, optim="adamw_torch_fused", seed=0)
    trainer = GRPOTrainer(model=model, reward_funcs=contains, args=options, train_dataset=data, processing_class=processor)
    clock = Clock()
    clock.around(trainer, "_generate_and_score_completions", "rollout")
    clock.around(trainer, "_compute_loss", "forward")
    clock.around(trainer.accelerator, "backward", "backward")
    trainer.add_callback(clock)
    stdout, sys.stdout = sys.stdout, sys.stderr  # the trainer prints its logs
    trainer.train()
    sys.stdout = stdout

logs = [entry for entry in trainer.state.log_history if "completions/min_length" in entry]
skip = slice(a["warmup"], None)
common.report(seconds=clock.seconds[skip], **{p: [now[p] for now in clock.phases[skip]] for p in ("rollout", "forward", "backward")},
              shortest=min(entry["completions/min_length"] for entry in logs),
              prompt_tokens=logs[0]["num_tokens"] / a["group"] - a["response"], gradient=[entry["grad_norm"] for entry in logs])
