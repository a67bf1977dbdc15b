#!/bin/sh
# The job scripts on a real Slurm of three nodes, which this script starts and stops: slurm.sh [BUILD FOLDER] [--long].
#
# Whatever comes between (a signal, the time limit, a job that is worth more, a node that is down or lost, a rank that is killed), the job goes back
# into the queue, starts again without help and ends with the weights, metrics and samples of the run that nothing disturbed. scancel and bad
# input end a job for good. favor doctor looks at two nodes. --long: more of each, with mpirun too. Where no network namespaces can be made, one
# node plays what it can.
export TMPDIR=/var/tmp
. "$(dirname "$0")/e2e/lib.sh"
. "$root/tests/slurm/cluster.sh"
long=
[ "${2:-}" != --long ] || long=1

lacks=$(cluster_lacks)
if [ "$lacks" ]; then
	echo "skipped: Slurm: $lacks"
	exit 0
fi
trap 'cluster_down; rm -rf "$work"' EXIT
chmod 755 "$work"
node_count=3
lacks=$(hosts_lack)
if [ "$lacks" ]; then
	echo "skipped: Slurm on many nodes: $lacks"
	node_count=1
fi
if ! cluster_up "$work/cluster" $node_count; then
	tail -n 5 "$work"/cluster/log/* "$work/cluster/munge/log"
	fail "Slurm starts" "it doesn't"
	finish
fi
ok "Slurm starts: $(on_cluster sinfo -h -p low -o '%D %t' | tr '\n' ' ')"
. "$root/tests/slurm/jobs.sh"

make_data
cat >"$work/tiny.yaml" <<END
method: grpo
model: {path: $base, init: random}
data: {train: $work/letters.jsonl, root: $work/synth, prompt: answer, system: none}
rollout: {group_size: 8, max_tokens: 48, stop: [a, i, o, u, " the", " in"]}
reward: {accuracy: visual-rft, format: 0}
learner: {steps: 60, groups_per_step: 6, micro_batch: 2, lr: 1.0e-3, beta: 0.04}
checkpoint: {every: 5}
run: {seed: 1, samples_per_step: -1, deadline: 10}
END
# where there are no checkpoints in between, what is saved was saved for the signal's sake
unsaved='checkpoint.every=0'

# undisturbed NAME RANKS OPTIONS...: what runs are compared with
undisturbed() {
	undisturbed_name=$1 undisturbed_ranks=$2
	shift 2
	ranks "$undisturbed_ranks" train "$work/tiny.yaml" run.dir="$work/$undisturbed_name" "$@" || fail "$undisturbed_name" "the undisturbed run failed" "$work/log"
}

# run NAME NODES OPTIONS...: a job of four ranks on one or two nodes. $more: options for sbatch
more=
run() {
	run_name=$1 run_nodes=$2
	shift 2
	if [ "$run_nodes" -gt 1 ] && [ $node_count -gt 1 ]; then
		submit "$run_name" --nodes=2 --ntasks-per-node=2 $more -- many-nodes.sbatch "$work/tiny.yaml" run.dir="$work/$run_name" "$@"
	else
		submit "$run_name" $more -- one-node.sbatch "$work/tiny.yaml" run.dir="$work/$run_name" "$@"
	fi
}
stopped_by='stopped by SIG[A-Z0-9]* after step'

undisturbed plain 4

# ---- a warning, a job that is worth more, a node that is set down
run warned 2 $unsaved && interrupted warned "warned" plain "$stopped_by" warn
run preempted 2 $unsaved && interrupted preempted "preempted" plain "$stopped_by" preempt
run down 2 && interrupted down "a node is set down" plain '' node_down

# ---- two kinds of nodes: 8 ranks that learn and roll out, 2 that score
heterogeneous() {
	undisturbed kinds 10 'placement={rollout: 6, reward: 2, learner: 2}' learner.steps=12
	submit heterogeneous -- heterogeneous.sbatch "$work/tiny.yaml" run.dir="$work/heterogeneous" learner.steps=12
	ends heterogeneous || return
	if ! says heterogeneous '10 ranks (rollout 6, reward 2, learner 2)'; then
		fail "two kinds of nodes" "other roles" "$work/heterogeneous.out"
	else
		same_run "two kinds of nodes, $(on_cluster squeue -h -t all -j "$job" -o %N | tr '\n' ' ')" kinds heterogeneous
	fi
}

# ---- srun stays behind when its step is over, as the real one does now and then with two kinds of nodes. It is named by its path.
launcher_hangs() { # NAME EXPECTED SUBMIT-ARGUMENTS...
	hung=$1 expected_run=$2
	shift 2
	mkdir -p "$work/bin"
	cat >"$work/bin/srun" <<-END
		#!/bin/sh
		if ! mkdir "$work/bin/$hung" 2>/dev/null; then
			exec $(command -v srun) "\$@"
		fi
		$(command -v srun) "\$@"
		exec sleep 300
	END
	chmod +x "$work/bin/srun"
	export FAVOR_SRUN_GRACE=4 FAVOR_LAUNCH="$work/bin/srun --mpi=pmix"
	submit "$hung" "$@" run.dir="$work/$hung" learner.steps=12
	unset FAVOR_SRUN_GRACE FAVOR_LAUNCH
	ends "$hung" || return
	if ! says "$hung" 'its step is over, srun has not ended [0-9]* s later: killed' || ! says "$hung" 'code 137; once more on the same nodes'; then
		fail "srun hangs" "not seen, or another end" "$work/$hung.out"
	else
		same_run "srun hangs after its step, $hung" "$expected_run" "$hung"
	fi
}

# ---- the few-shot study: each task is a run of its own
few_shot() {
	# two classes, so that there are records enough of each
	awk '{ sub(/"label": *"[^"]*"/, "\"label\": \"" (NR % 2 ? "a" : "e") "\""); print }' "$work/letters.jsonl" >"$work/two.jsonl"
	for shots in 1 2; do
		undisturbed shots-$shots 4 data.train="$work/two.jsonl" data.shots=$shots data.seed=3 run.seed=3 learner.steps="$1"
	done
	export FAVOR_RUNS="$work" SHOTS="1 2" SEEDS=3
	submit few-shot --array=0-1 -- few-shot.sbatch "$work/tiny.yaml" data.train="$work/two.jsonl" learner.steps="$1"
	unset FAVOR_RUNS SHOTS SEEDS
	expected=2
	if [ "${2:-}" ]; then # one of the tasks goes through the queue again
		expected=3
		wait_for 60 has_steps shots-2-seed-3 3 && signal_all "${job}_1"
	fi
	ends few-shot || return
	if [ "$(starts few-shot)" -ne $expected ]; then
		fail "few-shot study" "$(starts few-shot) starts instead of $expected" "$work/few-shot.out"
	else
		same_run "few-shot study, 1 shot" shots-1 shots-1-seed-3
		same_run "few-shot study, 2 shots" shots-2 shots-2-seed-3
	fi
}

# ---- doctor on two nodes
doctor() {
	on_node fnode0 srun -N2 -n4 --ntasks-per-node=2 --mpi=pmix "$favor" doctor --seconds 2 --dir "$work" >"$work/log" 2>&1
	code=$?
	if [ $code -ne 0 ]; then
		fail "doctor on two nodes" "exit code $code" "$work/log"
		return
	fi
	for pattern in '^good +pairs +4 pairs between hosts: latency' '^good +pairs +2 pairs inside a host' '^good +folder .*all ranks see it' \
		'^good +clocks ' '4 ranks? examined: nothing is broken'; do
		grep -Eq "$pattern" "$work/log" || {
			fail "doctor on two nodes" "no line has \"$pattern\"" "$work/log"
			return
		}
	done
	ok "doctor on two nodes: $(grep -E 'pairs between' "$work/log")"
}

if [ $node_count -gt 1 ]; then
	heterogeneous
	launcher_hangs hung-kinds kinds -- heterogeneous.sbatch "$work/tiny.yaml"
	doctor
fi
undisturbed short 4 learner.steps=12
launcher_hangs hung short -- one-node.sbatch "$work/tiny.yaml"
few_shot 12

# ---- bad input is not tried again
bad_input() {
	run bad 1 learner.lr=fast
	wait_for 60 is "$over" "$job"
	if is FAILED "$job" && says bad 'learner.lr' && [ "$(starts bad)" -eq 1 ]; then
		ok "bad input ends the job"
	else
		fail "bad input" "the job is $(state "$job")" "$work/bad.out"
	fi
}
bad_input

# ---- plain scancel: saved, and cancelled for good
cancelled() { # NODES
	run "cancelled-$1" "$1" $unsaved
	if ! wait_for 60 has_steps "cancelled-$1" 5; then
		fail "cancelled" "no step 5" "$work/cancelled-$1.out"
		return
	fi
	on_cluster scancel "$job"
	wait_for 40 is CANCELLED "$job"
	sleep 1
	if ! is CANCELLED "$job" || [ "$(starts "cancelled-$1")" -ne 1 ]; then
		fail "cancelled" "the job is $(state "$job")" "$work/cancelled-$1.out"
	elif ! says "cancelled-$1" "$stopped_by"; then
		fail "cancelled" "it did not save" "$work/cancelled-$1.out"
	else
		run "cancelled-$1" "$1" $unsaved
		ends_like "cancelled-$1" plain "cancelled on $1 node(s), and submitted again"
	fi
}

# ---- the time limit, as short as Slurm has it; the warning comes up to a minute early. The run takes longer than that, on any machine.
limited() { # NAME [LAUNCHER]
	more='--time=1 --signal=B:USR1@25'
	[ -e "$work/long" ] || undisturbed long 4 learner.steps=$long_steps
	naps=$(for i in $(seq 20 20 480); do printf 'optimizer:0:%d:sleep:3,' "$i"; done)
	export FAVOR_FAULT="${naps%,}"
	patience=300
	run "$1" 2 $unsaved learner.steps=$long_steps && interrupted "$1" "the time limit${2:+, $2}" long 'stopped by SIGUSR1 after step'
	more=
	unset FAVOR_FAULT patience
}
long_steps=500

# ---- nodes that are gone
other_node() {
	interrupted lost "the last node is gone" plain '' lose_last || return
	if on_cluster scontrol show hostnames "$(start_on lost 2)" | grep -qx "$lost"; then
		fail "the last node is gone" "it is said to have started on $(start_on lost 2) again" "$work/lost.out"
	fi
	node_back "${lost#fnode}"
	nodes_ready 30 || fail "the last node is gone" "it does not come back"
}

# ---- Slurm's controller dies under a run, which does not care
without_controller() {
	run controller 2 learner.steps=$long_steps
	# it knows of a job what it has saved, which it does some seconds after a change; it would start a second time what it last saw waiting
	if ! wait_for 60 has_steps controller 6 || ! touch "$work/now" || ! on_cluster scontrol update JobId="$job" Comment=changed ||
		! wait_for 60 [ "$cluster/state/job_state" -nt "$work/now" ]; then
		fail "slurmctld is killed" "no step 6" "$work/controller.out"
	elif has_steps controller $long_steps || ! controller_restart; then
		fail "slurmctld is killed" "too late, or it does not start again"
	else
		ends_like controller long "slurmctld is killed and starts again"
	fi
}

if [ "$long" ]; then
	run whole 1 && ends_like whole plain "one node"
	run two 2 && ends_like two plain "two nodes"
	run signalled 1 $unsaved && interrupted signalled "a signal to all ranks, one node" plain "$stopped_by" signal_all
	for rank in 0 2; do
		run killed-$rank 2 && interrupted killed-$rank "rank $rank is killed" plain '; once more on the same nodes' signal_rank killed-$rank KILL $rank
		run frozen-$rank 2 && interrupted frozen-$rank "rank $rank is stopped" plain "^favor: rank .* rank $rank (" signal_rank frozen-$rank STOP $rank
	done
	cancelled 1
	cancelled 2
	limited limited
	without_controller
fi
if [ "$long" ] && [ $node_count -gt 1 ]; then
	run lost 2 && other_node
	more='--exclude=fnode0'
	run lost-first 2 && interrupted lost-first "the first node is gone, and comes back" plain '' lose_first
	more=
	nodes_ready 30
fi

# ---- mpirun as the launch line: ranks get no notice of preemption and scancel, so checkpoints every few steps are what is there
if [ "$long" ]; then
	export FAVOR_LAUNCH=mpirun
	run mpirun 2 && ends_like mpirun plain "mpirun"
	run mpirun-warned 2 $unsaved && interrupted mpirun-warned "warned, mpirun" plain 'stopped by SIGUSR1 after step' warn
	run mpirun-preempted 2 && interrupted mpirun-preempted "preempted, mpirun" plain '' preempt
	run mpirun-killed 2 && interrupted mpirun-killed "rank 2 is killed, mpirun" plain '' signal_rank mpirun-killed KILL 2
	run mpirun-down 2 && interrupted mpirun-down "a node is set down, mpirun" plain '' node_down
	unset FAVOR_LAUNCH
fi
finish
