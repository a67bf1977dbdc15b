#!/bin/sh
# Dependencies point one way, seen by the #include lines: test_includes.sh. A room sees itself and the rooms that its line below names
# (and what those may see, through their headers); the program's composition root, app, sees all. Kernels stand below everything and only
# the backend includes them.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# rooms that a room may name
allowed() {
	case $1 in
	base) echo base ;;
	backend) echo base backend kernels ;;
	model) echo base backend model ;;
	data) echo base data ;;
	reward) echo base data reward ;;
	rollout) echo base backend model data rollout ;;
	learner) echo base backend model data learner ;;
	comm) echo base comm ;;
	checkpoint) echo base checkpoint ;;
	report) echo base data report ;;
	app) echo base backend model data reward rollout learner comm checkpoint report app ;;
	kernels) echo kernels ;;
	esac
}

# check ROOT: prints every #include that points the wrong way; non-zero if there are any
check() {
	bad=0
	for folder in "$1"/src/*/ "$1"/kernels/; do
		[ -d "$folder" ] || continue
		room=$(basename "$folder")
		rooms=" $(allowed "$room") "
		if [ "$rooms" = "  " ]; then
			echo "src/$room: is a room that tests/test_includes.sh doesn't know"
			bad=1
		fi
		grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' --include='*.c' --include='*.h' --include='*.cu' --include='*.cuh' \
			"$folder" >"$work/includes"
		while IFS= read -r line; do
			file=${line#*\"}
			file=${file%%\"*}
			place=${line%%:[[:space:]]*#*}
			case $file in
			*..*)
				echo "$line: leaves its room by .."
				bad=1
				continue
				;;
			*/*) to=${file%%/*} ;;
			*) to=$room ;; # a file beside it
			esac
			case $rooms in
			*" $to "*) ;;
			*)
				echo "${line%%:#*}: $room must not include \"$file\" ($room sees:$rooms)"
				bad=1
				;;
			esac
		done <"$work/includes"
	done
	return $bad
}

if check "$root"; then
	echo "ok: includes point one way"
else
	echo "FAIL: includes point one way: see the lines above"
	failures=1
fi

# It must be able to fail: each made-up line is caught, and nothing else is.
mutation() {
	rm -rf "$work/mutant"
	mkdir -p "$work/mutant/src/$1"
	printf '#include "base/error.h"\n#include <stdio.h>\n%s\n' "$2" >"$work/mutant/src/$1/made_up.c"
	if check "$work/mutant" >"$work/found"; then
		echo "FAIL: $1 with $2: is not caught"
		failures=1
	elif [ "$(wc -l <"$work/found")" -ne 1 ] || ! grep -q 'made_up.c:3' "$work/found"; then
		echo "FAIL: $1 with $2: another line was named: $(cat "$work/found")"
		failures=1
	else
		echo "ok: $1 with $2: is caught"
	fi
}
mutation base '#include "data/image.h"'
mutation model '#include "data/encode.h"'
mutation rollout '#include "learner/learner.h"'
mutation reward '#  include "rollout/rollout.h"'
mutation comm '	#include "model/model.h"'
mutation report '#include "checkpoint/checkpoint.h"'
mutation model '#include "kernels/kernels.h"'
mutation data '#include "../comm/world.h"'
[ $failures -eq 0 ]
