#!/usr/bin/env python3
"""Writes tests/golden/reward/adversarial.jsonl: responses that try to be paid for what is no answer, with the verdict for each.

The verdicts are decisions and stand here by hand, each with its reason. What can be computed another way is checked before
anything is written: format by a regular expression, the Visual-RFT rule by Python's re, normal forms by unicodedata.
Standard library only. Usage: tools/golden_reward.py [FILE]
"""
import json
import os
import re
import sys
import unicodedata

CASES = []


def case(why, text, accuracy, visual_rft, format, answer, label="running", aliases=(), times=0, before="", after="", hex=None):
    """text: the response; with times > 0 it is before + times * text + after; with hex the bytes (then text is None)."""
    CASES.append(dict(why=why, text=text, accuracy=accuracy, visual_rft=visual_rft, format=format, answer=answer, label=label,
                      aliases=list(aliases), times=times, before=before, after=after, hex=hex))


def T(s):
    """A well-formed response with the answer s."""
    return "<think>The legs move fast.</think><answer>" + s + "</answer>"


# --- the plain ones
case("the shape that is asked for", T("running"), 1, 1, 1, "running")
case("line ends between and around the blocks", "\n<think>\nlegs\n</think>\n\n<answer>running</answer>\n", 1, 1, 1, "running")
case("line ends inside the answer are trimmed; Visual-RFT's pattern stops at them and takes the whole text, which holds the label", T("\n running \n"), 1, 1, 1, "running")
case("a wrong label", T("swimming"), 0, 0, 1, "swimming")
case("no thinking: right answer, wrong shape", "<answer>running</answer>", 1, 1, 0, "running")
case("nothing at all; Visual-RFT pays since an empty text is part of every label", "", 0, 1, 0, None)
case("white space alone", " \n\t ", 0, 1, 0, None)
case("prose with the label and no tags: nothing was answered", "The person is running.", 0, 1, 0, None)
case("the label alone without tags", "running", 0, 1, 0, None)
case("an answer in a sentence is not the label", T("The person is running"), 0, 1, 1, "the person is running")

# --- empty tags
case("empty answer; Visual-RFT pays", T(""), 0, 1, 1, None)
case("blank answer", T("  \n "), 0, 0, 1, None)
case("an answer of underscores is blank", T("___"), 0, 1, 1, None)
case("an answer of no-break spaces is blank", T("\u00a0\u2003"), 0, 1, 1, None)
case("the last answer is empty: an earlier one does not count instead", "<think>x</think><answer>running</answer><answer></answer>", 0, 1, 0, None)
case("empty reasoning has the shape, and the answer is right", "<think></think><answer>running</answer>", 1, 1, 1, "running")
case("all empty: the shape and nothing else", "<think></think><answer></answer>", 0, 1, 1, None)
case("an empty pair before the answer", "<answer></answer><answer>running</answer>", 1, 1, 0, "running")

# --- several labels, parts of labels, more than the label
case("all labels listed", T("running, swimming, riding a bike, cooking"), 0, 1, 1, "running, swimming, riding a bike, cooking")
case("all labels listed by line ends", T("running\nswimming\ncooking"), 0, 1, 1, "running swimming cooking")
case("two labels with or", T("swimming or running"), 0, 1, 1, "swimming or running")
case("two labels with a slash", T("running/swimming"), 0, 1, 1, "running/swimming")
case("the label twice", T("running running"), 0, 1, 1, "running running")
case("a part of the label; Visual-RFT pays", T("run"), 0, 1, 1, "run")
case("one letter of the label; Visual-RFT pays", T("n"), 0, 1, 1, "n")
case("the label is a part of another one", T("running a marathon"), 0, 1, 1, "running a marathon")
case("the answer is a longer label that holds the label", T("horse riding"), 0, 1, 1, "horse riding", label="riding")
case("white space within a word is no white space within the label", T("run ning"), 0, 1, 1, "run ning")
case("white space of the label left out: another text; Visual-RFT drops spaces", T("ridingabike"), 0, 1, 1, "ridingabike", label="riding a bike")
case("a full stop after the label: exact means exact", T("running."), 0, 1, 1, "running.")
case("quotes around the label", T('"running"'), 0, 1, 1, '"running"')
case("stars around the label", T("**running**"), 0, 1, 1, "**running**")
case("a number in front", T("1. running"), 0, 1, 1, "1. running")
case("a prefix", T("Answer: running"), 0, 1, 1, "answer: running")
case("negation", T("not running"), 0, 1, 1, "not running")
case("a comma after the label", T("running,"), 0, 1, 1, "running,")
case("JSON instead of the label", T('{"activity": "running"}'), 0, 1, 1, '{"activity": "running"}')

