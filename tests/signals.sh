#!/bin/sh
# Runs that a signal stops: signals.sh [BUILD FOLDER] [--long]. Whatever the moment and whichever rank it comes to, all ranks leave together with
# code 75 and a checkpoint of the last finished step, at once even in a step that takes long; and the resumed run ends with the weights, metrics
# and samples of a run that was never stopped. --long: more moments.
. "$(dirname "$0")/e2e/lib.sh"
long=
[ "${2:-}" = --long ] && long=1
make_data

cat >"$work/grpo.yaml" <<END
method: grpo
model: {path: $base, init: random}
data: {train: $work/letters.jsonl, eval: $work/synth/test.jsonl, root: $work/synth, prompt: answer, system: none}
rollout: {group_size: 4, max_tokens: 24, stop: [a, i, o, u, " the", " in"]}
reward: {accuracy: visual-rft, format: 0}
learner: {steps: 16, groups_per_step: 7, micro_batch: 2, lr: 1.0e-3, beta: 0.04, eval_every: 2}
checkpoint: {every: 0}
run: {seed: 1, samples_per_step: -1}
END
cat >"$work/sft.yaml" <<END
method: sft
model: {path: $base, init: random}
data: {train: $work/synth/train.jsonl, eval: $work/synth/test.jsonl, prompt: think, system: none, augment: true}
rollout: {max_tokens: 24}
learner: {steps: 64, groups_per_step: 14, micro_batch: 2, lr: 1.0e-3, weight_decay: 0.1, eval_every: 8}
checkpoint: {every: 0}
run: {seed: 1}
END

# start NAME RANKS CONFIG OPTIONS...: a run in the background; its job in $job, its ranks' process ids in $work/pids
start() {
	start_dir=$work/$1 start_ranks=$2 start_config=$work/$3.yaml
	shift 3
	: >"$work/pids"
	cat >"$work/rank.sh" <<-'END'
		echo "${OMPI_COMM_WORLD_RANK:-0} $$" >>"$FAVOR_PIDS"
		exec "$@"
	END
	export FAVOR_PIDS="$work/pids"
	if [ "$start_ranks" -eq 0 ]; then
		sh "$work/rank.sh" "$favor" train "$start_config" run.dir="$start_dir" "$@" >"$work/log" 2>&1 &
	else
		ASAN_OPTIONS=detect_leaks=0 mpirun -n "$start_ranks" sh "$work/rank.sh" "$favor" train "$start_config" run.dir="$start_dir" "$@" >"$work/log" 2>&1 &
	fi
	job=$!
}

# wait_for_step NAME N
wait_for_step() {
	tries=0
	while [ "$(cat "$work/$1/metrics.jsonl" 2>/dev/null | wc -l)" -lt "$2" ]; do
		tries=$((tries + 1))
		[ $tries -lt 6000 ] || return 1
		sleep 0.01
	done
}

# check_stopped CODE SIGNAL OPTIONS...: how $work/stopped has ended, and how it ends when it is resumed; $name, $count, $config, $case_name
check_stopped() {
	code=$1 signal=$2
	shift 2
	steps=$(cat "$work/stopped/metrics.jsonl" 2>/dev/null | wc -l)
	last=$(newest "$work/stopped")
	if [ $code -ne 75 ]; then
		fail "$case_name" "exit code $code instead of 75 after $steps steps" "$work/log"
		return
	elif ! grep -q "^favor: stopped by SIG$signal after step $steps of " "$work/log"; then
		fail "$case_name" "no message that it stopped after step $steps" "$work/log"
		return
	elif [ "$steps" -gt 0 ] && [ "$last" != "$work/stopped/checkpoints/$(printf 'step-%06d.h5' "$steps")" ]; then
		fail "$case_name" "no checkpoint of step $steps" "$work/log"
		return
	fi
	if ! ranks "$count" train "$work/$config.yaml" run.dir="$work/stopped" "$@" --resume auto; then
		fail "$case_name" "the resumed run failed" "$work/log"
	else
		same_run "$case_name (step $steps)" "$name" stopped
	fi
}

# stop_at CASE RANKS CONFIG STEP DELAY SIGNAL WHOM OPTIONS...: the run that isn't stopped is $work/CASE. WHOM: job (mpirun, or the process), or
# a rank.
stop_at() {
	name=$1 count=$2 config=$3 at=$4 delay=$5 signal=$6 whom=$7
	shift 7
	case_name="$name stopped by SIG$signal to $whom, $delay s after step $at"
	rm -rf "$work/stopped"
	start stopped "$count" "$config" "$@"
	wait_for_step stopped "$at" || fail "$case_name" "no step $at after a minute" "$work/log"
	sleep "$delay"
	if [ "$whom" = job ]; then
		kill -"$signal" "$job"
	else
		kill -"$signal" "$(sed -n "s/^$whom //p" "$work/pids")"
	fi
	wait "$job"
	check_stopped $? "$signal" "$@"
}

