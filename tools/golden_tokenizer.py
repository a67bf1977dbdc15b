#!/usr/bin/env python3
"""Writes the golden values of the tokeniser and the chat template into tests/golden/data/.

  tiny-tokenizer/tokenizer.json  a byte-level BPE of 600 tokens in Qwen2's format, trained here on words below
  tokenizer_lines.json           [[text, ids, decoded, plain ids]]: hard lines in the tiny vocabulary; decoded is null
                                 if it is the text, plain ids (added tokens not recognised) if they are the ids
  tokenizer_variants.json        {name, changes to the tiny tokenizer.json, lines: [[text, ids, decoded]]}: patterns,
                                 flags of added tokens, ...
  tokenizer_real.json            [[text, ids]] in the real vocabulary (if its folder is given)
  unicode_classes.json           code points of \\p{L}, \\p{N}, \\p{M}, \\s as runs, and a digest of NFC in the library
  template.json                  [[system, images, user, text]]: what transformers renders from Qwen2-VL's chat template

Needs: tokenizers, transformers, jinja2, trl (which carries the template).
Usage: tools/golden_tokenizer.py [FOLDER of the real tokenizer.json]
"""

import json
import os
import sys
from importlib import resources

from check_tokenizer import CODE, EMOJI, WORDS, make_line
import random
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden", "data")
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
).split()

HARD = [
    "",
    " ",
    "  ",
    "   a",
    "a   ",
    "\t",
    "\t\tx",
    "\r",
    "\r\n",
    "a\r\nb",
    "a\n\n\nb",
    "  \n  x",
    " \r\n \r\n ",
    "x\u00a0y",
    "\u00a0",
    "\u00a0 \u00a0a",
    "a\u2028b\u2029c",
    "a\u0085b",
    "a\u180eb \u180e",
    "\u1680x",
    "\u3000日本",
    "\u200b\u200c\u200d",
    "\ufeffBOM",
    "a\u000bb\u000cc",
    "nul\u0000byte\u0000",
    "don't DON'T Don'T it'S we'LL I'd they'VE you'Re 'tis o'clock rock'n'roll",
    "it'\u017f IT'\u017f \u017f",
    "'\u017ft 'LL'll",
    "\u212a'\u212a \u212b \u2126",
    "I'm'm'm",
    "''''s",
    "'s",
    "'S'T",
    "\u2019s don\u2019t",
    "1234567890",
    "3.14159e-10",
    "1,000,000",
    "\u0663\u0664\u0665 \u0967\u0968 \u2167 \u00bd\u00b2 \u2460 \U0001d7d8\U0001d7d9",
    "x1y22z333",
    "٣a٤",
    "e\u0301",
    "\u00e9",
    "e\u0301\u0323",
    "e\u0323\u0301",
    "\u1e9b\u0323",
    "a\u0315\u0300\u05ae\u0300\u0062",
    "\u0344",
    "\u0340\u0341\u0343",
    "\u212b\u030a",
    "\u0958\u0929\u093c",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "\ud55c\uae00",
    "\uac00\u11a8",
    "\uac00\u11a7\u11a8",
    "\u1100\u1161\u1161",
    "\u3131\u314f",
    "か\u3099",
    "が",
    "は\u309aか\u3099",
    "\u0cc6\u0cc2\u0cd5",
    "\u09c7\u09be",
    "\u0dd9\u0dcf\u0dca",
    "\U0001d15e\U0001d157\U0001d165",
    "\uf900\ufa0e\U0002f800",
    "\u0345\u0301",
    "\u0301\u0345\u0334",
    "\u05d0\u05b7\u05bc",
    "\u0f71\u0f72\u0f74",
    "\u0fb2\u0f80",
    "\ufb1d\ufb2a",
    "q\u0307\u0323",
    "\u1e0b\u0323",
    "\u0628\u0651\u064e",
    # marks and compositions that are younger than the library's normaliser: left as they are
    "a\u08d3\u0301",
    "a\u0301\u08d3",
    "e\u1abf\u0301",
    "\U00011935\U00011930",
    "x\U0001e130\u0334",
    "\u0334\U0001e130",
    "\U0001611e\U0001611e",
    "\U000105d2\u0307",
    "a\u0315\u0898\u0300",
    "\U00016d67\U00016d67 \U00016d63\U00016d67",
    # letters and digits that are younger than PCRE2's
    "\U0001e4d0\U0001e4f0 \U00010d4a\U00010d40 \u1c89 \ua7da \U000323af \U0002ebf0 \U0001ccf0 \U00011f04",
    "\u0378\U000e0080\U0010ffff\ufffe",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f9d1\U0001f3fd\u200d\U0001f680 \u2764\ufe0f\u200d\U0001f525",
    "\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea",
    "#\ufe0f\u20e3 1\ufe0f\u20e3",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\u2615\ufe0e\u2615\ufe0f",
    ":-) ^_^ ¯\\_(ツ)_/¯",
    "<|im_start|>user\nHello<|im_end|>\n",
    "<|im_start|><|im_end|>",
    "a<|image_pad|>b",
    "<|image_pad|><|image_pad|><|image_pad|>",
    "<|vision_start|><|image_pad|><|vision_end|>What is it?",
    "<|im_start",
    "<|im_start|",
    "<<|im_start|>>",
    "|im_start|>",
    "< |im_start|>",
    "<|IM_START|>",
    "<|im_start|>\u0301",
    "e<|im_end|>\u0301",
    "  <|im_end|>  ",
    "<|endoftext|>\r\n",
    "<think>why</think><answer>playing_guitar</answer>",
    "<answer> Riding a bicycle </answer>",
    "</answer></answer>",
    "<tool_call>",
    "a" * 47,
    "a" * 48,
    "a" * 49,
    "a" * 300,
    "ab" * 100,
    "the" * 60,
    "日" * 60,
    " " * 100,
    " " * 100 + "x",
    "\n" * 70,
    "\r\n" * 40,
    "é" * 60,
    "e\u0301" * 60,
    "=" * 130,
    "0" * 70,
    "\u0301" * 80,
    "\u0345\u0301\u0334" * 40,
    "x" + "\u0316\u0301" * 50,
    "मैं पढ़ता हूँ",
    "ภาษาไทย ก็ดี",
    "שָׁלוֹם עוֹלָם",
    "السَّلَامُ عَلَيْكُمْ",
    "Tiếng Việt: Hà Nội, phở",
    "Ελληνικά: ΐ ΰ ᾳ",
    "Привет, мир! Ё ё й",
    "ქართული ენა",
    "አማርኛ",
    "日本語のテスト。全角ＡＢＣ１２３",
    "한국어 텍스트",
    "中文，没有空格的句子。",
    "Straße STRASSE ẞ ﬁ ﬃ ŉ ǆ ǅ",
    "İstanbul ıI",
    "naïve café",
    "nai\u0308ve cafe\u0301",
    "\tif (x->y[i] += 0x1F) {  // why",
    "$$\\sum_{i=1}^{n} x_i^2$$",
    "def f(a, *, b=None) -> dict[str, int]:",
    "https://example.org/a?b=c&d=%20#e",
    "a.b.c@d.e",
    "!!!???...",
    "--",
    "“quoted” ‘text’ — dash…",
]


