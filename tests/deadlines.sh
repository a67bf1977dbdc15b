#!/bin/sh
# Every wait has a deadline: deadlines.sh [BUILD FOLDER]. One case for each line of the table in docs/RELIABILITY.md, "Deadlines": a rank
# freezes (or sleeps in the file system) in that wait, and the job must end by itself, with a code that isn't 0, after about the deadline,
# with one message on stderr that names the rank and the wait. tests/comm/stop_at.c is the job; whole runs of favor follow.
. "$(dirname "$0")/e2e/lib.sh"
stop_at=$build/tests/comm/stop_at
deadline=3 # seconds, of start-up and of the run
launcher_seconds=23 # after which a launcher that hangs has ended
most=25    # a case takes no longer: deadline, order of speaking, the launcher's own time, a busy machine
export FAVOR_START_DEADLINE=$deadline
export ASAN_OPTIONS=detect_leaks=0 STOP_AT_FOLDER="$work"

# run_case FILE COMMAND...: FILE.log, FILE.result: "CODE SECONDS"
run_case() {
	case_file=$1 case_begin=$(date +%s)
	shift
	timeout -k 3 90 "$@" >"$case_file.log" 2>&1
	echo "$? $(($(date +%s) - case_begin))" >"$case_file.result"
}

# judge NAME FILE PATTERN: one message, with the pattern
judge() {
	read -r code seconds <"$2.result"
	lines=$(grep -c '^favor: rank' "$2.log")
	# 124: ended from here. Open MPI 4.1's mpirun may crash (139) at its own end, after all ranks are gone, or hang there; then what
	# the rank has left behind ends it (137, 143: src/comm/launcher.c)
	judge_most=$most
	case $code in 137 | 143) judge_most=$((most + launcher_seconds)) ;; esac
	if [ "$code" -eq 0 ] || [ "$code" -eq 124 ] || [ "$seconds" -gt $judge_most ] || [ "$lines" -ne 1 ]; then
		fail "$1" "exit code $code after $seconds s, $lines messages" "$2.log"
	elif ! grep -Eq "^favor: .*($3)" "$2.log"; then
		fail "$1" "the message has no \"$3\"" "$2.log"
	else
		ok "$1: after $seconds s: $(grep '^favor: rank' "$2.log" | cut -c 1-200)"
	fi
}

