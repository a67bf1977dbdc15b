#!/bin/sh
# What must always hold, on whole runs of a tiny untrained model: invariants.sh [BUILD FOLDER] [--long].
#
#  1  what is sampled does not depend on the ranks        2  killed and resumed = never killed
#  3  the gradient does not depend on the layout          5  rollout's and learner's log-probabilities are the same bits
#  6  a rank that hangs ends the job, with one message that names it
#
# (4, the shared prefix against naive rows, is a unit test of the model room.) --long kills at more moments.
. "$(dirname "$0")/e2e/lib.sh"
long=
[ "${2:-}" = --long ] && long=1
make_data

cat >"$work/tiny.yaml" <<END
method: grpo
model: {path: $base, init: random}
data: {train: $work/letters.jsonl, root: $work/synth, prompt: answer, system: none}
rollout: {group_size: 4, max_tokens: 12, stop: [a, i, o, u, " the", " in"]}
reward: {accuracy: visual-rft, format: 0}
learner: {steps: 3, groups_per_step: 7, micro_batch: 2, lr: 1.0e-3, beta: 0.04}
checkpoint: {every: 0}
run: {seed: 1, samples_per_step: -1}
END
cat >"$work/sft.yaml" <<END
method: sft
model: {path: $base, init: random}
data: {train: $work/synth/train.jsonl, prompt: think, system: none, augment: true}
learner: {steps: 3, groups_per_step: 7, micro_batch: 2, lr: 1.0e-3, weight_decay: 0.1}
checkpoint: {every: 0}
run: {seed: 1}
END

# train NAME RANKS CONFIG OPTIONS...: into $work/NAME
train() {
	train_dir=$work/$1 train_ranks=$2 train_config=$3
	shift 3
	ranks "$train_ranks" train "$work/$train_config.yaml" run.dir="$train_dir" "$@"
}

# ---- 1 and 5: every sampling on every placement
place() {
	case $1 in
	alone) placement_ranks=0 placement=auto ;;
	mpirun-1) placement_ranks=1 placement=auto ;;
	colocate-2) placement_ranks=2 placement=colocate ;;
	colocate-4) placement_ranks=4 placement=colocate ;;
	ranks-4) placement_ranks=4 placement='{rollout: 2, reward: 1, learner: 1}' ;;
	ranks-6) placement_ranks=6 placement='{rollout: 4, reward: 1, learner: 1}' ;;
	esac
}

sampling() {
	case $1 in
	plain) echo rollout.temperature=1.0 ;;
	truncated) echo rollout.temperature=0.8 rollout.top_k=40 rollout.top_p=0.9 ;;
	top_k) echo rollout.temperature=0.7 rollout.top_k=20 ;;
	top_p) echo rollout.temperature=0.7 rollout.top_p=0.8 ;;
	min_p) echo rollout.temperature=0.7 rollout.min_p=0.2 ;;
	bfloat16) echo model.dtype=bfloat16 rollout.temperature=0.9 rollout.top_k=40 ;;
	esac
}

# lines NAME STEPS: of samples.jsonl, of the first steps
lines() {
	awk -F '[:,]' -v steps="$2" '$2 <= steps' "$work/$1/samples.jsonl"
}

compare_samples() {
	expected=$work/1-$1-alone got=$work/1-$1-$2
	case $2 in
	colocate-*) steps=1 ;; # several learners add in another order: from the second step on the weights differ in the last bits
	*) steps=3 ;;
	esac
	metric samples_digest "$expected/metrics.jsonl" | head -n $steps >"$work/expected"
	metric samples_digest "$got/metrics.jsonl" | head -n $steps >"$work/got"
	if [ "$(wc -l <"$work/got")" -ne $steps ]; then
		fail "invariant 1, $1, $2" "there are no $steps steps"
	elif ! cmp -s "$work/expected" "$work/got"; then
		fail "invariant 1, $1, $2" "samples_digest $(tr '\n' ' ' <"$work/got")instead of $(tr '\n' ' ' <"$work/expected")"
	elif [ "$(lines "1-$1-alone" $steps)" != "$(lines "1-$1-$2" $steps)" ] ||
		{ [ $steps -eq 3 ] && [ "$(digest "$(newest "$expected")")" != "$(digest "$(newest "$got")")" ]; }; then
		fail "invariant 1, $1, $2" "the same digest of samples, but other samples or weights"
	else
		ok "invariant 1, $1, $2: $(tr '\n' ' ' <"$work/got")"
	fi
	metric sampling/sampling_logp_difference/max "$got/metrics.jsonl" | sort -u >"$work/got"
	if [ "$(cat "$work/got")" = 0 ] || [ "$(cat "$work/got")" = 0.0 ]; then
		ok "invariant 5, $1, $2"
	else
		fail "invariant 5, $1, $2" "log-probabilities differ by $(tr '\n' ' ' <"$work/got")"
	fi
}

