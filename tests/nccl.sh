#!/bin/sh
# Ranks on GPUs of their own exchange gradients and weights by NCCL: nccl.sh [BUILD FOLDER] [--long]. On the emulations of CUDA and NCCL
# (tests/kernels/emulation), which pretend that there are several GPUs, fail or hang when they are told to, and end a run that starts
# a sum before its buckets are complete, or in another order than the other ranks. --long: a rank is killed and stopped in each phase that only
# such runs have; "nccl.sh --phases" prints these.

# options | rank | phase | step. Two ranks learn, one scores, two roll out.
own_phases="|0|form NCCL's teams|-1
|3|form NCCL's teams|-1
|1|wait for NCCL's team|-1
|3|wait for NCCL's team|-1
|1|wait for NCCL to take gradients|1
|0|wait for NCCL to sum gradients|1
|0|wait for NCCL to take weights|1
|3|wait for the leader's weights by NCCL|1
learner.shard=true|1|wait for NCCL to take weights|1
learner.shard=true|0|wait for the learners' weights by NCCL|1
|1|wait for NCCL's last sums|*
|4|wait for the end of NCCL's team|*"
if [ "${1:-}" = --phases ]; then
	echo "$own_phases" | cut -d '|' -f 3 | sort -u
	exit
fi
. "$(dirname "$0")/e2e/lib.sh"
on_emulated_gpu "NCCL on its emulation"
export FAVOR_EMULATED_GPUS=4
make_data

cat >"$work/tiny.yaml" <<END
method: grpo
device: cuda
model: {path: $base, init: random}
data: {train: $work/letters.jsonl, root: $work/synth, prompt: answer, system: none}
rollout: {group_size: 3, max_tokens: 6, stop: [a, i, o, u, " the", " in"]}
reward: {accuracy: visual-rft, format: 0}
learner: {steps: 2, groups_per_step: 3, micro_batch: 1, lr: 1.0e-3, beta: 0, weight_decay: 0.1}
comm: {bucket_kib: 64}
checkpoint: {every: 0}
run: {seed: 1, samples_per_step: -1}
END

# train NAME RANKS OPTIONS...: into $work/NAME; what it says stays in $work/NAME.log
train() {
	train_name=$1 train_ranks=$2
	shift 2
	ranks "$train_ranks" train "$work/tiny.yaml" run.dir="$work/$train_name" "$@"
	train_code=$?
	cp "$work/log" "$work/$train_name.log"
	return $train_code
}

# says CASE NAME TEXT: the run's log has a line that matches
says() {
	if grep -Eq "$3" "$work/$2.log"; then
		ok "$1: $(grep -E "$3" "$work/$2.log" | head -n 1 | cut -c 1-150)"
	else
		fail "$1" "no line of the log matches $3" "$work/$2.log"
	fi
}

# went CASE: the run succeeded
went() {
	if [ "$train_code" -ne 0 ]; then
		fail "$1" "the run failed with code $train_code" "$work/$train_name.log"
	elif ! metric grad_norm "$work/$train_name/metrics.jsonl" | awk '$1 > 0 { moved = 1 } END { exit !moved }'; then
		fail "$1" "there is no gradient that could be summed wrongly"
	fi
}

# ---- learners: by NCCL and through the host the emulation adds in the same order, so that even the bits agree
for count in 2 3; do
	FAVOR_EMULATED_NCCL_LOG="$work/sums-$count" train nccl-$count $count placement=colocate
	went "$count learners"
	says "$count learners by NCCL" nccl-$count "^favor: gradients: by NCCL 2.28.9, 64 KiB at a time, during the backward pass; over $count learners\$"
	train host-$count $count placement=colocate comm.transport=host
	went "$count learners, host"
	says "$count learners through the host" host-$count "^favor: gradients: through the host and MPI \(comm.transport: host\); over $count learners\$"
	same_run "$count learners, by NCCL and through the host" host-$count nccl-$count
	sums=$(grep -c '^sum' "$work/sums-$count" 2>/dev/null)
	if [ "${sums:-0}" -ge 8 ]; then
		ok "$count learners: $sums sums in two steps, the largest of $(sort -k 2 -n "$work/sums-$count" | tail -n 1 | cut -d ' ' -f 2) floats"
	else
		fail "$count learners" "NCCL made ${sums:-no} sums"
	fi
done
train late 2 placement=colocate comm.overlap=false
went "comm.overlap: false"
says "comm.overlap: false" late 'by NCCL .*after the backward pass'
same_run "with overlap and without" nccl-2 late
train recompute 2 placement=colocate learner.recompute=true learner.groups_per_step=3 model.vision=frozen learner.iterations=2
went "frozen tower, recomputed, two iterations"
train recompute-host 2 placement=colocate learner.recompute=true model.vision=frozen learner.iterations=2 comm.transport=host
same_run "frozen tower, recomputed, two iterations" recompute-host recompute
train sft 2 method=sft data.prompt=answer
went "sft"
train sft-host 2 method=sft comm.transport=host
same_run "sft, by NCCL and through the host" sft-host sft

