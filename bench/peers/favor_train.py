"""`favor train` as its user runs it: a configuration file, one process or mpirun, and the numbers of its own metrics.jsonl."""
import json
import os
import shutil
import subprocess
import time


def busy():
    """CPU seconds that the whole machine has worked."""
    with open("/proc/stat") as f:
        user, nice, system, _, _, irq, softirq = map(int, f.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def run(command, log):
    """One process to its end: exit code, output, and its cost: seconds, peak MiB, how many cores others kept busy meanwhile."""
    before, begin = busy(), time.perf_counter()
    with open(log, "w") as f:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=f, text=True)
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begin
    others = max(0.0, busy() - before - usage.ru_utime - usage.ru_stime) / wall
    return process.returncode, out, {"wall": wall, "mib": usage.ru_maxrss / 1024, "others": round(others, 2)}


class Failed(Exception):
    def __init__(self, code, text, command):
        super().__init__(f"{text}\nexit code {code}: {' '.join(command)}")
        self.code, self.text = code, text


def train(favor, folder, model, data, case, steps, warmup, threads, dtype="float32", groups=1, placement="auto", ranks=1,
          recompute=False):
    """Metrics of the steps after the warm-up whose groups have advantages (a group of equal rewards teaches nothing, and would be
    cheaper if it were left out), and the process's cost. Raises Failed; ValueError where a response ended early."""
    config, log, out = (os.path.join(folder, name) for name in ("run.yaml", "process.log", "run"))
    shutil.rmtree(out, ignore_errors=True)
    with open(config, "w") as f:
        f.write(f"""method: grpo
model: {{path: {model}, dtype: {dtype}}}
data: {{train: {data}/train.jsonl}}
rollout: {{group_size: {case['group']}, max_tokens: {case['response']}}}
reward: {{accuracy: visual-rft, format: 0}}
learner: {{steps: {warmup + steps}, groups_per_step: {groups}, lr: 1.0e-6, beta: 0, recompute: {str(recompute).lower()}}}
placement: {placement}
checkpoint: {{every: 0}}
run: {{dir: {out}, threads: {threads}}}
""")
    command = (["mpirun", "-n", str(ranks)] if ranks > 1 else []) + [favor, "train", config]
    code, _, cost = run(command, log)
    if code:
        with open(log) as f:
            raise Failed(code, f.read()[-4000:], command)
    with open(os.path.join(out, "metrics.jsonl")) as f:
        lines = [json.loads(line) for line in f]
    shutil.rmtree(out)
    measured = [m for m in lines[warmup:] if m["frac_reward_zero_std"] == 0 or groups > 1]
    if not measured or any(m["completions/min_length"] != case["response"] for m in measured):
        raise ValueError("favor: a response ended early, or no group had advantages: this is not the work that was to be measured")
    return measured, lines, cost
