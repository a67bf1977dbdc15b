#!/bin/sh
# How seconds and memory of a GRPO step grow with the group's size, image tokens, response length and rollout ranks, on the tiny shape.
# usage: bench/scaling.sh [--axis group|image|response|ranks ...] [--point N ...] [--steps 3] [--threads 2] [--out FILE.tsv] [--plot FILE.svg] [--table]
# Writes docs/scaling.tsv and docs/scaling.svg, prints the tables. Axes may be measured at different times: a point that is measured
# again replaces its line. BUILD and PEERS_VENV as in bench/compare.sh.
set -eu
cd "$(dirname "$0")/.."
. jobs/mpi-env.sh
build=${BUILD:-build} venv=${PEERS_VENV:-${BUILD:-build}/bench/venv}
[ -f "$build/build.ninja" ] || meson setup "$build" >&2
ninja --quiet -C "$build" favor >&2
mkdir -p "$build/bench"
bench/peers/setup.sh "$venv"
exec "$venv/bin/python" bench/peers/scaling.py --build "$build" "$@"
