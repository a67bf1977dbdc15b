#!/usr/bin/env python3
"""What both sides of a comparison read: a model folder with random weights, and a data set of images with one prompt.

    fixtures.py model DIR tiny|small          bench/shapes's files, tokenizer.json, model.safetensors (float32)
    fixtures.py data DIR MODEL IMAGE TEXT RESPONSE
                                              16 PNG files of IMAGE x IMAGE pixels and train.jsonl; the rendered prompt has TEXT
                                              tokens besides the image's

Nothing may stop a response early, or samples would decide about the time: one hidden coordinate is the same positive number in
every row, and the output weights of the stop token and of the image tokens point away from it, so that they are never drawn
(tied weights; their other numbers are as random as the rest). The solution is a short piece of text that about half of all random
responses of RESPONSE tokens contain: the reward "contains it", which both sides have, then gives every group advantages."""
import json
import os
import random
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGES = 16
SYLLABLES = "ka lo mi ra ten sur pel do vin qua the ing er com pre ble st on al is un re ly ness gra fo hu ze bi cha".split()
QUESTION = "what is the person in this image doing answer with one word how many people stand left or right of it".split()


def write_tokenizer(folder, vocabulary):
    """Byte-level BPE over made-up words, of exactly that many tokens."""
    sys.path.insert(0, os.path.join(HERE, "..", "..", "tools"))
    import make_base
    draw = random.Random(0)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 5))) for _ in range(20000)]
    corpus = os.path.join(folder, "corpus.txt")
    with open(corpus, "w") as f:
        for i in range(0, len(words), 12):
            print(" ".join(words[i:i + 12] + draw.choices(QUESTION, k=4)), file=f)
    tokenizer = make_base.tokenizer([corpus], vocabulary)
    os.remove(corpus)
    if tokenizer.get_vocab_size() != vocabulary:
        sys.exit(f"the tokeniser has {tokenizer.get_vocab_size()} tokens, not {vocabulary}")
    tokenizer.save(os.path.join(folder, "tokenizer.json"))


def write_model(folder, size):
    import torch
    from transformers import AutoConfig, Qwen2VLForConditionalGeneration
    shutil.copytree(os.path.join(HERE, "..", "shapes", size), folder, dirs_exist_ok=True)
    config = AutoConfig.from_pretrained(folder)
    write_tokenizer(folder, config.get_text_config().vocab_size)
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(config).float()
    level = 2.5  # far above what the layers add to other coordinates: the stop token comes out e^-15 times as likely as others
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding[:, 0] = level
        with open(os.path.join(folder, "generation_config.json")) as f:
            stop = json.load(f)["eos_token_id"]
        embedding[[*stop, config.image_token_id, config.video_token_id], 0] = -level
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
    weights = os.path.join(folder, "weights")
    model.save_pretrained(weights)
    os.replace(os.path.join(weights, "model.safetensors"), os.path.join(folder, "model.safetensors"))
    shutil.rmtree(weights)


def picture(i, pixels):
    import numpy
    from PIL import Image, ImageDraw
    draw = numpy.random.default_rng(i)
    image = Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=numpy.uint8)).resize((pixels, pixels), Image.BICUBIC)
    x, y = (int(v) for v in draw.integers(0, pixels // 2, 2))
    ImageDraw.Draw(image).rectangle([x, y, x + pixels // 3, y + pixels // 3], fill=tuple(int(v) for v in draw.integers(0, 255, 3)))
    return image


def question(tokenizer, tokens):
    """A user's text with which the rendered prompt has so many tokens, the image counted as none."""
    text, i = "", 0
    while True:
        message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        count = len(tokenizer.encode(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))) - 1
        if count == tokens:
            return text
        if count > tokens:  # a word of several tokens went past it: end in one letter words
            text = text.rsplit(" ", 1)[0] + " a"
        else:
            text = (text + " " + QUESTION[i % len(QUESTION)]).strip()
            i += 1
        if i > 4 * tokens:
            sys.exit(f"no text makes a prompt of {tokens} tokens")


def common_piece(tokenizer, response):
    """Two to four letters that about half of all responses of random tokens contain."""
    draw = random.Random(0)
    texts = [tokenizer.decode([draw.randrange(tokenizer.vocab_size) for _ in range(response)]).lower().replace(" ", "")
             for _ in range(400)]
    text = "".join(texts)
    pieces = sorted({text[i:i + n] for i in range(0, 20000, 7) for n in (2, 3, 4)})
    pieces = [p for p in pieces if p.isascii() and p.isalpha()]
    return min(pieces, key=lambda p: abs(sum(p in t for t in texts) - len(texts) // 2))


def write_data(folder, model, pixels, text, response):
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompt, solution = question(tokenizer, text), common_piece(tokenizer, response)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "train.jsonl"), "w") as f:
        for i in range(IMAGES):
            picture(i, pixels).save(os.path.join(folder, f"{i}.png"))
            print(json.dumps({"image": f"{i}.png", "problem": prompt, "solution": solution}), file=f)


def ensure(folder, size, case):
    """Paths of the model folder and the data set, made in `folder` if they aren't there. case: image, text, response."""
    shape = [str(case[k]) for k in ("image", "text", "response")]
    model, data = os.path.join(folder, "model-" + size), os.path.join(folder, "-".join(["data", size] + shape))
    for path, command in ((model, ["model", model, size]), (data, ["data", data, model] + shape)):
        done = os.path.join(path, "done")
        if not os.path.exists(done):
            subprocess.run([sys.executable, os.path.abspath(__file__)] + command, check=True)
            open(done, "w").close()
    return model, data


if __name__ == "__main__":
    if sys.argv[1:2] == ["model"] and len(sys.argv) == 4:
        write_model(sys.argv[2], sys.argv[3])
    elif sys.argv[1:2] == ["data"] and len(sys.argv) == 7:
        write_data(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
    else:
        sys.exit(__doc__)