# --- case, underscores, white space
case("capitals", T("RUNNING"), 1, 1, 1, "running")
case("underscores of the answer", T("riding_a_bike"), 1, 1, 1, "riding a bike", label="riding a bike")
case("underscores of the label", T("Riding a  Bike"), 1, 1, 1, "riding a bike", label="riding_a_bike")
case("runs of both", T(" riding _ a\n\tbike_"), 1, 0, 1, "riding a bike", label="riding a bike")
case("no-break and wide spaces are white space; Visual-RFT drops plain spaces alone", T("riding\u00a0a\u3000bike"), 1, 0, 1, "riding a bike", label="riding a bike")
case("a hyphen is no space", T("riding-a-bike"), 0, 0, 1, "riding-a-bike", label="riding a bike")
case("full-width low line is no underscore", T("riding\uff3fa\uff3fbike"), 0, 0, 1, "riding\uff3fa\uff3fbike", label="riding a bike")

# --- aliases
case("an alias", T("Jogging"), 1, 1, 1, "jogging", aliases=["jogging"])
case("the second alias, in its normal form", T("going_for  a run"), 1, 1, 1, "going for a run", aliases=["jogging", "Going for a run"])
case("a part of an alias; Visual-RFT's rule with aliases pays", T("jog"), 0, 1, 1, "jog", aliases=["jogging"])
case("label and alias together", T("running jogging"), 0, 1, 1, "running jogging", aliases=["jogging"])
case("the alias of nothing here", T("jogging"), 0, 0, 1, "jogging")

# --- the answer inside the reasoning
case("the only answer is inside the reasoning", "<think>It must be <answer>running</answer></think>", 0, 1, 0, None)
case("an answer inside the reasoning, another one after it: the one after it counts", "<think><answer>running</answer></think><answer>swimming</answer>", 0, 1, 0, "swimming")
case("the same with the right one outside; Visual-RFT takes the first", "<think><answer>swimming</answer></think><answer>running</answer>", 1, 0, 0, "running")
case("the reasoning is never closed", "<think>legs <answer>running</answer>", 0, 1, 0, None)
case("the prompt opened the reasoning: a lone </think> ends it", "legs move fast</think><answer>running</answer>", 1, 1, 0, "running")
case("an answer before a lone </think> was reasoning", "maybe <answer>running</answer></think>", 0, 1, 0, None)
case("an answer tag named in the reasoning is text there", "<think>I have to use <answer> tags.</think><answer>running</answer>", 1, 1, 0, "running")
case("the answer comes before the reasoning", "<answer>running</answer><think>legs</think>", 1, 1, 0, "running")
case("reasoning opened again after the answer, with another answer in it: the last pair is reasoning", "<think>a</think><answer>running</answer><think><answer>swimming</answer></think>", 0, 1, 0, None)
case("reasoning opened again and never closed, without answers", "<think>a</think><answer>running</answer><think>or not", 1, 1, 0, "running")
case("reasoning within reasoning: the first </think> ends it", "<think>a<think>b</think><answer>running</answer>", 1, 1, 0, "running")
case("reasoning within reasoning: the second </think> makes all before it reasoning", "<think>a<think>b</think><answer>running</answer></think>", 0, 1, 0, None)
case("reasoning inside the answer", "<answer><think>legs</think>running</answer>", 0, 1, 0, None)
case("reasoning opened inside the answer, closed after it", "<think>a</think><answer>running<think></answer></think>", 0, 1, 0, None)
case("the answer spans the end of the reasoning", "<think>a<answer></think>running</answer>", 0, 1, 0, None)
case("label in the reasoning alone", "<think>running running running</think><answer>swimming</answer>", 0, 0, 1, "swimming")

