#!/bin/sh
# Ranks that die or freeze, full disks, memory that ends: faults.sh [BUILD FOLDER] [--long | --random N SEED].
#
# Each case makes one rank fail on purpose (FAVOR_FAULT, src/base/fault.h), looks at how the job ends, goes on with --resume auto and
# compares weights, metrics and samples with those of a run without faults: each step once, to the bit. --long: killed, stopped and out of memory in
# each phase of each role, and 200 faults at random. --random: only N of those, drawn from SEED.
. "$(dirname "$0")/e2e/lib.sh"
ulimit -c 0
export OMP_NUM_THREADS=1 FAVOR_START_DEADLINE=4
kind=${2:-} random_faults=10 random_seed=1
[ "$kind" != --long ] || random_faults=200
if [ "$kind" = --random ]; then
	random_faults=$3 random_seed=$4
fi
make_data

limit=150 most=40 # seconds: a run is cut off, a job must have ended
count_ticks
count=5 # ranks: learners 0 (the leader) and 1, reward 2, rollout 3 and 4
cat >"$work/tiny.yaml" <<END
method: grpo
model: {path: $base, init: random}
data: {train: $work/letters.jsonl, eval: $work/letters.jsonl, root: $work/synth, eval_limit: 4, prompt: answer, system: none}
rollout: {group_size: 4, max_tokens: 12, stop: [a, i, o, u, " the", " in"]}
reward: {accuracy: visual-rft, format: 0}
learner: {steps: 6, groups_per_step: 6, micro_batch: 2, lr: 1.0e-3, beta: 0.04, eval_every: 3}
placement: {rollout: 2, reward: 1, learner: 2}
checkpoint: {every: 1, keep: 2}
run: {seed: 1, samples_per_step: -1, deadline: ${FAULTS_DEADLINE:-1.5}}
END

# train RUN OPTIONS...: in $work/RUN
train() {
	run=$work/$1
	shift
	ranks $count train "$work/tiny.yaml" run.dir="$run" "$@"
}

train clean || {
	fail "the run without faults" "failed" "$work/log"
	finish
}
leader_phases="wait for scored groups|advantages|forward and backward|sum gradients|optimizer|log samples|publish weights|log metrics|checkpoint|checkpoint half|checkpoint digest|checkpoint close|checkpoint fsync|checkpoint rename|checkpoint folder fsync|remove old checkpoints|wait for all ranks to agree"
learner_phases="wait for scored groups|advantages|forward and backward|sum gradients|optimizer|publish weights|wait for gradients|wait for the sum over learners|wait for all ranks to agree"
reward_phases="wait for sampled groups|reward|publish weights|wait for the end of the step|wait for all ranks to agree"
rollout_phases="wait for work|encode|rollout|publish weights|wait for the leader's weights|wait for all ranks to agree"
# before the first step and after the last
start_phases="wait for all ranks to start|open data|open model|check records|begin"
end_phases="wait for all ranks to finish"

phases_of() {
	case $1 in
	0) echo "$leader_phases" ;;
	1) echo "$learner_phases" ;;
	2) echo "$reward_phases" ;;
	*) echo "$rollout_phases" ;;
	esac
}

role_of() {
	case $1 in
	0 | 1) echo learner ;;
	2) echo reward ;;
	*) echo rollout ;;
	esac
}

fired() {
	grep -q "^favor: FAVOR_FAULT: rank $1, " "$work/log"
}

# check_end RANK ACTION CODE SECONDS: how the job ended that the fault has hit; prints what is wrong. (mpirun continues a stopped rank to
# end it; what that one says of the others then does not count.)
check_end() {
	if [ "$2" = sleep ]; then # shorter than the deadline: nothing may come of it
		[ "$3" -eq 0 ] || echo "exit code $3 after a pause that is shorter than the deadline"
	elif [ "$3" -eq 0 ]; then
		echo "exit code 0"
	elif [ "$4" -gt $most ] || [ "$3" -eq 124 ]; then
		echo "ended after $4 s"
	elif [ "$2" = stop ] && ! { [ "$(grep '^favor: rank' "$work/log" | grep -vc "^favor: rank $1 ")" -eq 1 ] &&
		grep -q "^favor: rank .* rank $1 (\(\($(role_of "$1")\|no role yet\) on\|process\)" "$work/log"; }; then
		echo "not one message that names rank $1"
	elif [ "$2" = oom ] && ! grep -q "^favor: rank $1 (.*phase .*out of memory" "$work/log"; then
		echo "rank $1 does not say that there is no memory"
	elif pgrep -f "run.dir=$work/hit" >/dev/null; then
		sleep 2 # mpirun is gone before the last rank
		! pgrep -f "run.dir=$work/hit" >/dev/null || echo "processes are left: $(pgrep -f "run.dir=$work/hit")"
	fi
}

