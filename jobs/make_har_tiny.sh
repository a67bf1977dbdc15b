#!/bin/sh
# The recipe of models/har-tiny: vocabulary, SFT from scratch on the synthetic activities, export in bfloat16. About 10 minutes on 2 cores. Needs python3
# with the package tokenizers (PYTHON=... names the interpreter); everything else is favor.
set -eu
cd "$(dirname "$0")/.."
. jobs/mpi-env.sh
python=${PYTHON:-python3}
out=${1:-models/har-tiny}
build/favor synth data/synth
"$python" tools/make_base.py build/har-base --text data/synth/train.jsonl tools/words.txt --vocab 1200 --size har-tiny
build/favor train configs/har-tiny-sft.yaml --resume auto
build/favor eval configs/har-tiny-sft.yaml model.path="$(ls runs/har-tiny-sft/checkpoints/step-*.h5 | sort | tail -n 1)" model.init=
rm -rf "$out"
build/favor export "$(ls runs/har-tiny-sft/checkpoints/step-*.h5 | sort | tail -n 1)" "$out" --dtype bfloat16
