#!/usr/bin/env python3
"""Compares `favor tokenize` with the tokenizers library, ids and decoded text, on 20,000 lines made from a seed.

Usage: tools/check_tokenizer.py BINARY FOLDER [--lines N] [--seed S]
   BINARY is build/favor (or a program that takes the same arguments behind its name), FOLDER holds tokenizer.json.
Prints "N lines equal" and favor's speed on one thread; exit code 1 on a difference. Needs the package tokenizers.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time

# First and last code point of blocks; unassigned ones in them are wanted too.
BLOCKS = [
    (0x20, 0x7E),
    (0xA0, 0xFF),
    (0x100, 0x24F),
    (0x250, 0x2AF),
    (0x2B0, 0x36F),
    (0x370, 0x3FF),
    (0x400, 0x52F),
    (0x530, 0x58F),
    (0x590, 0x5FF),
    (0x600, 0x6FF),
    (0x700, 0x7FF),
    (0x860, 0x8FF),
    (0x900, 0x97F),
    (0x980, 0x9FF),
    (0xA00, 0xAFF),
    (0xB00, 0xBFF),
    (0xC00, 0xD7F),
    (0xD80, 0xDFF),
    (0xE00, 0xE7F),
    (0xE80, 0xEFF),
    (0xF00, 0xFFF),
    (0x1000, 0x109F),
    (0x10A0, 0x10FF),
    (0x1100, 0x11FF),
    (0x1200, 0x139F),
    (0x13A0, 0x13FF),
    (0x1680, 0x169F),
    (0x1700, 0x17FF),
    (0x1800, 0x18AF),
    (0x1AB0, 0x1AFF),
    (0x1B00, 0x1B7F),
    (0x1C80, 0x1CFF),
    (0x1DC0, 0x1DFF),
    (0x1E00, 0x1EFF),
    (0x1F00, 0x1FFF),
    (0x2000, 0x206F),
    (0x2070, 0x209F),
    (0x20A0, 0x20FF),
    (0x2100, 0x214F),
    (0x2150, 0x218F),
    (0x2190, 0x22FF),
    (0x2460, 0x24FF),
    (0x2500, 0x27BF),
    (0x2C00, 0x2D7F),
    (0x2E80, 0x2FDF),
    (0x3000, 0x303F),
    (0x3040, 0x30FF),
    (0x3100, 0x318F),
    (0x3200, 0x33FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),
    (0xA640, 0xA7FF),
    (0xA800, 0xABFF),
    (0xAC00, 0xD7FF),
    (0xE000, 0xE0FF),
    (0xF900, 0xFAFF),
    (0xFB00, 0xFDFF),
    (0xFE00, 0xFE6F),
    (0xFE70, 0xFEFF),
    (0xFF00, 0xFFEF),
    (0xFFF0, 0xFFFF),
    (0x10000, 0x103FF),
    (0x10400, 0x105FF),
    (0x10800, 0x10FFF),
    (0x11000, 0x11FFF),
    (0x12000, 0x1345F),
    (0x16100, 0x16FFF),
    (0x1B000, 0x1B2FF),
    (0x1D000, 0x1D3FF),
    (0x1D400, 0x1D7FF),
    (0x1DF00, 0x1E2FF),
    (0x1E4D0, 0x1E95F),
    (0x1EE00, 0x1EEFF),
    (0x1F000, 0x1F2FF),
    (0x1F300, 0x1FAFF),
    (0x20000, 0x2FFFF),
    (0x30000, 0x323AF),
    (0xE0000, 0xE01EF),
    (0x10FF00, 0x10FFFF),
]
MARKS = [
    (0x300, 0x36F),
    (0x483, 0x487),
    (0x591, 0x5BD),
    (0x610, 0x61A),
    (0x64B, 0x65F),
    (0x8CA, 0x8FF),
    (0x93C, 0x94D),
    (0xE47, 0xE4E),
    (0x1AB0, 0x1ACE),
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20F0),
    (0x302A, 0x302F),
    (0x3099, 0x309A),
    (0xFE20, 0xFE2F),
    (0x1D165, 0x1D172),
    (0x1E130, 0x1E136),
]
SPACES = [
    " ",
    "  ",
    "\t",
    "   ",
    "\r",
    "\v",
    "\f",
    "\x85",
    "\xa0",
    "\u1680",
    "\u180e",
    "\u2003",
    "\u2009",
    "\u200b",
    "\u2028",
    "\u2029",
    "\u202f",
    "\u205f",
    "\u2060",
    "\u3000",
    "\ufeff",
]
EMOJI = [
    "\U0001f600",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f9d1\U0001f3fd\u200d\U0001f680",
    "\u2764\ufe0f",
    "\U0001f1eb\U0001f1f7",
    "#\ufe0f\u20e3",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\u263a",
]
WORDS = """
the quick brown fox jumps over lazy dog activity recognition playing guitar riding bicycle image
Photograph answer think Internationalisation tokenizer don't it's I'M we'LL they've you're he'd
she'S 'tis o'clock re-enter naïve façade Übermaß straße ſtill it'ſ \u212aelvin \u212bngström größer
élève señor mañana москва привет мир ελληνικά Ωμέγα עברית العربية हिन्दी বাংলা தமிழ் ไทย 日本語 東京 中文分词
漢字 한국어 서울 한글 ქართული հայերեն አማርኛ
""".split()
CODE = [
    "int main(void) {",
    "\treturn x->y[i] += 0x1F;",
    "for (int i = 0; i < n; i++)",
    "def f(x): return {'a': [1, 2.5e-3]}",
    "// comment",
    "#include <stdio.h>",
    "    if not self.x:",
    "</div>",
    "a&&b||!c",
    "SELECT * FROM t WHERE id=42;",
    '{"k": null}',
    "x = y ** 2  # power",
    "$$\\frac{1}{2}$$",
    "https://example.org/a?b=c&d=%20",
    "user@example.com",
    "====",
    "----->",
    "...",
    "\\n\\t",
    "<answer>x</answer>",
]


def make_line(rng, added):
    def block():
        low, high = rng.choice(BLOCKS)
        return "".join(
            chr(c) for c in (rng.randint(low, high) for _ in range(rng.randint(1, 8))) if not 0xD800 <= c < 0xE000
        )

    def marks():
        return rng.choice("aeoAnकがㄱ가\u1100\u1161\u0915\u05d0") + "".join(
            chr(rng.randint(*rng.choice(MARKS))) for _ in range(rng.randint(1, 5))
        )

    def anything():
        while True:
            c = rng.randrange(1, 0x110000)
            if c != 10 and not 0xD800 <= c < 0xE000:
                return chr(c)

    def digits():
        return "".join(rng.choice("0123456789٣४๕Ⅷ½²") for _ in range(rng.randint(1, 12)))

    makers = [
        block,
        marks,
        digits,
        anything,
        lambda: rng.choice(WORDS),
        lambda: rng.choice(WORDS).upper(),
        lambda: rng.choice(WORDS).title(),
        lambda: rng.choice(CODE),
        lambda: rng.choice(EMOJI),
        lambda: rng.choice(SPACES) * rng.randint(1, 3),
        lambda: rng.choice(["'s", "'S", "'ſ", "'Re", "'ll", "'lL", "'D", "'m", "'", "’s"]),
    ]
    weights = [4, 2, 2, 1, 8, 1, 1, 3, 1, 3, 1]
    if added:
        makers.append(lambda: rng.choice(added))
        weights.append(1)
    parts = []
    for _ in range(rng.randint(0, 14)):
        parts.append(rng.choices(makers, weights)[0]())
        parts.append(rng.choice(["", "", " ", " ", " ", "\t", "  "]))
    return "".join(parts).replace("\n", " ")


def run(binary, folder, data, *options):
    command = [binary, "tokenize", "--model", folder, *options]
    with tempfile.TemporaryFile() as source:
        source.write(data)
        source.seek(0)
        start = time.monotonic()
        done = subprocess.run(command, stdin=source, stdout=subprocess.PIPE, check=False)
        seconds = time.monotonic() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} left with code {done.returncode}")
    return done.stdout, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("folder")
    parser.add_argument("--lines", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    from tokenizers import Tokenizer, __version__

    library = Tokenizer.from_file(f"{args.folder}/tokenizer.json")
    with open(f"{args.folder}/tokenizer.json", encoding="utf-8") as f:
        added = [t["content"] for t in json.load(f).get("added_tokens", [])]
    added += [t[:-1] for t in added]
    rng = random.Random(args.seed)
    lines = [make_line(rng, added) for _ in range(args.lines)]
    data = ("\n".join(lines) + "\n").encode()

    out, seconds = run(args.binary, args.folder, data)
    _, opening = run(args.binary, args.folder, b"")
    ours = out.decode().split("\n")[:-1]
    if len(ours) != len(lines):
        sys.exit(f"{len(lines)} lines in, {len(ours)} lines out")
    bad = 0
    theirs = []
    for number, (line, text) in enumerate(zip(lines, ours), 1):
        theirs.append(library.encode(line, add_special_tokens=False).ids)
        if json.loads(text) != theirs[-1]:
            bad += 1
            if bad <= 5:
                print(
                    f"line {number} {line!r}:\n  favor      {text}\n"
                    f"  tokenizers {json.dumps(theirs[-1], separators=(',', ':'))}"
                )
    # decoding: the ids of the lines, and ids at random, whose bytes are mostly no UTF-8
    size = library.get_vocab_size()
    for _ in range(len(lines) // 10):
        theirs.append([rng.randrange(size + 100) for _ in range(rng.randint(0, 30))])
    out, _ = run(args.binary, args.folder, "".join(json.dumps(ids) + "\n" for ids in theirs).encode(), "--decode")
    expected = "".join(library.decode(ids, skip_special_tokens=False) + "\n" for ids in theirs).encode()
    if out != expected:
        bad += 1
        at = next((i for i, (a, b) in enumerate(zip(out, expected)) if a != b), min(len(out), len(expected)))
        print(
            f"decoded text differs first at byte {at}:\n  favor      {out[at - 20:at + 40]!r}\n"
            f"  tokenizers {expected[at - 20:at + 40]!r}"
        )
    # lines at random have few words twice, so this is the speed with little help from the cache
    rate = len(data) / 1e6 / max(seconds - opening, 1e-9)
    if bad:
        print(f"{bad} differences from tokenizers {__version__}")
        sys.exit(1)
    print(
        f"{len(lines)} lines equal to tokenizers {__version__}, and {len(theirs)} decoded; "
        f"{len(data) / 1e6:.2f} MB at {rate:.1f} MB/s on one thread (opening takes {opening:.2f} s)"
    )


if __name__ == "__main__":
    main()
