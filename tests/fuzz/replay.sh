#!/bin/sh
# replay.sh PROGRAM TARGET MAKE_SEEDS: runs a fuzz target that is built without libFuzzer over its seeds and over former findings.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
seeds=$(mktemp -d)
trap 'rm -rf "$seeds"' EXIT
"$here/seeds.sh" "$3" "$seeds"
"$1" "$seeds/$2" "$here/found/$2"
