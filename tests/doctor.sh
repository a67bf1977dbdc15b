#!/bin/sh
# favor doctor: doctor.sh [BUILD FOLDER]. A sound machine is called sound, alone and on 2, 4 and 17 ranks; what is broken is found, with the
# exit code: a folder that a rank doesn't see, another build, another clock, a slow pair, ranks on the same core, too few files, bad
# configurations. (tests/app/test_doctor.c has the judgements one by one.)
. "$(dirname "$0")/e2e/lib.sh"
other=$build/tests/app/favor_other
export ASAN_OPTIONS=detect_leaks=0
export OMPI_MCA_orte_base_help_aggregate=0

# expect CASE CODE PATTERN...: the last run's exit code, and lines of its output
expect() {
	case_name=$1 wanted=$2
	shift 2
	if [ "$code" -ne "$wanted" ]; then
		fail "$case_name" "exit code $code instead of $wanted" "$work/log"
		return
	fi
	for pattern in "$@"; do
		if ! grep -Eq -e "$pattern" "$work/log"; then
			fail "$case_name" "no line has \"$pattern\"" "$work/log"
			return
		fi
	done
	ok "$case_name: $(grep -E -e "$1" "$work/log" | head -n 1 | cut -c 1-160)"
}

# mpi ARGUMENTS...: mpirun with several kinds of ranks
mpi() {
	timeout -k 5 100 mpirun "$@" >"$work/log" 2>&1
	code=$?
}
run() {
	count=$1
	shift
	limit=100 ranks "$count" doctor --seconds 1 "$@"
	code=$?
}

sound='^[0-9]+ ranks? examined: nothing is broken'
run 0
expect "alone" 0 "$sound" '^good +build +favor ' '^good +libraries .*HDF5.*libpng' ': clock source' 'CUDA backend: '
run 2
expect "2 ranks" 0 "$sound" '^good +pairs +1 pair inside a host: latency' '^good +clocks ' 'roles +rollout: 2 ranks'
run 4 --dir "$work"
expect "4 ranks" 0 "$sound" '^good +pairs +6 pairs ' 'all ranks see it' 'roles +rollout: 2 ranks: 2 on ' '^ +3( +[0-9.]+){3}'
run 17
expect "17 ranks, the slowest pairs alone are shown" 0 "$sound" '^good +pairs +136 pairs ' '^the slowest pairs:' '^  ranks [0-9]+ and [0-9]+: '
run 1
expect "1 rank under mpirun" 0 "$sound"

run 3 --json --dir "$work"
if [ $code -ne 0 ]; then
	fail "JSON" "exit code $code" "$work/log"
elif ! command -v "${PYTHON:-python3}" >/dev/null; then
	echo "skipped: JSON: there is no python3 to read it"
elif ! "${PYTHON:-python3}" - "$work/log" 2>"$work/why" <<'END'; then
import json, sys
o = json.loads([l for l in open(sys.argv[1]) if l.startswith("{")][0])
assert o["ranks"] == 3 and o["broken"] == 0 and len(o["machines"]) == 3 and len(o["pairs"]) == 3, o
assert all(p["reached"] and p["latency_us"] > 0 and p["bandwidth_mb_s"] > 0 for p in o["pairs"]), o["pairs"]
assert [m["role"] for m in o["machines"]] == ["learner", "reward", "rollout"], o["machines"]
assert all(m["cores"] and m["memory"] > 0 for m in o["machines"])
assert {f["check"] for f in o["findings"]} >= {"build", "memory", "pairs", "clocks", "folder", "binding", "roles"}
END
	fail "JSON" "$(tail -n 1 "$work/why")" "$work/log"
else
	ok "JSON"
fi

# ---- configurations
make_data
cat >"$work/tiny.yaml" <<END
method: grpo
model: {path: $base, init: random}
data: {train: $work/letters.jsonl, root: $work/synth, prompt: answer, system: none}
rollout: {group_size: 4, max_tokens: 12}
learner: {steps: 3, groups_per_step: 7}
run: {dir: $work/runs/a}
END
run 4 "$work/tiny.yaml"
expect "a configuration" 0 "$sound" '^good +config .*24 training records' '^good +plan .*4 ranks plan [0-9.]+ MiB' '^good +disk .*checkpoints of' \
	"^good +folder +$work/runs/a: rank 0 can write, all ranks see it"
if [ -e "$work/runs" ]; then
	fail "looking leaves nothing behind" "$work/runs is there"
elif ls -A "$work" | grep -q favor-doctor; then
	fail "looking leaves nothing behind" "$(ls -A "$work")"
else
	ok "looking leaves nothing behind"
