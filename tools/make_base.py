"""An untrained Qwen2-VL folder with a small vocabulary: config.json, tokenizer.json and the small files around them; no weights.

    python tools/make_base.py DIR --text data/synth-words/train.jsonl [more files] [--vocab 1200] [--size har-tiny|sports|test]

The tokeniser is byte-level BPE in Qwen2's format (NFC, Qwen2's split pattern, Qwen2's special tokens last), trained on the given
text: JSON lines contribute their "think" and "label", other files their lines. Needs the package tokenizers. `favor train` with
model.init: random then trains it from scratch (jobs/make_har_tiny.sh does)."""
import argparse
import json
import os

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
            "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
SPLIT = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
PROMPTS = ["Which human activity does the image show? Choose exactly one of: First reason about what you see inside <think> </think>, "
           "then give only the name of the activity inside <answer> </answer>.",
           "<think></think>\n<answer></answer>", "<think>A person</think>\n<answer>", "system\nYou are a helpful assistant.", "user\n", "assistant\n"]
SIZES = {
    "test": dict(h=32, ff=64, layers=2, heads=2, kv=1, ve=32, vd=2, vh=2, max_pixels=56 * 84, min_pixels=56 * 56),
    "har-tiny": dict(h=128, ff=384, layers=4, heads=4, kv=2, ve=128, vd=4, vh=4, max_pixels=112 * 112, min_pixels=56 * 56),
    "sports": dict(h=192, ff=512, layers=4, heads=6, kv=2, ve=192, vd=6, vh=6, max_pixels=168 * 168, min_pixels=56 * 56),
}
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' or 'video' in part %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def corpus(files):
    for _ in range(200):
        yield from PROMPTS
    for f in files:
        for line in open(f, encoding="utf-8"):
            if f.endswith(".jsonl"):
                r = json.loads(line)
                yield "<think>" + r.get("think", "") + "</think>"
                yield "<answer>" + r["label"] + "</answer>"
                yield ", " + r["label"]
            else:  # word lists: single words are few, so each counts some times
                for _ in range(4):
                    yield " " + line.strip()


def tokenizer(files, vocab):
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus(files), trainers.BpeTrainer(vocab_size=vocab - len(SPECIALS), min_frequency=2, show_progress=False,
                                                             initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_special_tokens(SPECIALS)
    return t


def dump(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("dir")
    p.add_argument("--text", nargs="+", required=True)
    p.add_argument("--vocab", type=int, default=1200)
    p.add_argument("--size", choices=SIZES, default="har-tiny")
    a = p.parse_args()
    os.makedirs(a.dir, exist_ok=True)
    t = tokenizer(a.text, a.vocab)
    t.save(f"{a.dir}/tokenizer.json")
    ids = {s: t.token_to_id(s) for s in SPECIALS}
    n = (t.get_vocab_size() + 15) // 16 * 16
    s = SIZES[a.size]
    quarter = s["h"] // s["heads"] // 8
    dump(f"{a.dir}/config.json", {
        "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "torch_dtype": "bfloat16",
        "vocab_size": n, "hidden_size": s["h"], "intermediate_size": s["ff"], "num_hidden_layers": s["layers"],
        "num_attention_heads": s["heads"], "num_key_value_heads": s["kv"], "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "max_position_embeddings": 2048, "rope_theta": 10000.0, "use_sliding_window": False, "tie_word_embeddings": True,
        "rope_scaling": {"type": "mrope", "mrope_section": [s["h"] // s["heads"] // 2 - 2 * (3 * quarter // 2)] + [3 * quarter // 2] * 2},
        "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"], "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"], "vision_token_id": ids["<|vision_pad|>"],
        "vision_config": {"model_type": "qwen2_vl", "depth": s["vd"], "embed_dim": s["ve"], "num_heads": s["vh"], "hidden_size": s["h"], "mlp_ratio": 4,
                          "in_channels": 3, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "hidden_act": "quick_gelu"}})
    dump(f"{a.dir}/generation_config.json", {"eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]], "pad_token_id": ids["<|endoftext|>"]})
    dump(f"{a.dir}/preprocessor_config.json", {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor", "min_pixels": s["min_pixels"], "max_pixels": s["max_pixels"], "patch_size": 14,
        "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711]})
    dump(f"{a.dir}/tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 2048, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
                                            "bos_token": None, "unk_token": None, "add_prefix_space": False, "chat_template": TEMPLATE})
    print(f"{a.dir}: vocabulary {t.get_vocab_size()} (padded to {n})")


if __name__ == "__main__":
    main()
