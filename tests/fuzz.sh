#!/bin/sh
# Fuzzes every parser of what comes from outside: fuzz.sh [SECONDS PER TARGET] [TARGET...] (10 seconds, all targets).
#
# Builds the targets of tests/fuzz with clang, libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer in build-fuzz, and runs them from
# their seeds, from former findings (tests/fuzz/found) and from what earlier runs have kept in build-fuzz/corpus. FUZZ_JOBS of them run at
# once (2). Prints "ok: fuzz TARGET: ..." or "FAIL: fuzz TARGET: ..." a target; a finding stays in build-fuzz/findings/TARGET. Each run adds
# a line to build-fuzz/record.tsv: target, runs, CPU seconds, edges, findings, day. "fuzz.sh --keep" adds its sums to tests/fuzz/record.tsv, which is
# what all targets have had so far, and begins anew; "fuzz.sh --record" prints the sum of both.
# "fuzz.sh --build" only builds.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
build=${FUZZ_BUILD:-$root/build-fuzz}
targets="checkpoint classes config csv group hf_config image jsonl mail report reward safetensors template tokenizer"

# Limits by target: longest input, and the largest allocation in MiB that an input may cause. Of a checkpoint the HDF5 library's own
# allocations are let fail instead (it asks for what a damaged file says, and copes with a no).
limits() {
	case $1 in
	checkpoint) echo "-max_len=49152 -malloc_limit_mb=1024" ;;
	image) echo "-max_len=4096 -malloc_limit_mb=256" ;;
	mail) echo "-max_len=2048 -malloc_limit_mb=64 -detect_leaks=0" ;;
	tokenizer) echo "-max_len=4096 -malloc_limit_mb=64" ;;
	report) echo "-max_len=4096 -malloc_limit_mb=64" ;;
	*) echo "-max_len=2048 -malloc_limit_mb=64" ;;
	esac
}

kept=$root/tests/fuzz/record.tsv

# sums FILE...: of the lines of each target: target, runs, CPU seconds, most edges, findings, last day, CPU seconds behind the last line with a finding
sums() {
	cat "$@" 2>/dev/null | awk -F '\t' '!/^#/ { runs[$1] += $2; cpu[$1] += $3; if ($4 > edges[$1]) edges[$1] = $4; found[$1] += $5; day[$1] = $6
			quiet[$1] = $5 > 0 ? 0 : quiet[$1] + $3 }
		END { for (t in runs) printf "%s\t%d\t%.0f\t%d\t%d\t%s\t%.0f\n", t, runs[t], cpu[t], edges[t], found[t], day[t], quiet[t] }' | sort
}

# one TARGET SECONDS: runs it, prints its line
one() {
	target=$1 seconds=$2
	log=$build/logs/$target.log findings=$build/findings/$target corpus=$build/corpus/$target
	mkdir -p "$build/logs" "$findings" "$corpus"
	before=$(ls "$findings" | wc -l)
	found=$root/tests/fuzz/found/$target
	[ -d "$found" ] || found=
	asan=allocator_may_return_null=1
	[ "$target" != checkpoint ] || asan=$asan:max_allocation_size_mb=512
	# shellcheck disable=SC2046,SC2086
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ASAN_OPTIONS=$asan:${ASAN_OPTIONS:-} \
		"$build/tests/fuzz/fuzz_$target" $(limits "$target") -max_total_time="$seconds" -timeout="${FUZZ_TIMEOUT:-20}" -report_slow_units=1000000 -rss_limit_mb=2560 -print_final_stats=1 \
		-artifact_prefix="$findings/" ${FUZZ_OPTIONS:-} "$corpus" "$build/seeds/$target" $found >"$log" 2>&1
	code=$?
	# user and system time of the child: the second line of times
	times >"$build/logs/$target.times"
	cpu=$(sed -n 2p "$build/logs/$target.times" | awk '{ split($1, u, /[ms]/); split($2, s, /[ms]/); print u[1] * 60 + u[2] + s[1] * 60 + s[2] }')
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
	new=$(($(ls "$findings" | wc -l) - before))
	[ "$runs" ] || runs=$(sed -n 's/^#\([0-9]*\).*/\1/p' "$log" | tail -n 1)
	printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$target" "${runs:-0}" "$cpu" "${edges:-0}" "$new" "$(date +%F)" >>"$build/record.tsv"
	if [ "$code" -eq 0 ] && [ "$new" -eq 0 ]; then
		echo "ok: fuzz $target: ${runs:-0} runs in ${cpu%.*} s, ${edges:-0} edges"
	else
		what=$(grep -E 'SUMMARY|does not hold|the message is|runtime error' "$log" | head -n 1)
		echo "FAIL: fuzz $target: ${what:-exit code $code}; input: $(ls -t "$findings" | head -n 1 | sed "s|^|$findings/|"), log: $log"
		return 1
	fi
}

case ${1:-} in
--record)
	printf 'target\truns\tcpu_minutes\tedges\tfindings\tlast\tcpu_minutes_without_finding\n'
	sums "$kept" "$build/record.tsv" | awk -F '\t' -v OFS='\t' '{ $3 = sprintf("%.1f", $3 / 60); $7 = sprintf("%.1f", $7 / 60) } 1'
	exit
	;;
--keep)
	if [ ! -s "$build/record.tsv" ]; then
		echo "fuzz.sh: nothing is recorded in $build/record.tsv" >&2
		exit 1
	fi
	sums "$build/record.tsv" | cut -f 1-6 >>"$kept" && rm "$build/record.tsv"
	exit
	;;
--targets)
	echo "$targets"
	exit
	;;
esac
if [ "${1:-}" = --one ]; then # called by this script itself
	one "$2" "$3"
	exit
fi
only_build=
if [ "${1:-}" = --build ]; then
	only_build=1
	shift
fi
seconds=${1:-10}
[ $# -eq 0 ] || shift
[ $# -eq 0 ] || targets="$*"

if ! command -v clang >/dev/null; then
	echo "skipped: fuzz: clang is not installed (jobs/install.sh --tests)"
	exit 0
fi
mkdir -p "$build"
log=$(mktemp)
if ! (cd "$root" && tests/e2e/build.sh -t fuzz "$build" --native-file tests/e2e/clang.ini -Dfuzz=true --buildtype=debugoptimized -Dwerror=false \
	-Db_sanitize=address,undefined -Db_lundef=false) >"$log" 2>&1; then
	tail -n 20 "$log" | sed 's/^/    /'
	echo "FAIL: fuzz: the targets can't be built"
	rm "$log"
	exit 1
fi
rm "$log"
[ -z "$only_build" ] || exit 0
mkdir -p "$build/seeds"
"$root/tests/fuzz/seeds.sh" "$build/tests/fuzz/make_seeds" "$build/seeds" || {
	echo "FAIL: fuzz: the seeds can't be made"
	exit 1
}
# shellcheck disable=SC2086
printf '%s\n' $targets | xargs -P "${FUZZ_JOBS:-2}" -I{} "$0" --one {} "$seconds"
