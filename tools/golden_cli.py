"""Golden values of the command line: a tiny random Qwen2-VL folder, three images, and what transformers makes of them.

    python tools/golden_cli.py tests/golden/cli

Writes
  model/            a Hugging Face folder (weights random, tied, float32), with tokeniser, chat template and image settings
  *.jpg *.png       three images drawn here, none of them square; one is stored turned and says so in its EXIF data
  cases.json        per case the arguments, and prompt_ids, response_ids, logprobs (of float64: float32 is within 1e-5, checked
                    here), and up to 32 tokens of `greedy` continuation (float32)
  pixels.safetensors  per image its grid, and pixel_values packed: level [patches, 3, 14, 14] (8 bits) and value [3, 256], so that
                    pixel_values[p, c, frame, y, x] = value[c][level[p, c, y, x]] for both frames (checked here)
Needs torch, transformers, safetensors, pillow. The tokeniser is that of tests/golden/data/tiny-tokenizer."""
import json
import math
import os
import shutil
import sys

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file as save_torch
from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor, Qwen2VLVideoProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from golden_model import hub_name  # noqa: E402
from make_base import TEMPLATE  # noqa: E402

TOKENIZER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/golden/data/tiny-tokenizer/tokenizer.json")
GREEDY = 32
SEED, GAIN, EMBED = 3, 1.5, 0.3  # chosen so that greedy continuations vary, one stops, and float32 decides no token of them
DEFAULT = "You are a helpful assistant."

# system: default | none | text, as --system takes it; raw prompts are taken as they are
CASES = [
    dict(name="one-image", images=["street.jpg"], system="default", raw=False, prompt="Which human activity does the image show?",
         response="<think>A person moves.</think>\n<answer>running</answer>"),
    dict(name="two-images", images=["pole.png", "turned.jpg"], system="default", raw=False, prompt="What differs?",
         response="The second is wider,  I think."),
    dict(name="same-image-thrice", images=["pole.png"] * 3, system="none", raw=False, prompt="Count them.", response="3"),
    dict(name="text-alone", images=[], system="default", raw=False, prompt="Say something.\n\n  Then stop!", response="Something, then.\n"),
    dict(name="own-system", images=["turned.jpg"], system="You answer in one word.", raw=False, prompt="Activity?", response="yoga"),
    dict(name="no-system", images=["street.jpg"], system="none", raw=False, prompt="Activity?", response="<answer>jumping</answer>"),
    dict(name="raw", images=["street.jpg", "pole.png"], system="default", raw=True,
         prompt="<|vision_start|><|image_pad|><|vision_end|> and <|vision_start|><|image_pad|><|vision_end|>: the first",
         response=" is larger<|im_end|>"),
    dict(name="raw-text", images=[], system="none", raw=True, prompt="x", response="y"),
    # decomposed letters (NFC joins them), scripts, an emoji of several code points, a tab
    dict(name="unicode", images=["pole.png"], system="default", raw=False, prompt="Cafe\u0301 \u00fcber 12345 \u65e5\u672c\u8a9e?",
         response="\u00c5ngstro\u0308m \u2013 \u043f\u0440\u0438\u0432\u0435\u0442, "
                  "\u0645\u0631\u062d\u0628\u0627 \U0001f469\u200d\U0001f680\t\u0928\u092e\u0938\u094d\u0924\u0947"),
]