for s in plain truncated top_k top_p min_p bfloat16; do
	for p in alone mpirun-1 colocate-2 colocate-4 ranks-4 ranks-6; do
		place $p
		if train "1-$s-$p" "$placement_ranks" tiny placement="$placement" $(sampling $s); then
			compare_samples $s $p
		else
			fail "invariant 1, $s, $p" "the run failed" "$work/log"
		fi
	done
done
# groups decode together by default, and one by one if asked
place alone
for s in plain top_p; do
	if train "1-$s-apart" "$placement_ranks" tiny placement="$placement" rollout.groups=1 $(sampling $s); then
		compare_samples $s apart
	else
		fail "invariant 1, $s, apart" "the run failed" "$work/log"
	fi
done
# the comparisons above must be able to fail: samplings, steps and seeds differ, and weights move
different=$(for s in plain truncated top_k top_p min_p bfloat16; do metric samples_digest "$work/1-$s-alone/metrics.jsonl"; done | sort -u | wc -l)
train 1-seed 0 tiny run.seed=2
if [ "$different" -ne 18 ] || [ "$(metric samples_digest "$work/1-seed/metrics.jsonl")" = "$(metric samples_digest "$work/1-plain-alone/metrics.jsonl")" ]; then
	fail "digests tell runs apart" "$different of 18 are different"
elif metric grad_norm "$work/1-plain-alone/metrics.jsonl" | grep -qx 0; then
	fail "digests tell runs apart" "a gradient is zero"
else
	ok "digests tell runs apart"
fi

# ---- docs/METRICS.md: rewards are those of the samples, versions those that sampled, and what it names is what is written
for run in 1-plain-alone 1-plain-colocate-2; do
	for step in 1 2 3; do
		sed -n "s/^{\"step\": $step, .*\"reward\": \([^,]*\), .*/\1/p" "$work/$run/samples.jsonl" |
			awk '{ n++; s += $1; q += $1 * $1 } END { print s / n, sqrt((q - s * s / n) / (n - 1)), n }'
	done >"$work/expected"
	metric reward_std "$work/$run/metrics.jsonl" >"$work/std"
	if metric reward "$work/$run/metrics.jsonl" | paste -d ' ' - "$work/std" "$work/expected" | tee "$work/log" |
		awk '{ d = $1 - $3; e = $2 - $4; good += d * d < 1e-8 && e * e < 1e-8 && $4 > 0 && $5 == 28 } END { exit good != 3 }'; then
		ok "metrics, $run: mean and deviation of the rewards in samples.jsonl"
	else
		fail "metrics, $run" "reward, reward_std, and both and their number from samples.jsonl" "$work/log"
	fi
done
train metrics-versions 0 tiny learner.iterations=2
if [ "$(metric policy_version "$work/metrics-versions/metrics.jsonl" | tr '\n' ' ')" = "0 2 4 " ]; then
	ok "metrics, policy_version is that of the weights that sampled"
else
	fail "metrics, policy_version" "$(metric policy_version "$work/metrics-versions/metrics.jsonl" | tr '\n' ' ')instead of 0 2 4"