# ---- stopped in mid-step, where others have begun to sum, and gone on with
train whole 2 placement=colocate learner.steps=6 checkpoint.every=1
went "six steps"
for place in "wait for the sum over learners:0:2" "forward and backward:1:3"; do
	rm -rf "$work/stopped"
	FAVOR_EMULATED_NCCL=slow:1:0 FAVOR_FAULT="$place:signal:15" train stopped 2 placement=colocate learner.steps=6 checkpoint.every=1 comm.bucket_kib=512
	if [ $train_code -eq 75 ] && grep -q 'stopped by SIGTERM' "$work/stopped.log"; then
		stopped=$(grep -o 'after step [0-9]* of 6' "$work/stopped.log")
		train stopped 2 placement=colocate learner.steps=6 checkpoint.every=1 --resume auto
		same_run "stopped $stopped ($place) and gone on with" whole stopped
	else
		fail "stopped in mid-step ($place)" "exit code $train_code" "$work/stopped.log"
	fi
done

# ---- moments sharded over the learners: each bucket's sum goes to one of them, and their slices of the weights to all
# sharded CASE NAME LIKE RANKS OPTIONS...: the run has the bits of LIKE, which has not
sharded() {
	sharded_case=$1 sharded_name=$2 sharded_like=$3 sharded_ranks=$4
	shift 4
	train "$sharded_name" "$sharded_ranks" learner.shard=true "$@"
	went "$sharded_case"
	says "$sharded_case" "$sharded_name" '^favor: moments sharded over [23] learners: '
	same_run "$sharded_case" "$sharded_like" "$sharded_name"
}
for count in 2 3; do
	FAVOR_EMULATED_NCCL_LOG="$work/shards-$count" sharded "sharded over $count learners" shard-$count host-$count $count placement=colocate
	sums=$(grep -c '^sum_to' "$work/shards-$count") spreads=$(grep -c '^spread' "$work/shards-$count")
	if [ "$sums" -ge 8 ] && [ "$spreads" -eq $((2 * count)) ] && ! grep -q '^sum ' "$work/shards-$count"; then
		ok "sharded over $count learners: $sums sums to one, $spreads slices of weights to all in two steps"
	else
		fail "sharded over $count learners" "NCCL made $sums sums to one, $spreads spreads, and $(grep -c '^sum ' "$work/shards-$count") sums to all"
	fi
done
sharded "sharded, a bucket for each slice, after the backward pass" shard-late host-3 3 placement=colocate comm.overlap=false comm.bucket_kib=32768
sharded "sharded, through the host" shard-host host-3 3 placement=colocate comm.transport=host
sharded "sharded, frozen tower, recomputed, two iterations" shard-frozen recompute-host 2 placement=colocate learner.recompute=true \
	model.vision=frozen learner.iterations=2
sharded "sharded, sft" shard-sft sft-host 2 method=sft
# the copy that products take has all learners' weights
for transport in auto host; do
	train narrow-$transport 2 placement=colocate model.dtype=bfloat16 comm.transport=$transport
	sharded "sharded, bfloat16, comm.transport: $transport" shard-narrow-$transport narrow-$transport 2 placement=colocate model.dtype=bfloat16 \
		comm.transport=$transport
done
train ordered-3 3 placement=colocate comm.reproducible=true
sharded "sharded, comm.reproducible" shard-ordered ordered-3 3 placement=colocate comm.reproducible=true
train whole-shard 2 placement=colocate learner.steps=2 checkpoint.every=1 learner.shard=true
train whole-shard 2 placement=colocate learner.steps=6 checkpoint.every=1 --resume auto
same_run "sharded, gone on with unsharded" whole whole-shard
train shard-whole 2 placement=colocate learner.steps=2 checkpoint.every=1
train shard-whole 2 placement=colocate learner.steps=6 checkpoint.every=1 learner.shard=true --resume auto
same_run "unsharded, gone on with sharded" whole shard-whole

# ---- weights: two learners, two ranks that roll out, one that scores (on no GPU)
FAVOR_EMULATED_NCCL_LOG="$work/spread" train roles 5 placement.rollout=2 placement.reward=1 placement.learner=2
went "ranks that roll out"
says "weights by NCCL" roles '^favor: weights: by NCCL 2.28.9; to 2 ranks$'
train roles-host 5 placement.rollout=2 placement.reward=1 placement.learner=2 comm.transport=host
went "ranks that roll out, host"
says "weights through the host" roles-host '^favor: weights: through the host and MPI \(comm.transport: host\); to 2 ranks$'
same_run "ranks that roll out, by NCCL and through the host" roles-host roles
sharded "sharded, ranks that roll out" shard-roles roles-host 5 placement.rollout=2 placement.reward=1 placement.learner=2
if [ "$(metric sampling/sampling_logp_difference/max "$work/roles/metrics.jsonl" | sort -u | tr '\n' ' ')" = "0 " ] &&
	[ "$(grep -c '^spread' "$work/spread")" -eq 2 ]; then
	ok "published by NCCL: sampler and learner have the same bits"
else
	fail "published by NCCL" "sampler and learner differ, or nothing was published by NCCL"