def draw_images(out):
    rng = np.random.default_rng(7)

    def scene(width, height, sky, figure):
        y, x = np.mgrid[0:height, 0:width]
        base = np.stack([sky[c] * (1 - y / height) + 90 * (x / width) for c in range(3)], -1) + rng.normal(0, 6, (height, width, 1))
        image = Image.fromarray(base.clip(0, 255).astype(np.uint8))
        d = ImageDraw.Draw(image)
        cx, cy, r = width * 0.55, height * 0.3, height * 0.09
        d.ellipse([cx - r, cy - r, cx + r, cy + r], fill=figure)
        d.line([cx, cy + r, cx - r, cy + 4 * r], fill=figure, width=3)
        for dx in (-2.5, 2.0):
            d.line([cx - r, cy + 4 * r, cx + dx * r, cy + 6.5 * r], fill=figure, width=3)
            d.line([cx, cy + 1.8 * r, cx + dx * r, cy + 2.6 * r], fill=figure, width=2)
        return image

    scene(97, 61, (120, 170, 230), (200, 40, 30)).save(f"{out}/street.jpg", quality=88)
    scene(40, 88, (210, 190, 120), (20, 60, 40)).save(f"{out}/pole.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: to be turned by 90 degrees
    scene(120, 45, (60, 80, 160), (240, 220, 60)).transpose(Image.Transpose.ROTATE_90).save(f"{out}/turned.jpg", quality=85, exif=exif)
    for f in os.listdir(out):
        if f.endswith((".jpg", ".png")):
            assert os.path.getsize(f"{out}/{f}") <= 10240, f


def write_model(folder):
    os.makedirs(folder)
    shutil.copy(TOKENIZER, f"{folder}/tokenizer.json")
    special = {t["content"]: t["id"] for t in json.load(open(TOKENIZER, encoding="utf-8"))["added_tokens"]}
    vocab = (max(special.values()) + 16) // 16 * 16
    config = Qwen2VLConfig(
        text_config=dict(vocab_size=vocab, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=1, rms_norm_eps=1e-6, max_position_embeddings=512, bos_token_id=None,
                         eos_token_id=special["<|im_end|>"], pad_token_id=special["<|endoftext|>"], tie_word_embeddings=True,
                         rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}),
        vision_config=dict(depth=2, embed_dim=16, num_heads=2, hidden_size=32, patch_size=14, spatial_merge_size=2,
                           temporal_patch_size=2, mlp_ratio=2),
        image_token_id=special["<|image_pad|>"], video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"], vision_end_token_id=special["<|vision_end|>"], tie_word_embeddings=True)
    torch.manual_seed(SEED)
    model = Qwen2VLForConditionalGeneration(config)
    with torch.no_grad():  # much wider than the usual 0.02: logits with a spread of more than 2, norms off 1, biases off 0
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.add_(torch.randn_like(p) * 0.2)
            elif "patch_embed" in name:
                p.copy_(torch.randn_like(p) * 0.04)
            elif "embed_tokens" in name:
                p.copy_(torch.randn_like(p) * EMBED)
            else:
                p.copy_(torch.randn_like(p) * (GAIN / math.sqrt(p.shape[-1])))
    tensors = {hub_name(k): v.detach().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_torch(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})

    def dump(name, value):
        with open(f"{folder}/{name}", "w", encoding="utf-8") as f:
            json.dump(value, f, indent=1, default=str)
            f.write("\n")

    dump("config.json", {k: v for k, v in config.to_dict().items() if k != "transformers_version"} |
         {"architectures": ["Qwen2VLForConditionalGeneration"], "dtype": "float32"})
    dump("generation_config.json", {"eos_token_id": [special["<|im_end|>"], special["<|endoftext|>"]],
                                    "pad_token_id": special["<|endoftext|>"]})
    dump("preprocessor_config.json", {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor",
        "min_pixels": 4 * 784, "max_pixels": 8 * 784,
        "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711]})
    dump("tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 512, "eos_token": "<|im_end|>",
                                   "pad_token": "<|endoftext|>",
                                   "bos_token": None, "unk_token": None, "add_prefix_space": False, "chat_template": TEMPLATE})
    size = sum(os.path.getsize(f"{folder}/{f}") for f in os.listdir(folder))
    assert size <= 400 * 1024, size


def load_image(path):
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def render(processor, case):
    """The prompt's text. The template itself always puts a system turn in front, so "none" is cut out of what it renders."""
    if case["raw"]:
        return case["prompt"]
    messages = [{"role": "system", "content": DEFAULT if case["system"] in ("default", "none") else case["system"]},
                {"role": "user", "content": [{"type": "image"} for _ in case["images"]] + [{"type": "text", "text": case["prompt"]}]}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if case["system"] == "default":  # the template's own default must be the same
        assert text == processor.apply_chat_template(messages[1:], tokenize=False, add_generation_prompt=True)
    if case["system"] == "none":
        turn = f"<|im_start|>system\n{DEFAULT}<|im_end|>\n"
        assert text.startswith(turn)
        text = text[len(turn):]
    return text


def run_case(model, processor, case, out):
    images = [load_image(f"{out}/{f}") for f in case["images"]]
    prompt = processor(text=[render(processor, case)], images=images or None, return_tensors="pt")
    n = prompt["input_ids"].shape[1]
    response = processor.tokenizer(case["response"], add_special_tokens=False, return_tensors="pt")["input_ids"]
    whole = dict(prompt)
    whole["input_ids"] = torch.cat([prompt["input_ids"], response], 1)
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    whole["mm_token_type_ids"] = torch.cat([prompt["mm_token_type_ids"], torch.zeros_like(response)], 1)
    with torch.no_grad():
        logits = model(**whole).logits[0, n - 1:-1]
        logp = torch.log_softmax(logits, -1).gather(1, response[0][:, None])[:, 0]
        # the reference is the same in float64, so that a difference is favor's own; float32 agrees with it
        exact = torch.log_softmax(model.double()(**whole).logits[0, n - 1:-1], -1).gather(1, response[0][:, None])[:, 0]
        noise = float((exact - logp).abs().max())
        assert noise < 1e-5, f"{case['name']}: float32 is off by {noise}"
        greedy = model.float().generate(**prompt, do_sample=False, max_new_tokens=GREEDY, return_dict_in_generate=True, output_logits=True)
    tokens = greedy.sequences[0, n:].tolist()
    margin = 1e9  # float32 noise must not decide a greedy token
    for step in greedy.logits:
        top = step[0].topk(2).values
        margin = min(margin, float(top[0] - top[1]))
    assert margin > 1e-3, f"{case['name']}: greedy margin {margin}"
    print(f"{case['name']}: {n} + {response.shape[1]} tokens, mean logp {float(logp.mean()):.2f}, "
          f"greedy {len(set(tokens))} different of {len(tokens)}, margin {margin:.3f}, "
          f"float32 noise {noise:.1e}")
    return case | {"prompt_ids": prompt["input_ids"][0].tolist(), "response_ids": response[0].tolist(),
                   "logprobs": [float(x) for x in exact], "greedy": tokens}


def pack_pixels(processor, out):
    s, tensors = processor.image_processor, {}
    for f in sorted(f for f in os.listdir(out) if f.endswith((".jpg", ".png"))):
        got = s(images=[load_image(f"{out}/{f}")], return_tensors="np")
        values, grid = got["pixel_values"], got["image_grid_thw"]
        frames = values.reshape(-1, 3, 2, 14, 14)
        assert np.array_equal(frames[:, :, 0], frames[:, :, 1]) and values.dtype == np.float32
        flat = frames[:, :, 0].transpose(1, 0, 2, 3).reshape(3, -1)
        table = np.zeros((3, 256), np.float32)
        level = np.zeros(flat.shape, np.uint8)
        for c in range(3):
            level[c] = np.rint((flat[c].astype(np.float64) * s.image_std[c] + s.image_mean[c]) * 255)
            table[c][level[c]] = flat[c]
            assert np.array_equal(table[c][level[c]], flat[c])
        tensors[f"{f}.level"] = np.ascontiguousarray(level.reshape(3, -1, 14, 14).transpose(1, 0, 2, 3))
        tensors[f"{f}.value"], tensors[f"{f}.grid"] = table, grid.astype(np.int64)
    save_numpy(tensors, f"{out}/pixels.safetensors")


def main(out):
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    draw_images(out)
    folder = f"{out}/model"
    write_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = Qwen2VLProcessor(image_processor=Qwen2VLImageProcessorPil.from_pretrained(folder), tokenizer=tokenizer,
                                 video_processor=Qwen2VLVideoProcessor(), chat_template=TEMPLATE)
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    cases = [run_case(model, processor, c, out) for c in CASES]
    with open(f"{out}/cases.json", "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    pack_pixels(processor, out)
    for f in (f"{folder}/model.safetensors", f"{out}/pixels.safetensors"):
        os.chmod(f, 0o644)  # safetensors writes them for the owner alone


if __name__ == "__main__":
    main(sys.argv[1])