fi
# "| `a/b`, `c` | ..." names a/b and a/c
sed -n 's/^| \(`[^|]*`\) |.*/\1/p' "$root/docs/METRICS.md" | awk -F ', ' '{
	gsub("`", "")
	folder = ""
	for (i = 1; i <= NF; i++) {
		name = i > 1 && $i !~ "/" ? folder $i : $i
		folder = name
		sub("[^/]*$", "", folder)
		for (k = split(name ~ "NAME" ? "accuracy format" : "-", rewards, " "); k > 0; k--) {
			one = name
			sub("NAME", rewards[k], one)
			print one
		}
	}
}' | sort -u >"$work/expected"
names() {
	grep -o '"[a-z_/]*": ' "$work/$1/metrics.jsonl" | tr -d '": ' | grep -vx step | sort -u
}
train metrics-grpo 0 tiny learner.steps=2 learner.eval_every=1 data.eval="$work/letters.jsonl" data.eval_limit=2 reward.format=1
train metrics-sft 0 sft learner.steps=2 learner.eval_every=1 data.eval="$work/synth/test.jsonl" data.eval_limit=2
names metrics-grpo >"$work/got"
names metrics-sft >"$work/sft"
if ! cmp -s "$work/expected" "$work/got"; then
	diff "$work/expected" "$work/got" >"$work/log"
	fail "docs/METRICS.md names what is written" "< is in the page alone, > in metrics.jsonl alone" "$work/log"
elif [ "$(comm -13 "$work/expected" "$work/sft")" ] || [ "$(wc -l <"$work/sft")" -ne 17 ]; then
	fail "docs/METRICS.md names what sft writes" "other names" "$work/sft"
else
	ok "docs/METRICS.md names what is written: $(wc -l <"$work/got") metrics, $(wc -l <"$work/sft") of them by sft"
fi

# ---- 3: learners x micro-batches, one step. A large adam_eps makes the step proportional to the gradient: without it the tiniest
# gradients' signs would decide.
layout() {
	name=$1 loss=$2 count=$3 micro=$4
	shift 4
	if [ "$count" -eq 0 ]; then
		place alone
	else
		placement_ranks=$((count + 2)) placement="{rollout: 1, reward: 1, learner: $count}"
	fi
	train "$name" "$placement_ranks" tiny placement="$placement" learner.loss="$loss" learner.micro_batch="$micro" learner.steps=1 \
		learner.adam_eps=1.0 learner.lr=1.0 learner.max_grad_norm=0 "$@"
}

# close_to EXPECTED GOT CASE
close_to() {
	if ! difference=$("$build/tests/e2e/compare_checkpoints" "$(newest "$work/$1")" "$(newest "$work/$2")" 2>&1); then
		fail "$3" "$difference"
	elif ! echo "$difference" | awk '{ exit !($1 < 1e-5 && $NF > 0) }'; then
		fail "$3" "differs: $difference"
	else
		ok "$3: $difference"
	fi
}

for loss in grpo dr_grpo dapo; do
	layout 3-$loss-alone $loss 0 1 || fail "invariant 3, $loss" "the run failed" "$work/log"
	for learners in 1 2 3; do
		for micro in 1 2 4; do
			if layout 3-$loss-$learners-$micro $loss $learners $micro; then
				close_to 3-$loss-alone 3-$loss-$learners-$micro "invariant 3, $loss, $learners learners, micro_batch $micro"
			else
				fail "invariant 3, $loss, $learners learners, micro_batch $micro" "the run failed" "$work/log"
			fi
		done
	done
done
if layout 3-recompute grpo 2 2 learner.recompute=true; then
	close_to 3-grpo-alone 3-recompute "invariant 3, grpo, recomputed activations"
else
	fail "invariant 3, recomputed activations" "the run failed" "$work/log"
fi
# it must be able to fail: another loss gives another gradient
if "$build/tests/e2e/compare_checkpoints" "$(newest "$work/3-grpo-alone")" "$(newest "$work/3-dr_grpo-alone")" |
	awk '{ exit !($1 < 1e-2) }'; then
	fail "invariant 3 can fail" "grpo and dr_grpo have the same gradient"
else
	ok "invariant 3 can fail"