# --- nested and unbalanced answer tags
case("an answer inside an answer", T("<answer>running</answer>"), 0, 1, 0, None)
case("an answer opened twice, closed once: which was meant?", "<think>a</think><answer>swimming<answer>running</answer>", 0, 1, 0, None)
case("opened twice with nothing between", "<answer><answer>running</answer>", 0, 1, 0, None)
case("opened three times: still open answers", "<answer>a<answer>b<answer>running</answer>", 0, 1, 0, None)
case("closed twice: the last </answer> closes nothing", "<think>a</think><answer>running</answer></answer>", 0, 1, 0, None)
case("never closed", "<think>a</think><answer>running", 0, 1, 0, None)
case("a second answer never closed: cut off while changing its mind", "<answer>running</answer><answer>swimming", 0, 1, 0, None)
case("never opened", "<think>a</think>running</answer>", 0, 1, 0, None)
case("the wrong way round", "</answer>running<answer>", 0, 1, 0, None)
case("a stray </answer> before the pair does not matter", "</answer><answer>running</answer>", 1, 1, 0, "running")
case("a spoiled pair, then a clean one", "<answer>a<answer>b</answer><answer>running</answer>", 1, 0, 0, "running")
case("two answers: the last counts, and it is wrong", "<answer>running</answer><answer>swimming</answer>", 0, 1, 0, "swimming")
case("two answers: the last counts, and it is right", "<answer>swimming</answer><answer>running</answer>", 1, 0, 0, "running")
case("every label in a pair of its own: the last is wrong", "<answer>running</answer><answer>swimming</answer><answer>cooking</answer>", 0, 1, 0, "cooking")
case("the same pair twice in the asked shape", T("running") + T("running"), 1, 1, 0, "running")
case("text after the answer: accuracy does not mind, format does", T("running") + " Hope this helps!", 1, 1, 0, "running")
case("text between the blocks", "<think>a</think> so <answer>running</answer>", 1, 1, 0, "running")
case("text before the blocks", "Sure. " + T("running"), 1, 1, 0, "running")
case("blocks in the wrong order", "<answer>running</answer>\n<think>legs</think>", 1, 1, 0, "running")
case("a second empty reasoning block", "<think>a</think><think></think><answer>running</answer>", 1, 1, 0, "running")

# --- tags in other spellings
case("capital tags", "<Think>a</Think><Answer>running</Answer>", 0, 1, 0, None)
case("tags in upper case", "<THINK>a</THINK><ANSWER>running</ANSWER>", 0, 1, 0, None)
case("mixed: opened in lower case, closed in upper case", "<think>a</think><answer>running</ANSWER>", 0, 1, 0, None)
case("a space in the tag", "<think>a</think>< answer>running</answer >", 0, 1, 0, None)
case("an attribute in the tag", '<think>a</think><answer id="1">running</answer>', 0, 1, 0, None)
case("full-width angle brackets", "<think>a</think>\uff1canswer\uff1erunning\uff1c/answer\uff1e", 0, 1, 0, None)
case("brackets instead of tags", "<think>a</think>[answer]running[/answer]", 0, 1, 0, None)
case("escaped tags", "<think>a</think>&lt;answer&gt;running&lt;/answer&gt;", 0, 1, 0, None)
case("a Cyrillic a in the tag's name", "<think>a</think><\u0430nswer>running</\u0430nswer>", 0, 1, 0, None)
case("a backslash instead of the slash", "<think>a</think><answer>running<\\answer>", 0, 1, 0, None)
case("a comment instead of the end", "<think>a</think><answer>running<!--/answer-->", 0, 1, 0, None)
case("boxed as in mathematics", "<think>a</think>\\boxed{running}", 0, 1, 0, None)
case("an upper-case tag inside the answer is text", T("<ANSWER>running</ANSWER>"), 0, 1, 1, "<answer>running</answer>")
case("two angle brackets in front: text before the tag", "<think>a</think><<answer>running</answer>", 1, 1, 0, "running")
case("an unfinished tag before the tag", "<think>a</think><answer<answer>running</answer>", 1, 1, 0, "running")
case("an unfinished tag inside the answer", T("running</answer"), 0, 1, 1, "running</answer")
case("an unfinished </answer at the very end", "<think>a</think><answer>running</answer", 0, 1, 0, None)

