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

# train RUN OPTIONS...: in $work/RUN, with $options too
reference=clean options=
train() {
	run=$work/$1
	shift
	# shellcheck disable=SC2086
	ranks $count train "$work/tiny.yaml" run.dir="$run" $options "$@"
}

train clean || {
	fail "the run without faults" "failed" "$work/log"
	finish
}
# what all wait for in a step
common_phases="publish weights|wait for the end of the step|wait for the sum over all ranks|wait for the maximum over all ranks|wait for all ranks to agree"
both_learners_phases="wait for scored groups|advantages|forward and backward|sum gradients|wait for gradients|wait for gradients to be taken|log samples"
both_learners_phases="$both_learners_phases|optimizer|share weights|wait for the sum over learners|wait for the maximum over learners"
leader_phases="$both_learners_phases|wait for a learner's samples|wait for the leader's weights|log metrics|checkpoint|checkpoint half|checkpoint digest"
leader_phases="$leader_phases|checkpoint close|checkpoint fsync|checkpoint rename|checkpoint folder fsync|remove old checkpoints|$common_phases"
learner_phases="$both_learners_phases|wait for the leader to take samples|$common_phases"
reward_phases="wait for sampled groups|reward|$common_phases"
rollout_phases="wait for work|encode|rollout|wait for the leader's weights|$common_phases"
# before the first step and after the last
start_phases="wait for all ranks to start|wait for data from rank 0|wait for all ranks to get their roles|open data|open model|check records"
start_phases="$start_phases|wait for the leader's word|wait for what all ranks say|begin"
end_phases="wait for messages to be taken|wait for all ranks to finish"
# in runs with other options
cat >"$work/other-phases" <<END
learner.shard=true|1|give moments to the checkpoint|3
learner.shard=true|1|wait for the leader to take moments|3
learner.shard=true|0|wait for a learner's moments|3
comm.reproducible=true|0|add gradients|2
comm.reproducible=true|1|add gradients|2
method=sft placement=auto|0|encode|2
method=sft placement=auto|2|forward and backward|2
END

# Whatever favor calls a phase or a wait is in one of these lists, or in those of tests/nccl.sh.
check_lists() {
	{
		grep -rh 'world_phase(' "$root/src" --include='*.c' | grep -o '"[^"]*"'
		grep -rhoE '"wait for [^".%]+"' "$root/src" --include='*.c'
		grep -rh 'fault_point("' "$root/src" --include='*.c' | grep -o '"[^"]*"'
	} | tr -d '"' | sort -u >"$work/in-source"
	{
		echo "$leader_phases|$learner_phases|$reward_phases|$rollout_phases|$start_phases|$end_phases|evaluation|resume" | tr '|' '\n'
		cut -d '|' -f 3 "$work/other-phases"
		"$root/tests/nccl.sh" --phases
	} | sort -u >"$work/in-lists"
	if cmp -s "$work/in-source" "$work/in-lists"; then
		ok "each of the $(wc -l <"$work/in-source") phases and waits that favor has is one that --long kills and stops (some by tests/nccl.sh)"
	else
		diff "$work/in-source" "$work/in-lists" >"$work/log"
		fail "each phase is one that --long kills and stops" "< is in the sources alone, > in the lists alone" "$work/log"
	fi
}

phases_of() {
	case $1 in
	0) echo "$leader_phases" ;;
	1) echo "$learner_phases" ;;
	2) echo "$reward_phases" ;;
	*) echo "$rollout_phases" ;;
	esac
}

role_of() {
	case $1$options in
	*method=sft*) echo "all roles" ;;
	0* | 1*) echo learner ;;
	2*) echo reward ;;
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
		same_run "$1" $reference hit
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

# strike CASE RANK POINT STEP ACTION[:ARGUMENT] OPTIONS...: a run with a fault, in $work/hit. Fails where it does not happen or the job ends badly.
strike() {
	strike_case=$1 strike_rank=$2 strike_action=${5%%:*} strike_fault=$3:$2:$4:$5
	shift 5
	begin=$(ticks)
	train_with "$strike_fault" hit "$@"
	code=$?
	seconds=$(($(ticks) - begin))
	if ! fired "$strike_rank"; then
		fail "$strike_case" "the fault did not happen, exit code $code" "$work/log"
		return 1
	fi
	wrong=$(check_end "$strike_rank" "$strike_action" $code $seconds)
	[ -z "$wrong" ] || fail "$strike_case" "$wrong" "$work/log"
	[ -z "$wrong" ]
}

# hit CASE RANK POINT STEP ACTION[:ARGUMENT]: from the beginning
hit() {
	rm -rf "$work/hit"
	strike "$@"
}

# fault RANK POINT STEP ACTION
fault() {
	fault_name="$(role_of "$1") rank $1, $2, step $3: $4"
	! hit "$fault_name" "$@" || resumed "$fault_name"
}

# fault_in_resume RANK ACTION: a run was killed, and it happens in the one that goes on
fault_in_resume() {
	resume_name="$(role_of "$1") rank $1, resume: $2"
	rm -rf "$work/hit"
	train_with "optimizer:0:3:kill" hit
	! strike "$resume_name" "$1" resume -1 "$2" --resume auto || resumed "$resume_name"
}

# other_phases: those of runs with other options
other_phases() {
	while IFS='|' read -r options rank phase step <&3; do
		if [ "$reference" != "$(echo "$options" | tr -c 'a-z\n' -)" ]; then
			reference=$(echo "$options" | tr -c 'a-z\n' -)
			train "$reference" || fail "$options" "the run without faults failed" "$work/log"
		fi
		for action in kill stop; do
			hit_name="$options, rank $rank, $phase, step $step: $action"
			! hit "$hit_name" "$rank" "$phase" "$step" $action || resumed "$hit_name"
		done
	done 3<"$work/other-phases"
	reference=clean options=
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
	check_lists
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
			# who asks for work may find none left in a step
			phases_of $rank | tr '|' '\n' | sed '/^\(checkpoint\|remove\|log metrics\|wait for all ranks to agree\)/s/$/:3/; /^\(encode\|rollout\)$/s/$/:*/; /:/!s/$/:2/'
			echo evaluation:3
			echo "$start_phases" | tr '|' '\n' | sed 's/$/:-1/'
			echo "$end_phases" | tr '|' '\n' | sed 's/$/:6/'
		} >"$work/phases"
		while IFS=: read -r phase step; do
			for action in kill stop oom:2000; do
				fault $rank "$phase" "$step" $action </dev/null
			done
		done <"$work/phases"
		for action in kill stop oom:2000; do
			fault_in_resume $rank $action
		done
	done
	other_phases
fi
random
finish
