#!/bin/sh
# Others read our checkpoints with no help: h5ls, h5dump, and h5py by tools/check_checkpoint.py. Skipped (77) where they are not installed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$1" "$folder/a.h5" >"$folder/a.json"

command -v h5ls >/dev/null && command -v h5dump >/dev/null || { echo "skipped: h5ls and h5dump are not installed (hdf5-tools)"; exit 77; }
h5ls -r "$folder/a.h5" | tee "$folder/list"
grep -q '^/model/model.layers.0.mlp.weight Dataset {53, 37}' "$folder/list"
grep -q '^/history/rewards/accuracy/mean Dataset {7}' "$folder/list"
h5dump -a /step "$folder/a.h5" | grep -q '(0): 12'
h5dump -d /samples/json "$folder/a.h5" | grep -q 'think'

python=${PYTHON:-python3}
"$python" -c 'import h5py' 2>/dev/null || { echo "skipped: $python has no h5py"; exit 77; }
"$python" "$FAVOR_SOURCE/tools/check_checkpoint.py" --digest --against "$folder/a.json" "$folder/a.h5"
# it must be able to fail
sed 's/"step": 12/"step": 13/' "$folder/a.json" >"$folder/b.json"
if "$python" "$FAVOR_SOURCE/tools/check_checkpoint.py" --against "$folder/b.json" "$folder/a.h5"; then
	echo "a wrong step was not seen"
	exit 1
fi