# undisturbed NAME RANKS CONFIG OPTIONS...
undisturbed() {
	undisturbed_name=$1 undisturbed_ranks=$2 undisturbed_config=$3
	shift 3
	ranks "$undisturbed_ranks" train "$work/$undisturbed_config.yaml" run.dir="$work/$undisturbed_name" "$@" ||
		fail "$undisturbed_name" "the run failed" "$work/log"
}

# stop_in NAME RANKS CONFIG RANK STEP PHASE OPTIONS...: that rank gets SIGUSR1 when it enters the phase in that step
stop_in() {
	name=$1 count=$2 config=$3 rank=$4 step=$5 phase=$6
	shift 6
	case_name="$name, SIGUSR1 to rank $rank in $phase of step $step"
	rm -rf "$work/stopped"
	FAVOR_FAULT="$phase:$rank:$step:signal:10" ranks "$count" train "$work/$config.yaml" run.dir="$work/stopped" "$@"
	check_stopped $? USR1 "$@"
}

placed='placement={rollout: 2, reward: 1, learner: 1}'
two='placement={rollout: 2, reward: 1, learner: 2}'

# ---- in each phase, by itself
undisturbed grpo-5 5 grpo "$two"
everything="0:open data|0:check records|0:begin|0:wait for scored groups|0:advantages|0:forward and backward|0:wait for the sum over learners"
everything="$everything|0:sum gradients|0:optimizer|0:log samples|0:publish weights|0:evaluation|0:log metrics|1:forward and backward"
everything="$everything|1:wait for gradients|1:wait for the sum over learners|1:optimizer|2:wait for sampled groups|2:reward"
everything="$everything|2:wait for the end of the step|3:wait for work|3:encode|3:rollout|4:wait for the leader's weights|4:evaluation"
few="0:forward and backward|0:optimizer|0:evaluation|1:wait for the sum over learners|2:reward|3:rollout|4:evaluation"
[ -z "$long" ] || few=$everything
echo "$few" | tr '|' '\n' >"$work/places"
while IFS=: read -r rank phase <&3; do
	steps='3'
	[ -z "$long" ] || steps='0 1 5'
	case $phase in
	evaluation | "log metrics") steps='4' ;;
	"open data" | "check records" | begin) steps='-1' ;;
	esac
	for step in $steps; do
		stop_in grpo-5 5 grpo "$rank" "$step" "$phase" "$two"
	done
done 3<"$work/places"
# ---- at moments that no phase chooses
undisturbed grpo-0 0 grpo
stop_at grpo-0 0 grpo 3 0.01 TERM job
stop_at grpo-0 0 grpo 5 0.05 INT job
undisturbed grpo-4 4 grpo "$placed"
# mpirun passes SIGUSR1 and SIGUSR2 on to all ranks; a scheduler's SIGTERM may reach one rank first, or only it
stop_at grpo-4 4 grpo 2 0.002 USR1 job "$placed"
stop_at grpo-4 4 grpo 4 0.023 TERM 0 "$placed"
stop_at grpo-4 4 grpo 5 0.037 TERM 3 "$placed"
stop_at grpo-5 5 grpo 2 0.017 USR2 job "$two"
undisturbed sft-3 3 sft
stop_at sft-3 3 sft 3 0.013 USR1 job
stop_at sft-3 3 sft 7 0.02 TERM 2
if [ "$long" ]; then
	for moment in 1:0.003 2:0.007 3:0.013 4:0.019 5:0.029 6:0.031 7:0.041 8:0.043 9:0.047 10:0.053; do
		stop_at grpo-4 4 grpo "${moment%:*}" "${moment#*:}" USR1 job "$placed"
		stop_at grpo-4 4 grpo "${moment%:*}" "${moment#*:}" TERM 2 "$placed"
		stop_at grpo-5 5 grpo "${moment%:*}" "${moment#*:}" TERM 1 "$two"
		stop_at sft-3 3 sft "${moment%:*}" "${moment#*:}" USR1 job
	done
fi

# A step of minutes is given up at once: nothing waits for its end.
slow='rollout.max_tokens=1800 rollout.group_size=64 learner.groups_per_step=64 learner.eval_every=0'
for whom in 0 1 3; do
	rm -rf "$work/slow"
	start slow 4 grpo "$placed" $slow rollout.stop='[]'
	tries=0
	while ! grep -q 'effective configuration' "$work/log" && [ $tries -lt 3000 ]; do
		tries=$((tries + 1))
		sleep 0.02
	done
	sleep 1
	begin=$(date +%s%N)
	kill -TERM "$(sed -n "s/^$whom //p" "$work/pids")"
	(
		sleep 60
		kill -9 $job $(cut -d ' ' -f 2 "$work/pids") 2>/dev/null
	) &
	watch=$!
	wait "$job"
	code=$?
	ms=$((($(date +%s%N) - begin) / 1000000))
	kill $watch 2>/dev/null
	wait $watch 2>/dev/null
	if [ $code -ne 75 ] || [ $ms -gt 5000 ] || ! grep -q 'stopped by SIGTERM after step 0 of' "$work/log"; then
		fail "a long step is given up at once (signal to rank $whom)" "code $code after $ms ms" "$work/log"
	else
		ok "a long step is given up at once (signal to rank $whom): after $ms ms"
	fi
done

finish
