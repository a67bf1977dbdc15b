#!/bin/sh
# Runs on a real Slurm of one node, which this script starts and stops: slurm.sh [BUILD FOLDER]. A job to its end, one that is stopped by a signal and
# requeues itself, one that is cancelled and submitted again: each ends with the weights of the run that nothing disturbed. Bad input ends a job for good.
export TMPDIR=/var/tmp
. "$(dirname "$0")/e2e/lib.sh"
. "$root/tests/slurm/cluster.sh"

lacks=$(cluster_lacks)
if [ "$lacks" ]; then
	echo "skipped: Slurm: $lacks"
	exit 0
fi
trap 'cluster_down; rm -rf "$work"' EXIT
chmod 755 "$work"
if ! cluster_up "$work/cluster" 1; then
	tail -n 5 "$work"/cluster/log/* "$work/cluster/munge/log"
	fail "Slurm starts" "it doesn't"
	finish
fi
ok "Slurm starts: $(on_cluster sinfo -h -o '%D %t' | tr '\n' ' ')"
make_data

# job scripts run in favor's folder with build/favor; this build may be another one
home=$work/home
mkdir -p "$home/build"
ln -s "$root/jobs" "$home/jobs"
ln -s "$favor" "$home/build/favor"
export FAVOR_HOME="$home" OMP_NUM_THREADS=1
cat >"$work/tiny.yaml" <<END
method: grpo
model: {path: $base, init: random}
data: {train: $work/letters.jsonl, root: $work/synth, prompt: answer, system: none}
rollout: {group_size: 8, max_tokens: 48, stop: [a, i, o, u, " the", " in"]}
reward: {accuracy: visual-rft, format: 0}
learner: {steps: 12, groups_per_step: 6, micro_batch: 2, lr: 1.0e-3, beta: 0.04}
checkpoint: {every: 0}
run: {seed: 1, samples_per_step: -1}
END
# long enough to be stopped
steps='learner.steps=60'

# submit NAME SBATCH-OPTIONS -- SCRIPT ARGUMENTS: the job's id in $job
submit() {
	submit_name=$1
	shift
	submit_options=
	while [ "$1" != -- ]; do
		submit_options="$submit_options $1"
		shift
	done
	shift
	script=$1
	shift
	job=$(cd "$home" && on_cluster sbatch --parsable --output="$work/$submit_name.out" --job-name="$submit_name" $submit_options "jobs/slurm/$script" "$@") ||
		fail "$submit_name" "sbatch refuses it"
	job=${job%%;*}
}

state() {
	on_cluster squeue -h -j "$1" -o %T -t all 2>/dev/null | head -n 1
}

# wait_for SECONDS COMMAND...
wait_for() {
	tries=$(($1 * 10))
	shift
	until "$@"; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep 0.1
	done
}

is() {
	state "$2" | grep -qE "^($1)$"
}

has_steps() {
	[ "$(cat "$work/$1/metrics.jsonl" 2>/dev/null | wc -l)" -ge "$2" ]
}

says() {
	grep -q "$2" "$work/$1.out"
}

# A requeued job waits for two minutes; a test doesn't.
start_again() {
	wait_for 60 is PENDING "$job" || return 1
	sleep 3 # sooner, the node still holds the credential of the start before for revoked
	wait_for 20 start_now
}

start_now() {
	on_cluster scontrol update JobId="$job" StartTime=now 2>/dev/null
	! is PENDING "$job"
}

# ends_like NAME EXPECTED: the job comes to its end, and so does the run
ends_like() {
	if ! wait_for 120 is 'COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL' "$job"; then
		fail "$1" "the job doesn't end: $(state "$job")" "$work/$1.out"
	elif ! is COMPLETED "$job"; then
		fail "$1" "the job is $(state "$job")" "$work/$1.out"
	else
		same_run "$1" "$2" "$1"
	fi
}

placed='placement={rollout: 2, reward: 1, learner: 1}'
ranks 4 train "$work/tiny.yaml" run.dir="$work/undisturbed" "$placed" $steps || fail "the undisturbed run" "failed" "$work/log"

# ---- to its end
submit whole -- one-node.sbatch "$work/tiny.yaml" run.dir="$work/whole" "$placed" $steps
ends_like whole undisturbed

# ---- scancel --signal: saved, requeued by the job itself, started again
submit signalled -- one-node.sbatch "$work/tiny.yaml" run.dir="$work/signalled" "$placed" $steps
if ! wait_for 60 has_steps signalled 5; then
	fail "signalled" "no step 5" "$work/signalled.out"
else
	on_cluster scancel --signal=TERM "$job"
	if ! start_again; then
		fail "signalled" "not requeued: $(state "$job")" "$work/signalled.out"
	elif ! says signalled 'stopped by SIGTERM after step' || ! says signalled 'back into the queue'; then
		fail "signalled" "it did not save" "$work/signalled.out"
	else
		ends_like signalled undisturbed
	fi
fi

# ---- plain scancel: saved, and cancelled for good
submit cancelled -- one-node.sbatch "$work/tiny.yaml" run.dir="$work/cancelled" "$placed" $steps
if ! wait_for 60 has_steps cancelled 5; then
	fail "cancelled" "no step 5" "$work/cancelled.out"
else
	on_cluster scancel "$job"
	wait_for 40 is CANCELLED "$job"
	sleep 1
	if ! is CANCELLED "$job"; then
		fail "cancelled" "the job is $(state "$job")" "$work/cancelled.out"
	elif ! says cancelled 'stopped by SIGTERM after step'; then
		fail "cancelled" "it did not save" "$work/cancelled.out"
	else
		submit cancelled -- one-node.sbatch "$work/tiny.yaml" run.dir="$work/cancelled" "$placed" $steps
		ends_like cancelled undisturbed
	fi
fi

# ---- bad input is not tried again
submit bad -- one-node.sbatch "$work/tiny.yaml" run.dir="$work/bad" learner.lr=fast
wait_for 60 is "FAILED|COMPLETED" "$job"
if is FAILED "$job" && says bad 'learner.lr'; then
	ok "bad input ends the job"
else
	fail "bad" "the job is $(state "$job")" "$work/bad.out"
fi
finish