# resumed CASE: goes on in $work/hit and compares
resumed() {
	if ! train hit --resume auto; then
		fail "$1" "the resumed run failed" "$work/log"
	else
		same_run "$1" clean hit
	fi
}

# train_with FAULT RUN OPTIONS...: with that fault. Where it is about memory, all ranks have a limit, and the one that it hits takes more; on a busy
# machine that takes its time, and a deadline must not come first.
train_with() {
	(
		export FAVOR_FAULT="$1"
		shift
		case $FAVOR_FAULT in
		*:oom:*)
			ulimit -v 1500000
			export FAVOR_START_DEADLINE=20
			train "$@" run.deadline=20
			;;
		*) train "$@" ;;
		esac
	)
}

# hit CASE RANK POINT STEP ACTION[:ARGUMENT]: a run with a fault, into $work/hit. Fails where it does not happen or the job ends badly.
hit() {
	rm -rf "$work/hit"
	begin=$(ticks)
	train_with "$3:$2:$4:$5" hit
	code=$?
	seconds=$(($(ticks) - begin))
	if ! fired "$2"; then
		fail "$1" "the fault did not happen, exit code $code" "$work/log"
		return 1
	fi
	wrong=$(check_end "$2" "${5%%:*}" $code $seconds)
	[ -z "$wrong" ] || fail "$1" "$wrong" "$work/log"
	[ -z "$wrong" ]
}

# fault RANK POINT STEP ACTION
fault() {
	fault_name="$(role_of "$1") rank $1, $2, step $3: $4"
	! hit "$fault_name" "$@" || resumed "$fault_name"
}

# ---- each place in writing a checkpoint: the one before is whole until the new one is
# whole RUN: each checkpoint that is there is whole
whole() {
	for file in "$1"/checkpoints/step-*.h5; do
		[ -e "$file" ] || return 1
		"$favor" inspect --verify "$file" >"$work/verify" 2>&1 || return 1
	done
}

# checkpoint_fault ACTION POINT NEWEST (a rank that was only stopped is continued by mpirun before it is ended, and may finish its file)
checkpoint_fault() {
	checkpoint_name="$1 at $2"
	hit "$checkpoint_name" 0 "$2" 4 "$1" || return
	if ! whole "$work/hit"; then
		fail "$checkpoint_name" "a checkpoint is not whole: $(ls "$work/hit/checkpoints")" "$work/verify"
	elif [ "$1" = kill ] && [ "$(newest "$work/hit")" != "$work/hit/checkpoints/$3" ]; then
		fail "$checkpoint_name" "$3 is not the newest: $(ls "$work/hit/checkpoints")"
	else
		resumed "$checkpoint_name"
	fi
}