# wait | ranks | place | victim | what the message says
stopped='process [0-9]+ on this host\) is stopped'
silent='no sign of life for [0-9]+ s from'
cat >"$work/cases" <<END
before favor has started|4|start|2|rank 0 .*: MPI_Init_thread does not return.*: rank 2 \($stopped
MPI_Init_thread|4|MPI_Init_thread:1|1|rank 0 .*: MPI_Init_thread does not return.*: rank 1 \($stopped
MPI_Init_thread, rank 0 frozen|4|MPI_Init_thread:1|0|rank 1 .*: MPI_Init_thread does not return.*: rank 0 \($stopped
MPI_Comm_dup, first|4|MPI_Comm_dup:1|2|: MPI_Comm_dup does not return.*: rank 2 \($stopped
MPI_Comm_dup, second|4|MPI_Comm_dup:2|0|: MPI_Comm_dup does not return.*: rank 0 \($stopped
hosts and cores of all|4|MPI_Iallgather:1|1|phase wait for all ranks to start.*$silent rank 1
roles|4|opened|3|phase wait for all ranks to get their roles.*$silent rank 3
MPI_Comm_split, learners|7|MPI_Comm_split:1|3|: MPI_Comm_split does not return.*: rank 3 \($stopped
MPI_Comm_split, publish|4|MPI_Comm_split:2|1|: MPI_Comm_split does not return.*: rank 1 \($stopped
data from rank 0|4|MPI_Ibcast:1|0|phase wait for data from rank 0.*$silent rank 0
all agree|4|agree|3|phase wait for all ranks to agree.*$silent rank 3
scored groups, rollout frozen|4|rollout|2|phase wait for scored groups, step 3.*$silent rank 2 \(rollout on .*step 3
scored groups, reward frozen|4|reward|1|phase wait for scored groups, step 3.*$silent rank 1 \(reward on .*step 3
work, leader frozen|4|gradients|0|$silent rank 0 \(learner on .*step 3
gradients|7|gradients|1|phase wait for gradients( to be taken)?, step 3.*$silent rank 1 \(learner
moments of a sharded learner|7|moments|1|phase wait for a learner's moments, step 3.*$silent rank 1 \(learner
samples of another learner|7|samples|1|phase wait for a learner's samples, step 3.*$silent rank 1 \(learner
samples, leader frozen|7|samples|0|phase wait for (the leader to take samples|the end of the step), step 3.*$silent rank 0 \(learner on .*step 3
moments, leader frozen|7|moments|0|phase wait for (the leader to take moments|the end of the step), step 3.*$silent rank 0 \(learner on .*step 3
weights, leader frozen|4|publish|0|phase wait for the end of the step, step 3.*$silent rank 0 \(learner
sum over all|4|sums|2|phase wait for the sum over all ranks.*$silent rank 2
goodbye|4|close|1|phase wait for all ranks to finish.*$silent rank 1
MPI_Comm_free|4|MPI_Comm_free:1|2|: MPI_(Finalize|Comm_free) does not return.*: rank 2 \($stopped
MPI_Finalize|4|MPI_Finalize:1|1|: MPI_Finalize does not return.*: rank 1 \($stopped
MPI_Finalize, rank 0 frozen|4|MPI_Finalize:1|0|: MPI_Finalize does not return.*: rank 0 \($stopped
a file that does not open|4|open|2|rank 2 .*nothing moves on this rank.*in open of .*favor-stop-at|$silent rank 2
a file lock|4|lock|0|rank 0 .*nothing moves on this rank.*in flock of .*favor-stop-at|$silent rank 0
a child process|4|child|1|rank 1 .*nothing moves on this rank.*in wait4 of child process|$silent rank 1
END

number=0
while IFS='|' read -r name count place victim pattern; do
	number=$((number + 1))
	run_case "$work/case-$number" mpirun -n "$count" "$stop_at" "$place" "$victim" "$deadline" &
	[ $((number % 6)) -ne 0 ] || wait
done <"$work/cases"
wait
number=0
while IFS='|' read -r name count place victim pattern; do
	number=$((number + 1))
	judge "$name" "$work/case-$number" "$pattern"
done <"$work/cases"
# the cases above must be able to fail
if mpirun -n 4 "$stop_at" none 9 $deadline >"$work/none.log" 2>&1 && ! grep -q '^favor:' "$work/none.log"; then
	ok "nobody freezes: the same job ends well"
else
	fail "nobody freezes" "the job failed" "$work/none.log"
fi

# the launcher hangs, and with it every rank in MPI_Finalize: it is ended
(
	timeout -s KILL 80 mpirun -n 2 "$stop_at" none 9 $deadline >"$work/hung.log" 2>&1 &
	tries=0
	until launcher=$(pgrep -P $!) && pgrep -P "$launcher" >/dev/null || [ $tries -eq 300 ]; do
		tries=$((tries + 1))
		sleep 0.01
	done
	kill -STOP "$launcher"
	hung_begin=$(date +%s)
	wait $!
	echo "$? $(($(date +%s) - hung_begin))" >"$work/hung.result"
)
read -r code seconds <"$work/hung.result"
if [ "$seconds" -le $((most + launcher_seconds)) ]; then # what ranks say does not pass by it
	ok "a launcher that hangs is ended after $seconds s"
else
	fail "a launcher that hangs" "exit code $code after $seconds s" "$work/hung.log"
fi

# ---- the program: a pipe that nobody writes to in place of a file would never open: it is refused before it is opened
make_data
mkfifo "$work/gone.txt"
cat >"$work/tiny.yaml" <<END
method: sft
model: {path: $base, init: random}
data: {train: $work/synth/train.jsonl, prompt: think, system: none}
learner: {steps: 100000, groups_per_step: 4, lr: 1.0e-3}
checkpoint: {every: 1, keep: 2}
run: {seed: 1, dir: $work/run, deadline: $deadline}
END
run_case "$work/gone-1" "$favor" train "$work/tiny.yaml" data.classes_file="$work/gone.txt" &
run_case "$work/gone-2" mpirun -n 2 "$favor" train "$work/tiny.yaml" data.classes_file="$work/gone.txt" &
wait
for n in 1 2; do
	read -r code seconds <"$work/gone-$n.result"
	if [ "$code" -eq 2 ] && [ "$(grep -c '^favor: ' "$work/gone-$n.log")" -eq 1 ] && grep -q "gone.txt: this is no file" "$work/gone-$n.log"; then
		ok "a pipe as a list of classes, $n ranks: after $seconds s"
	else
		fail "a pipe as a list of classes, $n ranks" "exit code $code after $seconds s" "$work/gone-$n.log"
	fi
done

# what the run writes may still hang: a pipe that nobody reads in place of config.yaml stands for a file on a server that is gone
mkdir "$work/hung-1" "$work/hung-2"
mkfifo "$work/hung-1/config.yaml" "$work/hung-2/config.yaml"
run_case "$work/case-hung-1" "$favor" train "$work/tiny.yaml" run.dir="$work/hung-1" &
run_case "$work/case-hung-2" mpirun -n 2 "$favor" train "$work/tiny.yaml" run.dir="$work/hung-2" &
wait
judge "a file of the run that does not open, alone" "$work/case-hung-1" "rank 0 \(single\).*nothing moves on this rank.*in open of $work/hung-1/config.yaml"
judge "a file of the run that does not open, 2 ranks" "$work/case-hung-2" \
	"rank 0 \(all roles\).*nothing moves on this rank.*in open of $work/hung-2/config.yaml|$silent rank 0"

# the run's folder on a file system that stops to answer in mid-run
frozen=$work/frozen
if [ "$(id -u)" -ne 0 ] || ! command -v fsfreeze >/dev/null || ! command -v mkfs.ext4 >/dev/null; then
	echo "skipped: a file system that freezes: wants root, fsfreeze and mkfs.ext4"
elif ! { mkdir "$frozen" && truncate -s 64M "$work/disk" && mkfs.ext4 -q "$work/disk" && mount -o loop "$work/disk" "$frozen"; } 2>"$work/log"; then
	echo "skipped: a file system that freezes: a loop mount is refused here: $(tail -n 1 "$work/log")"
else
	trap 'fsfreeze -u "$frozen" 2>/dev/null; umount -l "$frozen"; rm -rf "$work"' EXIT
	(
		tries=0
		while [ "$(cat "$frozen/run/metrics.jsonl" 2>/dev/null | wc -l)" -lt 3 ] && [ $tries -lt 3000 ]; do
			tries=$((tries + 1))
			sleep 0.01
		done
		fsfreeze -f "$frozen"
		sleep 12
		fsfreeze -u "$frozen"
	) &
	run_case "$work/frozen-run" mpirun -n 2 "$favor" train "$work/tiny.yaml" run.dir="$frozen/run"
	wait
	judge "a file system that freezes under a run" "$work/frozen-run" "rank 0 .*nothing moves on this rank.*in [a-z]+ of $frozen/run"
fi
finish
