"""transformers and PyTorch on one device, for bench/gpu.sh: random weights made on the device from a folder's config.json, a prompt of text
and one image, the same for each row. Its argument is a JSON object: model, device, dtype, group, groups, text, image, response, warmup, steps.
Prints lines of a name and seconds: generate, generate_many (of all groups' rows at once; left out where memory does not do), forward_backward
(GRPO loss of the group's rows, each with its prompt), step (generate, forward and backward, clip, fused AdamW)."""
import inspect
import time

import torch
import transformers

import common

a = common.arguments()
device, dtype = torch.device(a["device"]), getattr(torch, a["dtype"])
config = transformers.AutoConfig.from_pretrained(a["model"])
torch.manual_seed(0)
with torch.device(device):
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    config._attn_implementation = "sdpa"
    model = transformers.Qwen2VLForConditionalGeneration(config)
    torch.set_default_dtype(default)
model.to(device)
name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
print(f"peer transformers {transformers.__version__}, torch {torch.__version__}, {name}, {a['dtype']}", flush=True)
vision = config.vision_config
side = a["image"] // vision.patch_size
features = (side // vision.spatial_merge_size) ** 2
prompt, response = a["text"] + features, a["response"]
patch_dim = 3 * vision.temporal_patch_size * vision.patch_size ** 2
accepts = inspect.signature(model.forward).parameters


def inputs(rows):
    before = a["text"] // 2
    ids = torch.randint(1000, (prompt,))
    ids[before:before + features] = config.image_token_id
    ids = ids.repeat(rows, 1).to(device)
    made = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if features:
        made["pixel_values"] = torch.randn(side * side, patch_dim).repeat(rows, 1).to(device, dtype)
        made["image_grid_thw"] = torch.tensor([[1, side, side]]).repeat(rows, 1).to(device)
    if "mm_token_type_ids" in accepts:
        made["mm_token_type_ids"] = (ids == config.image_token_id).int()
    return made


def wait():
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(title, work):
    seconds = []
    for _ in range(a["warmup"] + a["steps"]):
        wait()
        begin = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - begin)
    print(title, *(f"{s:.6g}" for s in seconds[a["warmup"]:]), flush=True)


def generate(given):
    model.eval()
    with torch.inference_mode():
        out = model.generate(**given, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=response, min_new_tokens=response,
                             pad_token_id=0)
    if out.shape[1] - prompt != response:
        raise SystemExit(f"{out.shape[1] - prompt} tokens instead of {response}")
    return out[:, prompt:].clone()


def learn(given, drawn):
    """Log-probabilities of the responses' tokens alone get logits: what TRL does too."""
    model.train()
    rows = dict(given, input_ids=torch.cat([given["input_ids"], drawn], 1))
    rows["attention_mask"] = torch.ones_like(rows["input_ids"])
    if "mm_token_type_ids" in rows:
        rows["mm_token_type_ids"] = torch.cat([rows["mm_token_type_ids"], torch.zeros_like(drawn, dtype=torch.int32)], 1)
    model.zero_grad(set_to_none=True)
    logits = model(**rows, logits_to_keep=response + 1, use_cache=False).logits[:, :-1].float()
    logp = torch.log_softmax(logits, -1).gather(-1, drawn[..., None])[..., 0]
    ratio = torch.exp(logp - logp.detach())
    advantages = torch.tensor([[1.0 if g % 2 else -1.0] for g in range(len(drawn))], device=device)
    (-torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()).backward()


one = inputs(a["group"])
timed("generate", lambda: generate(one))
try:
    many = inputs(a["group"] * a["groups"])
    timed("generate_many", lambda: generate(many))
    del many
except torch.OutOfMemoryError:
    torch.cuda.empty_cache()
responses = torch.randint(1000, (a["group"], response)).to(device)
timed("forward_backward", lambda: learn(one, responses))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, fused=True)


def step():
    drawn = generate(one)
    drawn[(drawn == config.image_token_id) | (drawn == config.video_token_id)] = 0  # an untrained model draws these too
    learn(one, drawn)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


timed("step", step)
