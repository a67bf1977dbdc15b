# Shared by the script suites, which source it: where things stand, how favor is started, how a case is reported.
#
# A suite is started as SUITE.sh [BUILD FOLDER]. It prints "ok: CASE", "FAIL: CASE: ..." or "skipped: CASE: why" a line, and ends with
# `finish`. Files go to $work, which is removed at the end.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "${1:-$root/build}" && pwd) || exit 1
favor=$build/favor
base=$root/tests/golden/e2e/base # an untrained Qwen2-VL folder without weights, made by tools/make_base.py --size test --vocab 400
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
failures=0

# Ranks share few cores: they must sleep while they wait. Open MPI refuses root and more ranks than cores unless it is told.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" OMP_WAIT_POLICY=passive
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp
if [ "$(id -u)" -eq 0 ]; then
	export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

ok() {
	echo "ok: $*"
}

# fail CASE WHAT [LOG]
fail() {
	echo "FAIL: $1: $2"
	[ -z "${3:-}" ] || tail -n 15 "$3" | sed 's/^/    /'
	failures=$((failures + 1))
}

finish() {
	[ $failures -eq 0 ]
	exit
}

# ranks N ARGUMENTS...: favor on N ranks; 0 is one process without mpirun. What it says goes to $work/log.
ranks() {
	ranks_count=$1
	shift
	if [ "$ranks_count" -eq 0 ]; then
		timeout -k 5 "${limit:-600}" "$favor" "$@" >"$work/log" 2>&1
	else
		# (a build with sanitizers: Open MPI keeps some memory until the end)
		ASAN_OPTIONS=detect_leaks=0 timeout -k 5 "${limit:-600}" mpirun -n "$ranks_count" "$favor" "$@" >"$work/log" 2>&1
	fi
}

# From now on, ticks is the number of seconds in which this machine ran: a frozen container or a paused virtual machine does not count.
count_ticks() {
	(while sleep 1; do echo; done) >"$work/ticks" &
	ticker=$!
	trap 'kill $ticker; rm -rf "$work"' EXIT
}

ticks() {
	wc -l <"$work/ticks"
}

# on_emulated_gpu WHAT: favor opens the CUDA backend of the build's emulation; the suite is over where there is none
on_emulated_gpu() {
	export FAVOR_CUDA_LIBRARY="$build/tests/kernels/libfavor_cuda_emulated.so"
	if [ ! -e "$FAVOR_CUDA_LIBRARY" ]; then
		echo "skipped: $1: the build has no C++ compiler"
		finish
	fi
}

# A data set of small drawn images, $work/synth, and $work/letters.jsonl: the same images, each labelled with one letter. By Visual-RFT's
# rule even the babble of an untrained model names a letter now and then, so that rewards differ and weights move.
make_data() {
	"$favor" synth "$work/synth" --train 24 --test 8 --size 56 2>"$work/log" || {
		cat "$work/log"
		exit 1
	}
	sed 's/"label": *"\(.\)[^"]*"/"label": "\1"/' "$work/synth/train.jsonl" >"$work/letters.jsonl"
}

# digest CHECKPOINT
digest() {
	"$favor" inspect --json "$1" | sed -n 's/.*"digest": *"\([0-9a-f]*\)".*/\1/p' | head -n 1
}

# metric NAME METRICS: its values, one a line
metric() {
	sed -n 's|.*"'"$1"'": *"\{0,1\}\([^,"}]*\).*|\1|p' "$2"
}

# Metrics without what a clock or the memory says.
timeless() {
	sed -E 's/"(time\/[a-z]+|step_time|tokens_per_second|idle\/[a-z]+|memory\/[a-z_]+)": [^,}]*(, )?//g' "$1"
}

# newest RUN: its newest checkpoint
newest() {
	ls "$1"/checkpoints/step-*.h5 2>/dev/null | tail -n 1
}

# different EXPECTED GOT: how two runs in $work differ in weights and metrics, each step once, or the second's event file from its metrics; nothing if
# they don't. Nothing equals nothing too, so there must be something.
different() {
	timeless "$work/$1/metrics.jsonl" >"$work/expected"
	timeless "$work/$2/metrics.jsonl" >"$work/got"
	expected_digest=$(digest "$(newest "$work/$1")")
	if [ -z "$expected_digest" ] || [ ! -s "$work/expected" ]; then
		echo "$1, to compare with, has no metrics or no checkpoint"
	elif [ "$expected_digest" != "$(digest "$(newest "$work/$2")")" ]; then
		echo "another final digest"
	elif ! cmp -s "$work/expected" "$work/got"; then
		echo "other metrics: $(diff "$work/expected" "$work/got" | head -n 4)"
	else
		"${PYTHON:-python3}" "$root/tests/e2e/events.py" "$work/$2" 2>&1
	fi
}

# same_numbers CASE EXPECTED GOT: two runs in $work with the same weights and metrics
same_numbers() {
	difference=$(different "$2" "$3")
	if [ "$difference" ]; then
		fail "$1" "$difference"
	else
		ok "$1: digest $(digest "$(newest "$work/$3")")"
	fi
}

# same_run CASE EXPECTED GOT: the same samples too
same_run() {
	if [ -e "$work/$2/samples.jsonl" ] && ! cmp -s "$work/$2/samples.jsonl" "$work/$3/samples.jsonl"; then
		fail "$1" "other samples"
	else
		same_numbers "$@"
	fi
}