# Qwen2's flags and others; the folder's vocabulary is the tiny one.
def variants(tiny):
    text = "a <m> b<m>c  <m>  d A<M>a x<m>y <m><m> <m>\u00e9 _<m>_ \u0301<m> <n>\u2003<n> "
    text += "<lr>  <lr>\u3000x ca\u0301fe caf\u00e9 cafe\u0301 <mm> <m <m>> 5<m>5 \u24b6<m>"
    more = [
        "<m>",
        " <m> ",
        "\u2003<m>\u2003",
        "<m>x",
        "x<m>",
        "<m>,<m>",
        "<lr><lr>",
        " <lr> <lr> ",
        "x\n<lr>\ny",
        "e\u0301",
        "\u00e9",
        "ee\u0301e",
        "<mm><m>",
        "<m\u0301>",
        "d\u00e9\u0323",
        "x <m>",
        "tab\t<lr>\tq",
    ]
    for flags in (
        {},
        {"special": True},
        {"lstrip": True},
        {"rstrip": True},
        {"lstrip": True, "rstrip": True},
        {"single_word": True},
        {"single_word": True, "lstrip": True, "rstrip": True},
        {"normalized": True},
        {"normalized": True, "lstrip": True, "rstrip": True, "special": True},
    ):
        data = json.loads(json.dumps(tiny))
        for content in ("<m>", "<mm>", "<lr>", "caf\u00e9", "e\u0301", "\u3000x", "<m>>"):
            token = {
                "id": 0,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": False,
            }
            token.update(flags)
            token["id"] = len(data["model"]["vocab"]) + len(data["added_tokens"])
            data["added_tokens"].append(token)
        yield "added " + (" ".join(sorted(flags)) or "plain"), data, [text] + more
    plain = [x for x in HARD if len(x) < 60][::3]
    for name, change in {
        "merges as pairs": lambda d: d["model"].update(
            merges=[m.split(" ") if isinstance(m, str) else m for m in d["model"]["merges"]]
        ),
        "merges as strings": lambda d: d["model"].update(
            merges=[m if isinstance(m, str) else " ".join(m) for m in d["model"]["merges"]]
        ),
        "no normaliser": lambda d: d.update(normalizer=None),
        "sequence of normalisers": lambda d: d.update(
            normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Sequence", "normalizers": []}]}
        ),
        "gpt2 pattern": lambda d: d.update(
            pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        ),
        "post processor": lambda d: d.update(
            post_processor={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
        ),
        "idle template": lambda d: d.update(
            post_processor={
                "type": "Sequence",
                "processors": [
                    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                    {
                        "type": "TemplateProcessing",
                        "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                        "special_tokens": {},
                    },
                ],
            }
        ),
        "ignore merges": lambda d: d["model"].update(ignore_merges=True, merges=d["model"]["merges"][:40]),
        "bytes missing": lambda d: d["model"].update(
            vocab={{"a": "a?"}.get(k, k): v for k, v in d["model"]["vocab"].items()}, merges=[]
        ),
        "token outside the alphabet": lambda d: d["model"].update(
            vocab={{"\u0120the": "th \u65e5"}.get(k, k): v for k, v in d["model"]["vocab"].items()},
            merges=d["model"]["merges"][:5],
        ),
    }.items():
        data = json.loads(json.dumps(tiny))
        change(data)
        yield name, data, plain
    for pattern in (
        r"\p{N}{1,3}|\p{L}+|\s+|[^\s\p{L}\p{N}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{N}\p{M}]+[\r\n/]*|\s+",
        r"\p{L}*",
        r"(?=\p{N})",
        r"(?<=,)|(?<!a)\.",
        r"(?:a|(?:b|c)+)d?",
        r"'(?i:[sdmt]|ll|ve|re)|\S+?|\P{L}",
        r"(?>\s+)x|\p{L}++",
        r".",
        r"\s*",
        r"(?i:k|s)+",
        r"\.\-\[\]|[\-\]\\^.a-c]+",
        r"x{2,}|a{3}|[aeiou]{1,2}?",
    ):
        data = json.loads(json.dumps(tiny))
        data["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": pattern}
        yield "pattern " + pattern, data, plain
    data = json.loads(json.dumps(tiny))
    split = data["pre_tokenizer"]["pretokenizers"][0]
    data["pre_tokenizer"]["pretokenizers"] = [
        dict(split, pattern={"Regex": r"\p{N}{1,3}"}),
        dict(split, pattern={"Regex": r"[a-f]+(?!g)"}),
        data["pre_tokenizer"]["pretokenizers"][1],
    ]
    data["pre_tokenizer"]["pretokenizers"][2]["use_regex"] = True
    yield "three splits", data, plain


def make_tiny():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    t.decoder = decoders.ByteLevel()
    corpus = (WORDS + CODE) * 3 + [
        "<think> the person is playing a guitar </think> <answer> playing guitar </answer>"
    ] * 40
    corpus += ["a person is riding a bicycle in the street and it is not raining"] * 20
    t.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=600 - len(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    t.add_special_tokens(SPECIAL)
    return t


def encode(t, line):
    """Ids, and what they decode to (None: the line itself)."""
    ids = t.encode(line, add_special_tokens=False).ids
    text = t.decode(ids, skip_special_tokens=False)
    return ids, None if text == line else text


def runs(points):
    out = []
    for c in points:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def unicode_classes():
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    classes = {}
    for name in ("\\p{L}", "\\p{N}", "\\p{M}", "\\s"):
        split = pre_tokenizers.Split(Regex(name), "removed")
        classes[name] = [x for run in runs(c for c in points if not split.pre_tokenize_str(chr(c))) for x in run]
    # FNV-1a over the NFC of each code point in surroundings that show its decomposition, class and compositions
    nfc = normalizers.NFC().normalize_str
    text = "".join(nfc(chr(c) + "a\u0345" + chr(c) + "\u0334\u0301" + chr(c)) for c in points)
    classes["nfc digest"] = "%016x" % fnv(text.encode())
    return classes


def fnv(data):
    h = 14695981039346656037
    for byte in data:
        h = (h ^ byte) * 1099511628211 & (1 << 64) - 1
    return h


def check_template_hashes(template):
    """src/data/template.c knows the template by these numbers."""
    data = template.encode()
    pieces = [fnv(data[i : i + 32]) for i in range(0, len(data), 32)]
    numbers = [f"0x{(h ^ h >> 32) & 0xffffffff:08x}" for h in pieces] + [
        f"0x{fnv(b''.join(data.split())):x}",
        f"OFFICIAL_BYTES = {len(data)}",
    ]
    with open(os.path.join(OUT, "..", "..", "..", "src", "data", "template.c"), encoding="utf-8") as f:
        source = f.read()
    if any(number not in source for number in numbers):
        sys.exit("src/data/template.c should have " + ", ".join(numbers))


def templates():
    import jinja2.sandbox  # noqa: F401  transformers needs it
    from transformers.utils.chat_template_utils import render_jinja_template

    template = resources.files("trl").joinpath("chat_templates/qwen2_5_vl.jinja").read_text()
    check_template_hashes(template)
    default = "You are a helpful assistant."
    cases = []
    for system in (default, None, "", "Du bist ein Tokenizer.\n  Zeile 2 "):
        for images, user in (
            (1, "What is the person doing?"),
            (0, "Hello"),
            (2, "Compare\nboth {{ x }} {% if %} <b>&amp;"),
            (0, ""),
            (3, " é日本 \n"),
        ):
            content = [{"type": "image"}] * images + [{"type": "text", "text": user}]
            conversation = [{"role": "user", "content": content}]
            if system is not None and system != default:
                conversation.insert(0, {"role": "system", "content": system})
            text = render_jinja_template([conversation], chat_template=template, add_generation_prompt=True)[0][0]
            if system is None:  # favor leaves the system turn out; the template can't, so cut what it adds
                start = f"<|im_start|>system\n{default}<|im_end|>\n"
                assert text.startswith(start)
                text = text[len(start) :]
            cases.append([system, images, user, text])
    return cases


def write(name, value):
    path = os.path.join(OUT, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        if isinstance(value, list):
            f.write(
                "[\n" + ",\n".join(json.dumps(x, ensure_ascii=True, separators=(",", ":")) for x in value) + "\n]\n"
            )
        else:
            json.dump(value, f, ensure_ascii=True, separators=(",", ":"))
            f.write("\n")


def main():
    tiny = make_tiny()
    os.makedirs(os.path.join(OUT, "tiny-tokenizer"), exist_ok=True)
    tiny.save(os.path.join(OUT, "tiny-tokenizer", "tokenizer.json"))
    tiny_json = json.loads(tiny.to_str())
    plain = json.loads(tiny.to_str())
    plain["added_tokens"] = []
    plain = Tokenizer.from_str(json.dumps(plain))
    rng = random.Random(7)
    lines = HARD + [make_line(rng, SPECIAL) for _ in range(150)]
    golden = []
    for line in lines:
        ids, decoded = encode(tiny, line)
        plain_ids = encode(plain, line)[0]
        golden.append([line, ids, decoded, None if plain_ids == ids else plain_ids])
    write("tokenizer_lines.json", golden)

    found = []
    for name, data, texts in variants(tiny_json):
        t = Tokenizer.from_str(json.dumps(data))
        # the tiny file's vocabulary stands for itself: what differs from it is kept
        difference = {k: v for k, v in data.items() if k != "model" and v != tiny_json[k]}
        model = {k: v for k, v in data["model"].items() if v != tiny_json["model"].get(k)}
        if model:
            difference["model"] = model
        found.append({"name": name, "changes": difference, "lines": [[x, *encode(t, x)] for x in texts]})
    write("tokenizer_variants.json", found)
    write("unicode_classes.json", unicode_classes())
    write("template.json", templates())
    if len(sys.argv) > 1:
        real = Tokenizer.from_file(os.path.join(sys.argv[1], "tokenizer.json"))
        write(
            "tokenizer_real.json",
            [[line, encode(real, line)[0]] for line in HARD + [make_line(rng, SPECIAL) for _ in range(100)]],
        )
    print("written with tokenizers", tokenizers.__version__)


if __name__ == "__main__":
    main()