# --- Unicode
case("Cyrillic u looks like y", T("pla\u0443ing"), 0, 0, 1, "pla\u0443ing", label="playing")
case("Cyrillic a", T("d\u0430ncing"), 0, 0, 1, "d\u0430ncing", label="dancing")
case("Greek omicron", T("b\u03bfxing"), 0, 0, 1, "b\u03bfxing", label="boxing")
case("full-width letters: no compatibility mapping", T("\uff52\uff55\uff4e\uff4e\uff49\uff4e\uff47"), 0, 0, 1, "\uff52\uff55\uff4e\uff4e\uff49\uff4e\uff47")
case("mathematical bold letters", T("\U0001d42b\U0001d42e\U0001d427\U0001d427\U0001d422\U0001d427\U0001d420"), 0, 0, 1, "\U0001d42b\U0001d42e\U0001d427\U0001d427\U0001d422\U0001d427\U0001d420")
case("zero-width space inside", T("run\u200bning"), 0, 0, 1, "run\u200bning")
case("zero-width joiner at the end: no white space", T("running\u200d"), 0, 1, 1, "running\u200d")
case("byte order mark in front", T("\ufeffrunning"), 0, 1, 1, "\ufeffrunning")
case("soft hyphen", T("run\u00adning"), 0, 0, 1, "run\u00adning")
case("right-to-left override", T("\u202egninnur"), 0, 0, 1, "\u202egninnur")
case("a combining mark on a letter", T("runn\u0301ing"), 0, 0, 1, "run\u0144ing")
case("decomposed and composed are one text (NFC)", T("cafe\u0301"), 1, 0, 1, "caf\u00e9", label="caf\u00e9")
case("composed answer, decomposed label", T("CAF\u00c9"), 1, 0, 1, "caf\u00e9", label="cafe\u0301")
case("marks in another order are the same text", T("a\u0307\u0323"), 1, 0, 1, "\u1ea1\u0307", label="a\u0323\u0307")
case("full case folding: sharp s is ss", T("STRASSE"), 1, 0, 1, "strasse", label="stra\u00dfe")
case("full case folding: the fi ligature is fi, so this is the label", T("\ufb01ghting"), 1, 0, 1, "fighting", label="fighting")
case("full case folding: long s is s", T("\u017fwimming"), 1, 0, 1, "swimming", label="swimming")
case("the Kelvin sign is canonically K", T("\u212aicking"), 1, 1, 1, "kicking", label="kicking")
case("Turkish dotted capital I folds to i and a dot, which is not i", T("R\u0130DING"), 0, 0, 1, "ri\u0307ding", label="riding")
case("Turkish dotless i is not i", T("r\u0131ding"), 0, 0, 1, "r\u0131ding", label="riding")
case("capital I is i in every locale", T("RIDING"), 1, 1, 1, "riding", label="riding")
case("Greek final sigma folds to sigma", T("\u039f\u0394\u039f\u03a3"), 1, 1, 1, "\u03bf\u03b4\u03bf\u03c3", label="\u03bf\u03b4\u03bf\u03c2")
case("Chinese labels", T(" \u8dd1\u6b65 "), 1, 1, 1, "\u8dd1\u6b65", label="\u8dd1\u6b65")
case("Hangul composed from jamo", T("\u1103\u1161\u11af\u1105\u1175\u1100\u1175"), 1, 0, 1, "\ub2ec\ub9ac\uae30", label="\ub2ec\ub9ac\uae30")
case("an emoji beside the label", T("running \U0001f3c3"), 0, 1, 1, "running \U0001f3c3")
case("line separator is white space, format too", "<think>a</think>\u2028<answer>running\u2029</answer>", 1, 1, 1, "running")
case("zero-width space between the blocks is text", "<think>a</think>\u200b<answer>running</answer>", 1, 1, 0, "running")

# --- NUL and bytes that are no UTF-8
case("a NUL after the label is a character of the answer", T("running\0swimming"), 0, 1, 1, "running\ufffdswimming")
case("a NUL in the tag breaks the tag", "<think>a</think><ans\0wer>running</answer>", 0, 1, 0, None)
case("an invalid byte in the answer", None, 0, 0, 1, "run\ufffdning", hex=(b"<think>a</think><answer>run\xffning</answer>").hex())
case("a truncated character at the end of the answer", None, 0, 1, 1, "running\ufffd\ufffd", hex=(b"<think>a</think><answer>running\xe2\x82</answer>").hex())
case("an overlong '<' is no tag", None, 0, 1, 0, None, hex=(b"<think>a</think>\xc0\xbcanswer>running</answer>").hex())
case("a surrogate half in UTF-8", None, 0, 1, 1, "\ufffd\ufffd\ufffdrunning", hex=(b"<think>a</think><answer>\xed\xa0\x80running</answer>").hex())
case("an invalid byte outside of the answer does no harm", None, 1, 1, 1, "running", hex=(b"<think>\xfe\xff</think><answer>running</answer>").hex())
case("an invalid byte between the blocks is text", None, 1, 1, 0, "running", hex=(b"<think>a</think>\x80<answer>running</answer>").hex())

