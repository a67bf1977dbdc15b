"""Golden values of the model: random Qwen2-VL models, and what transformers computes with them.

    python tools/golden_model.py tests/golden/model

Writes for each configuration a Hugging Face folder (weights random, a few hundred KB) and expected.safetensors with
  N.ids, N.pixel_values, N.grid       the prompt of case N (image tokens expanded)
  N.responses, N.start                G responses one behind the other, start [G + 1]
  N.logp                              log-probability of every response token (float32), each response run as its own full row
  N.weight                            dL/dlogp; L = sum weight * logp
  N.greedy                            32 tokens of greedy continuation
  grad.NAME                           dL/dNAME summed over all cases
Needs torch, transformers, safetensors."""
import json
import os
import shutil
import sys

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

VOCAB, IMAGE, VIDEO, START, END, EOS = 160, 150, 151, 152, 153, 149

CONFIGS = {
    # hidden, layers, heads, kv, ffn, M-RoPE sections, vision depth, width, heads, tied, stored as, sharded, flat config
    "a-untied-f32": dict(h=32, l=2, nh=2, kv=1, ff=48, sec=[2, 3, 3], vd=2, ve=16, vh=2, tied=False, dtype="float32", shard=False, flat=False),
    "b-tied-bf16-sharded": dict(h=48, l=3, nh=4, kv=2, ff=80, sec=[2, 2, 2], vd=1, ve=24, vh=2, tied=True, dtype="bfloat16", shard=True, flat=True),
    "c-tied-f16": dict(h=40, l=1, nh=2, kv=2, ff=56, sec=[4, 3, 3], vd=3, ve=16, vh=1, tied=True, dtype="float16", shard=False, flat=False),
}
# per case: images as (grid_h, grid_w), text tokens before/after, response lengths
CASES = [
    dict(images=[(4, 6)], before=5, after=7, responses=[9, 1, 14]),
    dict(images=[(2, 8), (6, 2)], before=3, after=4, responses=[6, 11]),
    dict(images=[], before=10, after=3, responses=[12, 5, 2, 7]),
]


def make_model(s, seed):
    torch.manual_seed(seed)
    cfg = Qwen2VLConfig(
        text_config=dict(vocab_size=VOCAB, hidden_size=s["h"], intermediate_size=s["ff"], num_hidden_layers=s["l"],
                         num_attention_heads=s["nh"], num_key_value_heads=s["kv"], rms_norm_eps=1e-6,
                         max_position_embeddings=512, bos_token_id=None, eos_token_id=EOS, pad_token_id=None,
                         rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": s["sec"]},
                         tie_word_embeddings=s["tied"]),
        vision_config=dict(depth=s["vd"], embed_dim=s["ve"], num_heads=s["vh"], hidden_size=s["h"], patch_size=14,
                           spatial_merge_size=2, temporal_patch_size=2, mlp_ratio=4),
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END,
        tie_word_embeddings=s["tied"])
    cfg._attn_implementation = "eager"
    model = Qwen2VLForConditionalGeneration(cfg)
    with torch.no_grad():  # larger than the usual 0.02, and norms off 1, so that every path counts
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.add_(torch.randn_like(p) * 0.2)
            elif "patch_embed" in name:
                p.copy_(torch.randn_like(p) * 0.03)
            else:
                p.copy_(torch.randn_like(p) * (1.0 / p.shape[-1] ** 0.5))
        for p in model.parameters():  # values that the stored dtype holds exactly
            p.copy_(p.to(getattr(torch, s["dtype"])).float())
    return model.float().eval()


