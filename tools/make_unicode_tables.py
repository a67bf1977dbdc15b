#!/usr/bin/env python3
"""Writes src/data/unicode_tables.c: where the `tokenizers` library's Unicode differs from the system's.

Its parts carry different versions of Unicode: its regular expressions (Oniguruma) are newer than Debian 12's PCRE2, its
NFC is much older than utf8proc. Both are asked, code point by code point:

  letters, numbers, marks  in the library's \\p{L}, \\p{N}, \\p{M} but not in Unicode 14 (PCRE2 10.42)
  inert                    has a combining class or a canonical (de)composition in the newest Unicode, but not in the
                           library's NFC

Needs: tokenizers, unicodedata2 (a newer Unicode than utf8proc's), and a Python whose unicodedata is Unicode 14 (3.11).
Usage: tools/make_unicode_tables.py > src/data/unicode_tables.c
"""

import sys
import unicodedata

import unicodedata2
from tokenizers import Regex, __version__, normalizers, pre_tokenizers

POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def ranges(points):
    runs = []
    for c in sorted(points):
        if runs and runs[-1][1] == c - 1:
            runs[-1][1] = c
        else:
            runs.append([c, c])
    return runs


def newer(letter):
    """Code points of \\p{letter} in the library that Unicode 14 doesn't know as such."""
    split = pre_tokenizers.Split(Regex(r"\p{%s}" % letter), "removed")
    found = set()
    for c in POINTS:
        library = not split.pre_tokenize_str(chr(c))
        ours = unicodedata.category(chr(c))[0] == letter
        if ours and not library:
            sys.exit(f"U+{c:04X} left \\p{{{letter}}}: a table of additions is not enough any more")
        if library and not ours:
            found.add(c)
    return found


def inert():
    nfc = normalizers.NFC().normalize_str
    nfd = normalizers.NFD().normalize_str
    found = set()
    for c in POINTS:
        s = chr(c)
        # a mark that is known moves in front of U+0345 (class 240) or behind U+0334 (class 1)
        if (
            unicodedata2.combining(s)
            and nfc("a\u0345" + s) == "a\u0345" + s
            and nfc("a" + s + "\u0334") == "a" + s + "\u0334"
        ):
            found.add(c)
        whole = unicodedata2.normalize("NFD", s)
        if whole != s and nfd(s) != whole:
            found.add(c)
            if unicodedata2.normalize("NFC", whole) == s:  # its first part must not compose either
                found.add(int(unicodedata2.decomposition(s).split()[0], 16))
    return found


def table(name, comment, points):
    runs = ranges(points)
    items = [f"{{0x{a:04x}, 0x{b:04x}}}" for a, b in runs]
    print(f"/* {comment} */\nconst struct unicode_range {name}[{len(runs)}] = {{")
    for i in range(0, len(items), 5):
        print("\t" + ", ".join(items[i : i + 5]) + ",")
    print(f"}};\nconst int {name}_count = {len(runs)};\n")


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"this Python knows Unicode {unicodedata.unidata_version}, not 14.0.0")
    print("/* Where Unicode in the `tokenizers` library differs from PCRE2's and utf8proc's. Made by")
    print(
        f" * tools/make_unicode_tables.py with tokenizers {__version__} and Unicode {unicodedata2.unidata_version}; "
        "don't edit. */"
    )
    print('#include "data/unicode_tables.h"\n')
    table("unicode_letters", "\\p{L} of the library beyond Unicode 14", newer("L"))
    table("unicode_numbers", "\\p{N} of the library beyond Unicode 14", newer("N"))
    table("unicode_marks", "\\p{M} of the library beyond Unicode 14", newer("M"))
    table("unicode_inert", "too new for the library's NFC: never reordered, composed or decomposed", inert())


if __name__ == "__main__":
    main()
