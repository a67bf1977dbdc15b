#!/bin/sh
# Other numbers of ranks: elastic.sh [BUILD FOLDER] [--long]. With comm.reproducible a run ends with the same bits, metrics and samples on any number
# of learners and with any micro-batch; it may stop on one number of ranks and go on with another. Without it, the same within rounding. With
# learner.shard the bits are those without, both ways. And the roles that an environment gives (FAVOR_ROLE).
. "$(dirname "$0")/e2e/lib.sh"
long=
[ "${2:-}" = --long ] && long=1
export OMP_NUM_THREADS=1
make_data
cat >"$work/grpo.yaml" <<END
method: grpo
model: {path: $base, init: random}
data: {train: $work/letters.jsonl, root: $work/synth, prompt: answer, system: none}
rollout: {group_size: 4, max_tokens: 12, stop: [a, i, o, u, " the", " in"]}
reward: {accuracy: visual-rft, format: 0.3}
learner: {steps: 6, groups_per_step: 7, micro_batch: 1, lr: 1.0e-3, beta: 0.04}
comm: {reproducible: true}
checkpoint: {every: 2, keep: 0}
run: {seed: 1}
END
cat >"$work/sft.yaml" <<END
method: sft
model: {path: $base, init: random}
data: {train: $work/synth/train.jsonl, prompt: think, system: none, augment: true}
learner: {steps: 6, groups_per_step: 7, micro_batch: 1, lr: 1.0e-3, weight_decay: 0.1}
comm: {reproducible: true}
checkpoint: {every: 2, keep: 0}
run: {seed: 1}
END

# train NAME RANKS CONFIG OPTIONS...: 0 ranks is one process; `5:2` is 5 ranks with 2 learners; `c3` is 3 ranks that do all
train() {
	train_dir=$work/$1 train_ranks=$2 train_config=$work/$3.yaml
	shift 3
	case $train_ranks in
	c*) set -- placement=colocate "$@" ;;
	*:*) set -- "placement={rollout: $((${train_ranks%:*} - 1 - ${train_ranks#*:})), reward: 1, learner: ${train_ranks#*:}}" "$@" ;;
	esac
	train_ranks=${train_ranks#c}
	ranks "${train_ranks%:*}" train "$train_config" run.dir="$train_dir" "$@"
}

# runs are compared by same_numbers: samples.jsonl has the leader's groups alone, samples_digest all

# ---- any number of learners, any micro-batch
layouts='c2:1 c3:2 5:2:1 6:3:4'
[ -z "$long" ] || layouts="$layouts c4:1 c7:1 c8:3 4:1:3 5:3:1 7:4:2"
for kind in grpo sft; do
	train $kind-0 0 $kind || fail "$kind" "the run failed" "$work/log"
	for layout in $layouts; do
		where=${layout%:*} micro=${layout##*:}
		[ $kind = grpo ] || case $where in c*) ;; *) continue ;; esac
		if train $kind-$where $where $kind learner.micro_batch=$micro; then
			same_numbers "reproducible, $kind on $where, micro_batch $micro" $kind-0 $kind-$where
		else
			fail "reproducible, $kind on $where" "the run failed" "$work/log"
		fi
	done
done
train iterations-0 0 grpo learner.iterations=2 learner.recompute=true && train iterations-3 c3 grpo learner.iterations=2 learner.recompute=true &&
	same_numbers "reproducible, two optimiser steps a round" iterations-0 iterations-3
# it must be able to fail: without it the bits depend on the learners
train plain-0 0 grpo comm.reproducible=false learner.adam_eps=1.0 learner.lr=0.1
train plain-3 c3 grpo comm.reproducible=false learner.adam_eps=1.0 learner.lr=0.1
if [ "$(digest "$(newest "$work/plain-0")")" = "$(digest "$(newest "$work/plain-3")")" ]; then
	fail "the comparison can fail" "plain sums on 1 and 3 learners have the same bits"
else
	ok "the comparison can fail: plain sums on 1 and 3 learners have other bits"
fi