fi
run 2 "$work/tiny.yaml" data.train="$work/missing.jsonl"
expect "data that are missing" 1 "^BROKEN +config .*missing.jsonl" '1 thing is broken'
mkdir "$work/empty" && cp "$base"/*.json "$work/empty"
run 0 "$work/tiny.yaml" model.path="$work/empty" model.init=
expect "a model without weights" 1 '^BROKEN +config .*neither model.safetensors nor'
run 2 "$work/tiny.yaml" run.memory_limit=1
expect "a plan above its limit" 1 '^BROKEN +plan .*above its limit of 1.0 MiB' '-> lower learner.micro_batch.* set learner.recompute or learner.shard, or put'
run 2 "$work/tiny.yaml" run.memory_limit=1 learner.shard=true
expect "a plan above its limit, sharded" 1 '^BROKEN +plan .*above its limit of 1.0 MiB' '-> lower learner.micro_batch.* set learner.recompute, or put'
run 0 "$work/tiny.yaml" run.memory_limit=1
expect "a plan above its limit, one learner" 1 '-> lower learner.micro_batch.* set learner.recompute, or learner.shard with more learners, or put'
run 0 "$work/tiny.yaml" run.memory_limit=1 model.vision=frozen
expect "a plan above its limit, frozen tower" 1 '-> lower .*rollout.max_tokens, model.feature_cache or data.max_pixels, or set learner.recompute'
run 2 "$work/tiny.yaml" learner.steps=many
expect "a bad configuration" 2 'learner.steps'
run 2 "$work/tiny.yaml" 'placement={rollout: 3, reward: 1, learner: 1}'
expect "a placement for more ranks" 2 'placement: .*adds up to 5 ranks'
run 0 --no-such
expect "a bad option" 2 'there is no option --no-such'
if [ "$(id -u)" -ne 0 ]; then
	mkdir "$work/shut" && chmod 500 "$work/shut"
	run 0 --dir "$work/shut"
	expect "a folder that can't be written to" 1 "^BROKEN +folder .*can't write there"
else
	run 0 --dir /proc/self
	expect "a folder that can't be written to" 1 "^BROKEN +folder .*can't write there"
fi

# ---- ranks that differ
mkdir -p "$work/one/run" "$work/two/run"
mpi -n 2 -wdir "$work/one" "$favor" doctor --seconds 1 --dir run : -n 1 -wdir "$work/two" "$favor" doctor --seconds 1 --dir run
expect "a rank that doesn't see the folder" 1 "^BROKEN +folder +run: rank 2 on .*\(in $work/two\) does not see what rank 0 .*\(1 of 3 ranks\)"
mpi -n 3 "$favor" doctor --seconds 1 : -n 1 "$other" doctor --seconds 1
expect "a rank of another version" 1 '^BROKEN +build .*the version of favor differs: .*rank 3 on .* has "0.0.1" \(1 of 4 ranks differ\)'
cp "$favor" "$work/favor-again" && echo >>"$work/favor-again"
mpi -n 1 "$favor" doctor --seconds 1 : -n 1 "$work/favor-again" doctor --seconds 1
expect "a rank of another build of the same version" 0 "$sound" '^warning +build .*the program file \(same version, another build\) differs'
mpi --bind-to none -n 1 taskset -c 0 "$favor" doctor --seconds 1 : -n 1 taskset -c 0 "$favor" doctor --seconds 1
expect "two ranks bound to one core" 0 '^warning +binding .*ranks 0 and 1 compute at the same time on the same cores'
# rank 0 sends through sockets with hardly any buffer
mpi -n 1 env OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_sndbuf=2048 OMPI_MCA_btl_tcp_rcvbuf=2048 "$favor" doctor --seconds 2 : \
	-n 3 "$favor" doctor --seconds 2
expect "a rank whose pairs are slow" 0 '^warning +pairs .*far slower than the others; worst: ranks 0 on .* and [1-3] on '
if [ -e "$build/tests/app/other_clock.so" ] && ! nm -D "$favor" | grep -q __asan; then
	mpi -n 1 "$favor" doctor --seconds 1 : -n 1 env LD_PRELOAD="$build/tests/app/other_clock.so" "$favor" doctor --seconds 1
	expect "a rank with another clock" 0 "^warning +clocks +largest difference to rank 0's clock: (6.99|7.00)[0-9]* s \(rank 1 "
else
	echo "skipped: a rank with another clock: a library can't be put before a sanitizer's"
fi
(
	ulimit -n 60
	exec "$favor" doctor
) >"$work/log" 2>&1
code=$?
expect "too few open files" 1 '^BROKEN +limits .*open files 60' '-> ulimit -n'

# ---- a rank that freezes while it is looked at
FAVOR_START_DEADLINE=3 timeout -k 5 100 mpirun -n 3 sh -c '[ "$OMPI_COMM_WORLD_RANK" -ne 1 ] || kill -STOP $$; exec "$@"' sh "$favor" doctor >"$work/log" 2>&1
code=$?
if [ "$(grep -c '^favor: rank' "$work/log")" -eq 1 ]; then
	expect "a rank that never comes" 1 '^favor: rank 0 .*MPI_Init_thread does not return.*rank 1 '
else
	fail "a rank that never comes" "$(grep -c '^favor: rank' "$work/log") messages" "$work/log"
fi
finish