fi

# ---- a frozen tower's features: kept, with room for one or two images, and not kept
frozen="model.vision=frozen learner.steps=6 placement=colocate"
train frozen-kept 2 tiny $frozen || fail "features kept" "the run failed" "$work/log"
grep -q 'image features 256.0 MiB' "$work/log" || fail "features kept" "they are not in the memory plan" "$work/log"
train frozen 2 tiny $frozen model.feature_cache=0 && same_run "a frozen tower's features kept and not kept" frozen frozen-kept
train frozen-resumed 2 tiny $frozen learner.steps=3 checkpoint.every=1 &&
	train frozen-resumed 2 tiny $frozen checkpoint.every=1 --resume auto && same_run "a frozen tower's features kept, and resumed" frozen frozen-resumed

# ---- 2: kill -9 in mid-step, resume
# start_job RANKS ARGUMENTS...: in the background, into $work/log; every process notes its id in $work/pids, a rank its number before it
start_job() {
	start_ranks=$1
	shift
	: >"$work/pids"
	cat >"$work/rank.sh" <<-'END'
		echo "${OMPI_COMM_WORLD_RANK:-0} $$" >>"$FAVOR_PIDS"
		exec "$@"
	END
	if [ "$start_ranks" -eq 0 ]; then
		FAVOR_PIDS=$work/pids sh "$work/rank.sh" "$favor" "$@" >"$work/log" 2>&1 &
	else
		FAVOR_PIDS=$work/pids mpirun -n "$start_ranks" sh "$work/rank.sh" "$favor" "$@" >"$work/log" 2>&1 &
	fi
	job=$!
}

# wait_for_line FILE N: until the file has N lines; gives up after a minute
wait_for_line() {
	tries=0
	while [ "$(cat "$1" 2>/dev/null | wc -l)" -lt "$2" ]; do
		tries=$((tries + 1))
		[ $tries -lt 6000 ] || return 1
		sleep 0.01
	done
}

kill_job() {
	kill -9 "$job" $(cut -d ' ' -f 2 "$work/pids") 2>/dev/null
	wait "$job" 2>/dev/null
}

resume_steps=20
slow_grpo="learner.steps=$resume_steps checkpoint.every=2 checkpoint.keep=0 rollout.group_size=8 rollout.max_tokens=48 learner.groups_per_step=6"
slow_sft="learner.steps=$resume_steps checkpoint.every=2 checkpoint.keep=0 learner.groups_per_step=24"

# kill_and_resume CASE RANKS CONFIG WAIT-FOR-STEP DELAY OPTIONS...: the run that isn't killed is $work/2-CASE
kill_and_resume() {
	name=$1 count=$2 config=$3 at=$4 delay=$5
	shift 5
	# this script may be held up until the run is over: then again
	for attempt in 1 2 3 4; do
		rm -rf "$work/2-killed"
		start_job "$count" train "$work/$config.yaml" run.dir="$work/2-killed" "$@"
		wait_for_line "$work/2-killed/metrics.jsonl" "$at" || fail "invariant 2, $name" "no step $at after a minute" "$work/log"
		sleep "$delay"
		kill_job
		done_steps=$(cat "$work/2-killed/metrics.jsonl" | wc -l)
		[ "$done_steps" -ge $resume_steps ] || break
	done
	if [ "$done_steps" -ge $resume_steps ]; then
		fail "invariant 2, $name" "the run was over before it was killed, $attempt times"
		return
	fi
	before=$(newest "$work/2-killed") # none if it was killed before the first was written
	if ! train 2-killed "$count" "$config" "$@" --resume auto; then
		fail "invariant 2, $name" "the resumed run failed" "$work/log"
	elif [ "$before" ] && ! grep -q 'resumed from' "$work/log"; then
		fail "invariant 2, $name" "it started anew" "$work/log"
	else
		same_run "invariant 2, $name, killed after step $at and $delay s" "2-$name" 2-killed
	fi
}