# ---- moments sharded over the learners: the same bits as when each keeps all
train shard-grpo-0 0 grpo learner.shard=true && same_numbers "sharded, one learner" grpo-0 shard-grpo-0
for case in grpo:c2 grpo:c3 grpo:5:2 sft:c3 ${long:+sft:c2 grpo:c7 grpo:6:4}; do
	kind=${case%%:*} where=${case#*:} learners=${case##*:}
	learners=${learners#c}
	# in a fixed order: those of one process
	if ! train shard-$kind-$where $where $kind learner.shard=true; then
		fail "sharded, $kind on $where" "the run failed" "$work/log"
	elif ! grep -q "^favor: moments sharded over $learners learners: " "$work/log"; then
		fail "sharded, $kind on $where" "it does not say so" "$work/log"
	else
		same_numbers "sharded, $kind on $where" $kind-0 shard-$kind-$where
	fi
	# plain sums: those of as many learners
	train whole $where $kind comm.reproducible=false && train shard $where $kind comm.reproducible=false learner.shard=true &&
		same_numbers "sharded, plain sums, $kind on $where" whole shard || fail "sharded, plain sums, $kind on $where" "a run failed" "$work/log"
	rm -rf "$work/whole" "$work/shard"
done
train frozen-0 0 grpo model.vision=frozen learner.iterations=2 learner.weight_decay=0.1 &&
	train frozen-3 c3 grpo model.vision=frozen learner.iterations=2 learner.weight_decay=0.1 learner.shard=true &&
	same_numbers "sharded, frozen tower, two optimiser steps a round" frozen-0 frozen-3
# and the packed weights in the gradient's memory between steps, as steps of one micro-batch have them. planned: MiB of weights, copies included
planned() {
	sed -n 's/.*memory plan.*: weights \([0-9.]*\) MiB.*/\1/p' "$work/log"
}
for case in grpo:c2 sft:c3; do
	kind=${case%:*} where=${case#*:}
	train kept "$where" "$kind" comm.reproducible=false learner.micro_batch=1
	kept=$(planned)
	if train whole "$where" "$kind" comm.reproducible=false learner.micro_batch=4 &&
		train shard "$where" "$kind" comm.reproducible=false learner.micro_batch=4 learner.shard=true &&
		echo "$(planned) $kept" | awk '{ exit !(NF == 2 && $1 < $2) }'; then
		same_numbers "sharded, one micro-batch a step, $kind on $where: weights $(planned) MiB instead of $kept" whole shard
	else
		fail "sharded, one micro-batch a step, $kind on $where" "a run failed, or no memory is lent: weights $(planned) MiB instead of $kept" "$work/log"
	fi
	rm -rf "$work/kept" "$work/whole" "$work/shard"
done
# a disk that is full while moments are on their way: the run ends, and not by its deadline
# (for the leader; Open MPI's shared memory would be files that are too large as well)
run="$favor train $work/grpo.yaml run.dir=$work/full placement=colocate learner.shard=true run.deadline=20"
OMPI_MCA_btl=self,tcp timeout -k 5 100 mpirun -n 1 sh -c "ulimit -f 1000 && exec $run" : -n 2 $run >"$work/log" 2>&1
code=$?
if [ $code -eq 1 ] && grep -q "the checkpoint can't be written: .*too large" "$work/log" && ! grep -q 'wait for' "$work/log"; then
	ok "sharded, no room for a checkpoint: $(grep "can't be written" "$work/log" | sed "s|$work/||g" | cut -c 1-150)"
else
	fail "sharded, no room for a checkpoint" "code $code" "$work/log"
fi

# ---- stopped on one number of ranks, resumed on another
moves='0-c3 c3-5:2 5:2-0'
[ -z "$long" ] || moves="$moves c2-6:3 6:3-c4 4:1-5:3 c8-c2"
for move in $moves; do
	from=${move%-*} to=${move#*-}
	for kind in grpo sft; do
		[ $kind = grpo ] || case $move in *:*) continue ;; esac
		rm -rf "$work/moved"
		if FAVOR_FAULT="forward and backward:0:3:signal:15" train moved "$from" $kind; then
			fail "$kind from $from to $to" "it was not stopped" "$work/log"
		elif ! grep -q 'stopped by SIGTERM after step 3 ' "$work/log"; then
			fail "$kind from $from to $to" "it was not stopped after step 3" "$work/log"
		elif ! train moved "$to" $kind --resume auto; then
			fail "$kind from $from to $to" "the resumed run failed" "$work/log"
		else
			same_numbers "$kind from $from to $to" $kind-0 moved
		fi
	done
done
# with moments in one, two or three learners, and with moments in each
shards='true:0-true:c3 true:c3-false:c2 false:c2-true:5:2 true:5:2-false:0'
[ -z "$long" ] || shards="$shards true:c2-true:c3 true:c3-true:c2 true:c7-true:0"
for move in $shards; do
	from=${move%-*} to=${move#*-}
	for kind in grpo sft; do
		[ $kind = grpo ] || case $move in *:*:*:*) continue ;; esac
		rm -rf "$work/moved"
		FAVOR_FAULT="forward and backward:0:3:signal:15" train moved "${from#*:}" $kind learner.shard=${from%%:*}
		if ! grep -q 'stopped by SIGTERM after step 3 ' "$work/log"; then
			fail "$kind, sharded $from to $to" "it was not stopped after step 3" "$work/log"
		elif ! train moved "${to#*:}" $kind learner.shard=${to%%:*} --resume auto; then
			fail "$kind, sharded $from to $to" "the resumed run failed" "$work/log"
		else
			same_numbers "$kind, sharded $from to $to" $kind-0 moved
		fi
	done
done
# plain sums: the same samples in the step after the move, weights within rounding (a large adam_eps: else signs of the tiniest gradients decide)
rm -rf "$work/moved"
cp -r "$work/plain-0" "$work/moved"
rm "$work"/moved/checkpoints/step-00000[46].h5
if train moved 5:2 grpo comm.reproducible=false learner.adam_eps=1.0 learner.lr=0.1 --resume auto; then
	difference=$("$build/tests/e2e/compare_checkpoints" "$(newest "$work/plain-0")" "$(newest "$work/moved")" 2>&1)
	metric samples_digest "$work/plain-0/metrics.jsonl" | head -n 3 >"$work/expected"
	metric samples_digest "$work/moved/metrics.jsonl" | head -n 3 >"$work/got"
	if ! echo "$difference" | awk '{ exit !($1 < 1e-4 && $NF > 0) }' || ! cmp -s "$work/expected" "$work/got"; then
		fail "plain sums, from 1 rank to 5" "differs: $difference"
	else
		ok "plain sums, from 1 rank to 5: $difference"
	fi
else
	fail "plain sums, from 1 rank to 5" "the resumed run failed" "$work/log"
fi

# ---- roles by FAVOR_ROLE, whatever the ranks' order
# roles EXPECTED MPIRUN-ARGUMENTS: "exit code: message" or the placement that favor says
roles() {
	expected=$1
	shift
	rm -rf "$work/roles"
	timeout -k 5 100 mpirun "$@" >"$work/log" 2>&1
	code=$?
	if grep -q "$expected" "$work/log" && { [ $code -eq 0 ] || [ "$expected" = "FAVOR_ROLE" ]; }; then
		if [ $code -eq 0 ]; then
			same_numbers "roles: $expected" grpo-0 roles
		elif [ $code -eq 2 ]; then
			ok "roles: refused: $(grep -m 1 FAVOR_ROLE "$work/log")"
		else
			fail "roles: refused" "with code $code" "$work/log"
		fi
	else
		fail "roles: $expected" "code $code" "$work/log"
	fi
}
run="$favor train $work/grpo.yaml run.dir=$work/roles"
roles '(rollout 2, reward 1, learner 1)' -n 1 -x FAVOR_ROLE=reward $run : -n 2 -x FAVOR_ROLE=rollout $run : -n 1 -x FAVOR_ROLE=learner $run
roles '(rollout 2, reward 2, learner 1)' -n 2 -x FAVOR_ROLE=reward $run : -n 3 $run
roles '(rollout 1, reward 1, learner 2)' -n 2 $run : -n 2 -x FAVOR_ROLE=learner $run
# a heterogeneous job of Slurm where the first two ranks have no GPU: they score
export SLURM_HET_SIZE=2
roles '(rollout 2, reward 2, learner 1)' -n 2 $run : -n 3 -x SLURM_STEP_GPUS=0 $run
unset SLURM_HET_SIZE
roles FAVOR_ROLE -n 1 -x FAVOR_ROLE=teacher $run : -n 3 $run
roles FAVOR_ROLE -n 4 -x FAVOR_ROLE=learner $run
roles FAVOR_ROLE -n 1 -x FAVOR_ROLE=learner $run "placement={rollout: 1, reward: 1, learner: 2}" : -n 3 $run
finish