fi

# ---- where it can't be
FAVOR_EMULATED_GPUS=1 train shared 2 placement=colocate learner.steps=1
went "two ranks on one GPU"
says "two ranks on one GPU" shared '^favor: gradients: through the host and MPI \(ranks 0 and 1 share a GPU of '
FAVOR_EMULATED_GPUS=3 train mixed 5 placement.rollout=2 placement.reward=1 placement.learner=2 learner.steps=1
went "rank 3 shares rank 0's GPU"
says "a team each: gradients" mixed '^favor: gradients: by NCCL'
says "a team each: weights" mixed '^favor: weights: through the host and MPI \(ranks 0 and 4 share a GPU of '
FAVOR_NCCL_LIBRARY=/nowhere/libnccl.so.2 train without 2 placement=colocate learner.steps=1
went "no NCCL"
says "no NCCL" without '^favor: gradients: through the host and MPI \(rank 0: no NCCL: /nowhere/libnccl.so.2'
train ordered 2 placement=colocate learner.steps=1 comm.reproducible=true
went "comm.reproducible"
says "comm.reproducible" ordered '^favor: gradients: through the host and MPI \(comm.reproducible'
FAVOR_EMULATED_GPUS=1 train refused 2 placement=colocate comm.transport=nccl
if [ "$train_code" -eq 2 ]; then
	says "comm.transport: nccl, refused" refused "comm.transport: nccl, but gradients can't go by it: ranks 0 and 1 share a GPU"
else
	fail "comm.transport: nccl on one GPU" "exit code $train_code instead of 2" "$work/refused.log"
fi

# ---- NCCL that fails or hangs: a message that says what was waited for, within the deadline
# broken CASE NCCL TEXT SECONDS OPTIONS...
broken() {
	broken_case=$1 broken_nccl=$2 broken_text=$3 broken_limit=$4
	shift 4
	begin=$(date +%s)
	FAVOR_EMULATED_NCCL=$broken_nccl train broken 3 placement=colocate run.deadline=2 learner.groups_per_step=3 "$@"
	seconds=$(($(date +%s) - begin))
	rm -rf "$work/broken"
	if [ "$train_code" -ne 0 ] && [ "$train_code" -lt 124 ] && [ $seconds -le "$broken_limit" ] && grep -Eq "$broken_text" "$work/broken.log"; then
		ok "$broken_case: after $seconds s: $(grep -E "$broken_text" "$work/broken.log" | head -n 1 | cut -c 1-170)"
	else
		fail "$broken_case" "exit code $train_code after $seconds s" "$work/broken.log"
	fi
}
limit=40
broken "a sum hangs" hang:1:2 "wait for NCCL to sum gradients.*NCCL hangs.*comm.transport: host" 20
broken "a sum hangs, no overlap" hang:2:3 "wait for NCCL to sum gradients" 20 comm.overlap=false
broken "a rank does not come" hang:1:-1 "wait for NCCL's team" 20
broken "a rank can't join" fail:2:-1 "ncclCommInitRankConfig on GPU 2 .*system error.*comm.transport: host" 20
broken "a sum to one hangs" hang:1:2 "wait for NCCL to sum gradients.*comm.transport: host" 20 learner.shard=true
broken "a slice of weights hangs" hang:2:4 "wait for the learners' weights by NCCL.*comm.transport: host" 20 learner.shard=true comm.bucket_kib=32768
broken "a sum fails" fail:0:2 "NCCL on GPU . .*(system error|remote process).*comm.transport: host" 20

# ---- a rank that is killed or stopped there: the job ends, and goes on to the same weights
# lost OPTIONS RANK PHASE STEP ACTION
lost() {
	lost_case="$1${1:+, }rank $2, $3: $5" lost_fault="$3:$2:$4:$5"
	rm -rf "$work/hit"
	set -- 5 placement.rollout=2 placement.reward=1 placement.learner=2 learner.steps=3 checkpoint.every=1 $1
	[ -e "$work/unhurt" ] || train unhurt "$@"
	begin=$(date +%s)
	FAVOR_FAULT=$lost_fault train hit "$@" run.deadline=2
	seconds=$(($(date +%s) - begin))
	if ! grep -q '^favor: FAVOR_FAULT: ' "$work/hit.log"; then
		fail "$lost_case" "the fault did not happen, exit code $train_code" "$work/hit.log"
	elif [ "$train_code" -eq 0 ] || [ "$train_code" -eq 124 ] || [ $seconds -gt 30 ]; then
		fail "$lost_case" "exit code $train_code after $seconds s" "$work/hit.log"
	elif ! train hit "$@" --resume auto; then
		fail "$lost_case" "the resumed run failed" "$work/hit.log"
	else
		same_run "$lost_case" unhurt hit
	fi
}
if [ "${2:-}" = --long ]; then
	while IFS='|' read -r options rank phase step; do
		for action in kill stop; do
			lost "$options" "$rank" "$phase" "$step" $action </dev/null
		done
	done <<END
$own_phases
END
fi
rm -f /dev/shm/favor-emulated-nccl-*
finish
