#!/bin/sh
# Load: load.sh [BUILD FOLDER] [--long].
#
#  soak          memory of each rank stays flat over many steps
#  oversubscribed 16 ranks on whatever cores there are: the same samples and no deadline missed
#  large sets    a million lines of JSON or CSV: the first step in less than 3 s of processor time, 4 ranks together in less than 6 (--long; twice
#                that without, since processors and what else they do differ)
#  checkpoints   of 1 GiB, their writer killed 100 times (--long; a small version is the unit test checkpoint_kill)
. "$(dirname "$0")/e2e/lib.sh"
export OMP_NUM_THREADS=1
steps=300 settled=100 start_seconds=6 cores=$(getconf _NPROCESSORS_ONLN)
[ "${2:-}" != --long ] || steps=2000 start_seconds=3
make_data

cat >"$work/tiny.yaml" <<END
method: grpo
model: {path: $base, init: random}
data: {train: $work/letters.jsonl, eval: $work/letters.jsonl, root: $work/synth, eval_limit: 4, prompt: answer, system: none}
rollout: {group_size: 4, max_tokens: 12, stop: [a, i, o, u, " the", " in"]}
reward: {accuracy: visual-rft, format: 0}
learner: {steps: 3, groups_per_step: 16, micro_batch: 2, lr: 1.0e-3, beta: 0.04}
checkpoint: {every: 0}
run: {seed: 1, deadline: 60}
END

# ---- soak: the resident memory of each rank, sampled while it runs
steps_done() {
	cat "$work/soak/metrics.jsonl" 2>/dev/null | wc -l
}
soak() {
	printf '#!/bin/sh\necho "$OMPI_COMM_WORLD_RANK $$" >>%s/pids\nexec %s "$@"\n' "$work" "$favor" >"$work/noted"
	chmod +x "$work/noted"
	: >"$work/pids"
	(
		favor=$work/noted limit=1500
		ranks 5 train "$work/tiny.yaml" run.dir="$work/soak" placement='{rollout: 2, reward: 1, learner: 2}' learner.steps=$steps \
			learner.groups_per_step=6 learner.eval_every=$((steps / 10)) checkpoint.every=$((steps / 20)) checkpoint.keep=2
	) &
	job=$!
	while kill -0 $job 2>/dev/null; do
		at=$(steps_done)
		while read -r rank pid; do
			resident=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status" 2>/dev/null)
			[ -z "$resident" ] || echo "$at $rank $resident"
		done <"$work/pids" >>"$work/resident"
		sleep 0.5
	done
	wait $job || {
		fail "soak" "the run failed" "$work/log"
		return
	}
	# growth from the first sample after $settled steps to the largest later one, in KiB. The leader keeps the metrics of all steps for
	# the checkpoints: half a KiB a step and copies of it; 0.5 MiB for what an allocator does.
	awk -v settled=$settled -v steps=$steps '
		$1 >= settled && !($2 in first) { first[$2] = $3; since[$2] = $1 }
		$1 >= settled && $3 > most[$2] { most[$2] = $3; last[$2] = $1 }
		$1 > latest { latest = $1 }
		END {
			for (r = 0; r < 5; r++) {
				if (!(r in first) || latest < 0.8 * steps) { print "too few samples"; bad = 1; continue }
				grown = most[r] - first[r]
				allowed = 512 + (r == 0 ? 2 * (steps - since[r]) : 0)
				printf "%srank %d: %d KiB, %+d since step %d", r ? ", " : "", r, most[r], grown, since[r]
				bad += grown > allowed
			}
			print ""
			exit bad > 0
		}' "$work/resident" >"$work/growth"
	if [ $? -eq 0 ]; then
		ok "soak of $steps steps: $(cat "$work/growth")"
	else
		fail "soak of $steps steps" "memory grows: $(cat "$work/growth")"
	fi
}