# ---- a full disk
# full POINT: the disk is full from there on
full() {
	mkdir "$work/disk"
	if ! mount -t tmpfs -o size=8m tmpfs "$work/disk" 2>"$work/mount"; then
		echo "skipped: full disk at $1: $(cat "$work/mount")"
	else
		run_on_disk "$1"
		umount "$work/disk"
	fi
	rmdir "$work/disk"
}
run_on_disk() {
	FAVOR_FAULT="$1:0:4:enospc:$work/disk/ballast" train disk/run
	code=$?
	if ! fired 0 || [ $code -eq 0 ] || [ $code -eq 124 ]; then
		fail "full disk at $1" "exit code $code" "$work/log"
	elif [ "$(grep '^favor: ' "$work/log" | grep -c 'No space left on device')" -ne 1 ]; then
		fail "full disk at $1" "no message, or several" "$work/log"
	elif ! whole "$work/disk/run" || ls "$work"/disk/run/checkpoints/*tmp* >/dev/null 2>&1; then
		fail "full disk at $1" "not only whole checkpoints: $(ls "$work/disk/run/checkpoints")" "$work/verify"
	else
		rm "$work/disk/ballast"
		said=$(grep '^favor: .*No space' "$work/log" | sed "s|$work/||g")
		train disk/run --resume auto || fail "full disk at $1" "the resumed run failed" "$work/log"
		same_run "full disk at $1 ($said)" clean disk/run
	fi
}

# A limit on the size of files (ulimit -f, in blocks of 512 bytes) stands for a quota. Alone: Open MPI's shared memory is files too.
file_limit() {
	rm -rf "$work/hit"
	count=0
	train alone placement=auto
	(
		ulimit -f 2000
		train hit placement=auto
	)
	code=$?
	if [ $code -ne 1 ] || ! grep -q '^favor: .*checkpoint.*File too large' "$work/log" ||
		ls "$work"/hit/checkpoints/* >/dev/null 2>&1; then
		fail "files limited in size" "exit code $code" "$work/log"
	else
		said=$(grep '^favor: .*too large' "$work/log" | sed "s|$work/||g")
		rm -rf "$work/hit" # there is a run, but no checkpoint to go on from
		train hit placement=auto --resume auto || fail "files limited in size" "the resumed run failed" "$work/log"
		same_run "files limited in size ($said)" alone hit
	fi
	count=5
}

# ---- memory that ends, by the kernel's hand: in a memory control group it kills. (By a limit, oom is an action like others.)
# memory_group MIB: makes a control group in $group; 1 where that can't be
memory_group() {
	for root_of in /sys/fs/cgroup/memory /sys/fs/cgroup; do
		group=$root_of/favor-faults-$$
		mkdir "$group" 2>/dev/null || continue
		for limit_of in memory.limit_in_bytes memory.max; do
			if [ -e "$group/$limit_of" ] && echo $(($1 << 20)) 2>/dev/null >"$group/$limit_of"; then
				return 0
			fi
		done
		rmdir "$group"
	done
	return 1
}

# killed_by_kernel RANK POINT
killed_by_kernel() {
	killed_name="killed by the kernel for its memory, $(role_of "$1"), $2"
	if ! memory_group 300; then
		echo "skipped: $killed_name: no memory control group can be made here (needs root)"
		return
	fi
	rm -rf "$work/hit"
	printf '#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" != %d ] || echo $$ >%s/cgroup.procs\nexec %s "$@"\n' "$1" "$group" "$favor" >"$work/grouped"
	chmod +x "$work/grouped"
	(
		favor=$work/grouped
		FAVOR_FAULT="$2:$1:3:oom:1000" train hit
	)
	code=$?
	kills=$(cat "$group"/memory.oom_control "$group"/memory.events 2>/dev/null | sed -n 's/^oom_kill //p')
	rmdir "$group"
	if ! fired "$1" || [ $code -eq 0 ] || [ "$kills" != 1 ]; then
		fail "$killed_name" "exit code $code, $kills kills by the kernel" "$work/log"
	else
		resumed "$killed_name"
	fi
}

# ---- a rank that never comes as far as MPI_Init: the others don't wait for it for ever
never_starts() {
	printf '#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" != 3 ] || exec sleep 300\nexec %s "$@"\n' "$favor" >"$work/late"
	chmod +x "$work/late"
	rm -rf "$work/hit"
	(
		favor=$work/late
		train hit
	)
	code=$?
	if [ $code -eq 0 ] || [ $code -eq 124 ] || ! grep -q '^favor: .*MPI_Init_thread does not return' "$work/log"; then
		fail "a rank that never starts" "exit code $code" "$work/log"
	else
		ok "a rank that never starts: exit code $code: $(grep -m 1 '^favor: .*MPI_Init' "$work/log")"
	fi
}

# ---- faults at random, and half of the time another one in the resumed run
draw() { # N: a number in [0, N), into $drawn. The low bits of such a generator are poor.
	random_state=$(((random_state * 1103515245 + 12345) % 2147483648))
	drawn=$((random_state / 65536 % $1))
}
draw_fault() { # into $drawn_fault, $drawn_rank, $drawn_action
	draw $count
	drawn_rank=$drawn
	phases="$(phases_of "$drawn_rank")|evaluation|$start_phases"
	draw "$(echo "$phases" | tr '|' '\n' | wc -l)"
	phase=$(echo "$phases" | tr '|' '\n' | sed -n "$((drawn + 1))p")
	draw 4
	passage=$((drawn + 1))
	draw 6
	step=$drawn
	case "|$start_phases|" in *"|$phase|"*) step=-1 passage=1 ;; esac
	case $phase in
	checkpoint* | log\ * | remove* | optimizer | "publish weights" | "wait for the"*) passage=1 ;;
	evaluation) step=3 passage=1 ;;
	esac
	draw 11
	case $drawn in
	[0-3]) drawn_action=kill ;;
	[4-6]) drawn_action=stop ;;
	7) drawn_action=exit ;;
	8) drawn_action=abort ;;
	9) drawn_action=oom:2000 ;;
	10) drawn_action=sleep:0.7 ;;
	esac
	drawn_fault="$phase@$passage:$drawn_rank:$step:$drawn_action"
}
random_fault() { # NUMBER
	draw_fault
	random_name="random fault $1, $drawn_fault"
	rm -rf "$work/hit"
	faults=0
	# until it is through: again and again, at most twice with a fault
	for attempt in 1 2 3; do
		begin=$(ticks)
		variable=
		[ $attempt -eq 3 ] || variable=$drawn_fault
		train_with "$variable" hit --resume auto
		code=$?
		seconds=$(($(ticks) - begin))
		if [ "$variable" ] && fired "$drawn_rank"; then
			faults=$((faults + 1))
			wrong=$(check_end "$drawn_rank" "${drawn_action%%:*}" $code $seconds)
			if [ "$wrong" ]; then
				fail "$random_name" "$wrong" "$work/log"
				return
			fi
		elif [ $code -ne 0 ]; then
			fail "$random_name" "exit code $code without a fault" "$work/log"
			return
		fi
		[ $code -ne 0 ] || break
		draw_fault
		[ $attempt -eq 2 ] || random_name="$random_name, then $drawn_fault"
	done
	happened=$((happened + faults))
	[ $faults -gt 0 ] || missed=$((missed + 1)) # such a passage did not come
	same_run "$random_name" clean hit
}
random() {
	random_state=$random_seed happened=0 missed=0 number=0
	while [ $happened -lt "$random_faults" ] && [ $number -lt $((4 * random_faults)) ]; do
		number=$((number + 1))
		random_fault $number
	done
	if [ $happened -ge "$random_faults" ]; then
		ok "$happened random faults in $number runs from seed $random_seed ($missed runs were through before theirs)"
	else
		fail "random faults" "only $happened happened in $number runs"
	fi
}

if [ "$kind" != --random ]; then
	checkpoint_fault kill "checkpoint fsync" step-000003.h5
	checkpoint_fault kill "checkpoint folder fsync" step-000004.h5
	full "checkpoint half"
	file_limit
	fault 3 rollout 3 oom:2000
	killed_by_kernel 1 "forward and backward"
fi
if [ "$kind" = --long ]; then
	never_starts
	for place in half digest close rename; do
		checkpoint_fault kill "checkpoint $place" step-000003.h5
	done
	checkpoint_fault stop "checkpoint fsync" step-000003.h5
	for place in "log samples" "log metrics" checkpoint "checkpoint digest" "checkpoint close" "checkpoint fsync"; do
		full "$place"
	done
	for rank in 0 2; do
		killed_by_kernel $rank "publish weights"
	done
	killed_by_kernel 4 rollout
	for rank in 0 1 2 3 4; do
		{
			# the step that a phase has on that rank: after the third step (2) all evaluate and agree, as 3
			phases_of $rank | tr '|' '\n' | sed '/^\(checkpoint\|remove\|log metrics\|wait for all ranks to agree\)/s/$/:3/; /:3$/!s/$/:2/'
			echo evaluation:3
			echo "$start_phases" | tr '|' '\n' | sed 's/$/:-1/'
			echo "$end_phases:6"
		} >"$work/phases"
		while IFS=: read -r phase step; do
			for action in kill stop oom:2000; do
				fault $rank "$phase" "$step" $action </dev/null
			done
		done <"$work/phases"
	done
fi
random
finish
