#!/bin/sh
# favor and its peers (TRL's GRPOTrainer, transformers) side by side on this machine: the same shapes, random weights, images and prompt.
# usage: bench/compare.sh [--quick] [--size tiny|small] [--only step ...] [--rounds N] [--steps N] [--threads 2] [--table]   (--help: all)
# Builds favor if need be and makes the peers' Python environment (PEERS_VENV, default BUILD/bench/venv; several GB). Prints a table of
# min / median / max; each process's numbers go to BUILD/bench/compare.jsonl, and the table is made of all that this file has:
# pieces may be measured at different times. --table prints it again. BUILD names the build folder (default build).
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build} venv=${PEERS_VENV:-${BUILD:-build}/bench/venv}
[ -f "$build/build.ninja" ] || meson setup "$build" >&2
ninja --quiet -C "$build" favor >&2
mkdir -p "$build/bench"
bench/peers/setup.sh "$venv"
exec "$venv/bin/python" bench/peers/compare.py --build "$build" "$@"