# ---- more ranks than cores
oversubscribed() {
	if ! ranks 0 train "$work/tiny.yaml" run.dir="$work/one"; then
		fail "one process" "the run failed" "$work/log"
		return
	fi
	begin=$(date +%s)
	if ! ranks 16 train "$work/tiny.yaml" run.dir="$work/sixteen" placement='{rollout: 12, reward: 3, learner: 1}'; then
		fail "16 ranks on $cores cores" "the run failed" "$work/log"
	elif [ "$(metric samples_digest "$work/one/metrics.jsonl")" != "$(metric samples_digest "$work/sixteen/metrics.jsonl")" ] ||
		[ "$(digest "$(newest "$work/one")")" != "$(digest "$(newest "$work/sixteen")")" ]; then
		fail "16 ranks on $cores cores" "other samples or weights than one process"
	else
		ok "16 ranks on $cores cores: 3 steps in $(($(date +%s) - begin)) s, digest $(digest "$(newest "$work/sixteen")")"
	fi
}

# ---- large sets. Processor time, the least of up to six runs if the first takes too long: what else the machine does must not decide, and
# what shares the caches and the memory with it costs processor time, too.
read_million() { # KIND RANKS; sets seconds
	rm -rf "$work/million"
	(
		ranks "$2" train "$work/tiny.yaml" run.dir="$work/million" data.train="$work/million.$1" data.eval= learner.steps=1 \
			learner.groups_per_step=4
		echo $? >"$work/code"
		times >"$work/times"
	)
	seconds=$(tail -n 1 "$work/times" | sed 's/[ms]/ /g' | awk '{ print 60 * $1 + $2 + 60 * $3 + $4 }')
}
too_long() { # SECONDS MOST
	awk "BEGIN { exit !($1 >= $2) }"
}
million() { # KIND RANKS MOST SECONDS
	least=
	for _ in 1 2 3 4 5 6; do
		read_million "$1" "$2"
		[ "$(cat "$work/code")" -eq 0 ] || break
		least=$(printf '%s\n' $least "$seconds" | sort -n | head -n 1)
		too_long "$least" "$3" || break
	done
	name="a million lines of $1, $2 ranks"
	[ "$2" -ne 0 ] || name="a million lines of $1, one process"
	if [ "$(cat "$work/code")" -ne 0 ]; then
		fail "$name" "the run failed" "$work/log"
	elif ! grep -q '1000000 training records (4 checked)' "$work/log"; then
		fail "$name" "not said how many records were checked" "$work/log"
	elif too_long "$least" "$3"; then
		fail "$name" "$least s of processor time, at most $3"
	else
		ok "$name: read, checked, one step: $least s of processor time"
	fi
}

soak
oversubscribed
awk '{ line[NR % 24] = $0 } END { for (i = 0; i < 1000000; i++) print line[i % 24] }' "$work/letters.jsonl" |
	sed 's/, *"think": *"[^"]*"//' >"$work/million.jsonl"
{
	echo path,label
	sed 's/.*"image": *"\([^"]*\)".*"label": *"\([^"]*\)".*/\1,\2/' "$work/million.jsonl"
} >"$work/million.csv"
for kind in jsonl csv; do
	million $kind 0 $start_seconds
	million $kind 4 $((2 * start_seconds))
done
# a record that the run is to use is checked, even if it is one of a million: its image is missing
sed 's|images/|nowhere/|' "$work/million.csv" >"$work/missing.csv"
if ranks 0 train "$work/tiny.yaml" run.dir="$work/missing" data.train="$work/missing.csv" data.eval= learner.steps=1; then
	fail "a missing image in a large set" "the run went on"
elif ! grep -q 'nowhere/.*No such file' "$work/log" || [ -s "$work/missing/metrics.jsonl" ]; then
	fail "a missing image in a large set" "not said before the first step" "$work/log"
else
	ok "a missing image in a large set: said before the first step"
fi
if [ "${2:-}" = --long ]; then
	TMPDIR=$work "$build/tests/checkpoint/kill_writer" 1024 100 2>&1 || failures=$((failures + 1))
fi
finish
