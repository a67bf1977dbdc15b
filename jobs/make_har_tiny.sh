#!/bin/sh
# The recipe of models/har-tiny: a vocabulary, SFT from scratch on synthetic activities with their traces, export in bfloat16. About 15 minutes
# on 2 cores. Needs python3 with the package tokenizers (PYTHON=... names the interpreter) and build/favor.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=${1:-models/har-tiny}
# any activity in any place: which activities belong where is left for GRPO to find out
build/favor synth data/synth-words --context 0
build/favor synth data/synth-sft --train 12000 --test 14 --seed 1 --context 0
"$python" tools/make_base.py build/har-base --text data/synth-words/train.jsonl tools/words.txt --vocab 1200 --size har-tiny
build/favor train configs/har-tiny-sft.yaml --resume auto
rm -rf "$out"
build/favor export "$(ls runs/har-tiny-sft/checkpoints/step-*.h5 | sort | tail -n 1)" "$out" --dtype bfloat16