# --- a megabyte
case("1 MB of opened answers: linear time, none is clean", "<answer>", 0, 0, 0, None, times=131072)
case("1 MB of opened answers, then the label", "<answer>", 0, 1, 0, None, times=131072, after="running</answer>")
case("1 MB of closed answers", "</answer>", 0, 0, 0, None, times=116508)
case("1 MB of empty pairs, then the right one", "<answer></answer>", 1, 1, 0, "running", times=61680, after="<answer>running</answer>")
case("1 MB of right answers: the shape is wrong", "<answer>running</answer>", 1, 1, 0, "running", times=43690)
case("1 MB of opened reasoning", "<think>", 0, 1, 0, None, times=149796, after="<answer>running</answer>")
case("1 MB of reasoning", "run ", 1, 1, 1, "running", times=262144, before="<think>", after="</think><answer>running</answer>")
case("1 MB of spaces around the label", " ", 1, 1, 1, "running", times=1048576, before="<think>a</think><answer>", after="running</answer>")
case("1 MB of labels in one answer", "running ", 0, 1, 1, "*", times=131072, before="<think>a</think><answer>", after="</answer>")
case("1 MB of '<'", "<", 0, 0, 0, None, times=1048576)
case("1 MB of '<answer' without end", "<answer", 0, 0, 0, None, times=149796)
case("1 MB of combining marks in falling order: sorting them must not take quadratic time", "\u0301\u0323", 0, 0, 1, "*", times=262144, before="<think>a</think><answer>a", after="</answer>")
case("1 MB of a vowel sign that decomposes to two marks", "\u0f73", 0, 0, 1, "*", times=349525, before="<think>a</think><answer>", after="</answer>")
case("1 MB of ligatures that fold to three letters", "\ufb03", 0, 0, 1, "*", times=349525, before="<think>a</think><answer>", after="</answer>")
case("1 MB of line ends around the blocks", "\n", 1, 1, 1, "running", times=1048576, before="<think>a</think>", after="<answer>running</answer>")


def normal(s):
    s = re.sub(r"[\s_]+", " ", s).strip(" ")
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", s).casefold().replace("\0", "\ufffd"))


def format_of(s):
    inside = r"(?:(?!</?think>|</?answer>).)*"
    return int(bool(re.fullmatch(r"\s*<think>%s</think>\s*<answer>%s</answer>\s*" % (inside, inside), s, re.S)))


def squeeze(s):
    return s.strip().replace(" ", "").replace("_", "").lower().replace("\u03c2", "\u03c3")


def visual_rft_of(s, names):
    m = re.search("<answer>(.*?)</answer>", s)
    got = squeeze(m.group(1) if m else s)
    return int(any(squeeze(n) in got or got in squeeze(n) for n in names))


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..", "tests", "golden", "reward", "adversarial.jsonl")
    bad = 0
    for i, c in enumerate(CASES):
        text = bytes.fromhex(c["hex"]).decode("utf-8", "surrogateescape") if c["hex"] else c["text"]
        if c["times"]:
            text = c["before"] + min(c["times"], 300) * text + c["after"]  # these expressions are not linear, and 300 decide it too
        names = [c["label"]] + c["aliases"]
        wrong = []
        if format_of(text) != c["format"]:
            wrong.append("format")
        if visual_rft_of(text, names) != c["visual_rft"]:
            wrong.append("visual_rft")
        if c["answer"] not in (None, "*"):
            pairs = re.findall(r"<answer>((?:(?!</?think>|</?answer>).)*)</answer>", text, re.S)
            if not pairs or normal(re.sub("[\udc80-\udcff]", "\ufffd", pairs[-1])) != c["answer"]:
                wrong.append("answer")
            if (c["answer"] in [normal(n) for n in names]) != bool(c["accuracy"]):
                wrong.append("accuracy")
        elif c["accuracy"]:
            wrong.append("accuracy")
        if wrong:
            bad += 1
            print("case %d (%s): %s" % (i, c["why"], ", ".join(wrong)), file=sys.stderr)
    if bad:
        sys.exit(1)
    with open(path, "w", encoding="ascii") as f:
        for c in CASES:
            f.write(json.dumps({k: v for k, v in c.items() if v not in ("", [], 0, None) or k in ("accuracy", "visual_rft", "format", "answer")}) + "\n")
    print("%d cases" % len(CASES))


if __name__ == "__main__":
    main()