def flatten(config):
    """The layout that Qwen2-VL folders had before text_config."""
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    for k in ("model_type", "dtype", "architectures"):
        text.pop(k, None)
    config.update({k: v for k, v in text.items() if k not in ("tie_word_embeddings",)})
    config["rope_theta"] = rope["rope_theta"]
    config["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    return config


def hub_name(name):
    """Names as in published Qwen2-VL folders."""
    if name.startswith("model.language_model."):
        return "model." + name[len("model.language_model."):]
    if name.startswith("model.visual."):
        return name[len("model."):]
    return name


def save_folder(model, s, folder):
    os.makedirs(folder)
    dtype = getattr(torch, s["dtype"])
    tensors = {hub_name(k): v.detach().to(dtype).contiguous() for k, v in model.state_dict().items()}
    if s["tied"]:
        tensors.pop("lm_head.weight", None)
    from safetensors.torch import save_file as save_torch
    if s["shard"]:
        names = sorted(tensors)
        half = len(names) // 2
        parts = {"model-00001-of-00002.safetensors": names[:half], "model-00002-of-00002.safetensors": names[half:]}
        for file, group in parts.items():
            save_torch({n: tensors[n] for n in group}, f"{folder}/{file}")
        index = {"metadata": {}, "weight_map": {n: f for f, g in parts.items() for n in g}}
        json.dump(index, open(f"{folder}/model.safetensors.index.json", "w"))
    else:
        save_torch(tensors, f"{folder}/model.safetensors")
    config = model.config.to_dict()
    if s["flat"]:
        config = flatten(config)
    json.dump(config, open(f"{folder}/config.json", "w"), indent=1, default=str)
    if s["flat"]:  # the list form, in generation_config.json
        json.dump({"eos_token_id": [EOS, 148]}, open(f"{folder}/generation_config.json", "w"))


def forward(model, ids, pixels, grid):
    row = torch.tensor([ids])
    kw = {}
    if grid is not None:
        kw = dict(pixel_values=pixels, image_grid_thw=grid, mm_token_type_ids=(row == IMAGE).long())
    return model(input_ids=row, attention_mask=torch.ones_like(row), **kw).logits[0]


def main(out):
    shutil.rmtree(out, ignore_errors=True)
    for seed, (name, s) in enumerate(CONFIGS.items()):
        model = make_model(s, seed)
        folder = f"{out}/{name}"
        save_folder(model, s, folder)
        rng = np.random.default_rng(100 + seed)
        expected, loss = {}, 0.0
        for n, case in enumerate(CASES):
            text = lambda k: rng.integers(0, 140, k).tolist()
            ids = text(case["before"])
            for h, w in case["images"]:
                ids += [START] + [IMAGE] * (h * w // 4) + [END] + text(1)
            ids += text(case["after"])
            patches = sum(h * w for h, w in case["images"])
            pixels = grid = None
            if patches:
                pixels = torch.tensor(rng.normal(size=(patches, 1176)).astype(np.float16).astype(np.float32))
                grid = torch.tensor([[1, h, w] for h, w in case["images"]])
                expected[f"{n}.pixel_values"] = pixels.numpy().astype(np.float16)
                expected[f"{n}.grid"] = grid.numpy()
            responses = [text(k) for k in case["responses"]]
            logps, weights = [], []
            for r in responses:
                logits = forward(model, ids + r, pixels, grid)[len(ids) - 1:-1]
                lp = torch.log_softmax(logits, -1)[torch.arange(len(r)), torch.tensor(r)]
                w = torch.tensor(rng.normal(size=len(r)).astype(np.float32))
                loss = loss + (w * lp).sum()
                logps.append(lp.detach())
                weights.append(w)
            with torch.no_grad():
                greedy = list(ids)
                for _ in range(32):
                    greedy.append(int(forward(model, greedy, pixels, grid)[-1].argmax()))
            expected[f"{n}.ids"] = np.array(ids)
            expected[f"{n}.responses"] = np.array(sum(responses, []))
            expected[f"{n}.start"] = np.cumsum([0] + [len(r) for r in responses])
            expected[f"{n}.logp"] = torch.cat(logps).numpy()
            expected[f"{n}.weight"] = torch.cat(weights).numpy()
            expected[f"{n}.greedy"] = np.array(greedy[len(ids):])
        loss.backward()
        for k, p in model.named_parameters():
            if p.grad is not None:
                expected["grad." + hub_name(k)] = p.grad.numpy()
        save_file(expected, f"{folder}/expected.safetensors")
        print(name, sum(p.numel() for p in model.parameters()), "parameters", os.popen(f"du -sk {folder}").read().split()[0], "KiB")


if __name__ == "__main__":
    main(sys.argv[1])