moments="3:0.013 4:0 7:0.03"
[ -z "$long" ] || moments="$moments 2:0.002 5:0.007 6:0.011 8:0.019 9:0.023 3:0.029 4:0.037 5:0.041 6:0.043 7:0.047"
placed='placement={rollout: 2, reward: 1, learner: 1}'
for count in 0 4; do
	for kind in grpo grpo-no-reference sft; do
		case $kind in
		grpo) config=tiny options="$slow_grpo" ;;
		grpo-no-reference) config=tiny options="$slow_grpo learner.beta=0 learner.schedule=cosine learner.warmup=3" ;;
		sft) config=sft options="$slow_sft" ;;
		esac
		case $count$kind in
		0* | *sft) set -- $options ;;
		*) set -- $options "$placed" ;;
		esac
		if ! train "2-$kind-$count" $count $config "$@"; then
			fail "invariant 2, $kind-$count" "the run failed" "$work/log"
			continue
		fi
		for moment in $moments; do
			kill_and_resume "$kind-$count" $count $config "${moment%:*}" "${moment#*:}" "$@"
		done
	done
done

# a newest checkpoint that was cut short is passed over; the one before is taken
kept=$work/2-grpo-0
cp -r "$kept" "$work/2-cut"
last=$(newest "$work/2-cut")
head -c 20000 "$last" >"$last.short" && mv "$last.short" "$last"
if ! train 2-cut 0 tiny $slow_grpo --resume auto; then
	fail "invariant 2, a checkpoint cut short" "the resumed run failed" "$work/log"
elif ! grep -q 'resumed from .*step-000018.h5' "$work/log" || ! grep -q "favor: warning: .*step-000020.h5" "$work/log"; then
	fail "invariant 2, a checkpoint cut short" "not resumed from the one before with a warning" "$work/log"
else
	same_run "invariant 2, a checkpoint cut short" 2-grpo-0 2-cut
fi
# written on one rank, gone on with on four
cp -r "$kept" "$work/2-moved"
rm "$work"/2-moved/checkpoints/step-00001[2-9].h5 "$work/2-moved/checkpoints/step-000020.h5"
if train 2-moved 4 tiny $slow_grpo "$placed" --resume auto; then
	same_run "invariant 2, from 1 rank to 4" 2-grpo-0 2-moved
else
	fail "invariant 2, from 1 rank to 4" "the resumed run failed" "$work/log"
fi

# ---- 6: a stopped rank ends the job
# stop RANK ROLE
stop() {
	rm -rf "$work/6"
	start_job 4 train "$work/tiny.yaml" run.dir="$work/6" $slow_grpo "$placed" learner.steps=100000 checkpoint.every=0 run.deadline=3
	# in its steps for more than a heartbeat, however fast they are: what others know of the leader is as old as its last one
	wait_for_line "$work/6/metrics.jsonl" 5 || fail "invariant 6, $2" "no step 5 after a minute" "$work/log"
	sleep 1.5
	kill -STOP "$(sed -n "s/^$1 //p" "$work/pids")"
	begin=$(date +%s)
	# a job that doesn't end is ended here
	(
		sleep 40
		kill_job
	) &
	watch=$!
	wait "$job"
	code=$?
	seconds=$(($(date +%s) - begin))
	kill "$watch" 2>/dev/null
	wait "$watch" 2>/dev/null
	lines=$(grep -c '^favor: rank' "$work/log")
	if [ $code -eq 0 ] || [ $seconds -gt 10 ] || [ "$lines" -ne 1 ] ||
		! grep -Eq "^favor: rank .*from rank $1 \($2 on .*last phase [a-z ]+, step [0-9]+, sample" "$work/log"; then
		fail "invariant 6, $2 stopped" "exit code $code after $seconds s, $lines messages" "$work/log"
	else
		ok "invariant 6, $2 stopped: after $seconds s: $(grep '^favor: rank' "$work/log")"
	fi
	kill -9 $(cut -d ' ' -f 2 "$work/pids") 2>/dev/null
}
# roles in their order: learner 0, reward 1, rollout 2 and 3
stop 3 rollout
stop 2 rollout
stop 1 reward
stop 0 learner
finish
