#!/bin/sh
# Makes a build folder, or brings it up to date: build.sh [-t TARGETS] FOLDER ARGUMENTS... TARGETS are ninja's (else what is built by default);
# the arguments are those of meson setup, where the folder is not there yet. Whoever comes while another one builds there waits for it: what
# tests/run.sh lets be built ahead of its need is ready then, or is built now.
set -eu
targets=
if [ "$1" = -t ]; then
	targets=$2
	shift 2
fi
folder=$1
shift
mkdir -p "$folder"
exec 9>"$folder/.lock"
flock 9
[ -f "$folder/build.ninja" ] || meson setup "$folder" "$@"
# shellcheck disable=SC2086
ninja -C "$folder" $targets
