# Sourced by tests/slurm.sh, after tests/e2e/lib.sh and cluster.sh: jobs of the cluster, and what happens to them. A job is called like its run: NAME
# writes to $work/NAME and says what it says in $work/NAME.out.

# job scripts run in favor's folder with build/favor; this build may be another one
home=$work/home
mkdir -p "$home/build"
ln -s "$root/jobs" "$home/jobs"
ln -s "$favor" "$home/build/favor"
export FAVOR_HOME="$home" OMP_NUM_THREADS=1

# submit NAME [SBATCH-OPTION...] -- SCRIPT ARGUMENTS...: the job's id in $job
submit() {
	submit_name=$1
	shift
	submit_options=
	while [ "$1" != -- ]; do
		submit_options="$submit_options $1"
		shift
	done
	script=$2
	shift 2
	# shellcheck disable=SC2086
	job=$(cd "$home" && on_cluster sbatch --parsable --output="$work/$submit_name.out" --job-name="$submit_name" $submit_options "jobs/slurm/$script" "$@") || {
		fail "$submit_name" "sbatch refuses it"
		return 1
	}
	job=${job%%;*}
}

# state JOB: one line for each task of an array
state() {
	on_cluster squeue -h -j "$1" -o %T -t all 2>/dev/null
}

# is STATES JOB: all its tasks are in one of these
is() {
	is_now=$(state "$2")
	[ "$is_now" ] && ! echo "$is_now" | grep -qvE "^($1)$"
}

# wait_for SECONDS COMMAND...: until it succeeds
wait_for() {
	tries=$(($1 * 5))
	shift
	until "$@"; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep 0.2
	done
}

# has_steps NAME N
has_steps() {
	[ "$(cat "$work/$1/metrics.jsonl" 2>/dev/null | wc -l)" -ge "$2" ]
}

# says NAME PATTERN
says() {
	grep -q "$2" "$work/$1.out"
}

over='COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL|PREEMPTED|OUT_OF_MEMORY|BOOT_FAIL|DEADLINE'

# ends NAME: the job comes to its end, and that is a good one
ends() {
	if ! wait_for "${patience:-120}" is "$over" "$job"; then
		fail "$1" "the job doesn't end: $(state "$job" | tr '\n' ' ')" "$work/$1.out"
		on_cluster scancel "$job"
		return 1
	elif ! is COMPLETED "$job"; then
		fail "$1" "the job is $(state "$job" | tr '\n' ' ')" "$work/$1.out"
		return 1
	fi
}

# starts NAME: how often the job has been started; what node lists it had then
starts() {
	grep -c '^job [0-9]*, start [0-9]* on ' "$work/$1.out"
}
start_on() { # NAME START
	sed -n "s/^job [0-9]*, start $2 on \([^:]*\): .*/\1/p" "$work/$1.out"
}

# ends_like NAME EXPECTED [WHAT]: the job comes to its end, and so does the run
ends_like() {
	! ends "$1" || same_run "${3:-$1} ($(starts "$1") start$([ "$(starts "$1")" = 1 ] || echo s))" "$2" "$1"
}

# interrupted NAME WHAT EXPECTED PATTERN COMMAND...: the run is under way, COMMAND happens to it, and without any further help it starts again and ends
# like $work/EXPECTED. PATTERN: what the job's output says before it does, if anything.
interrupted() {
	case_name=$1 what=$2 expected_run=$3 pattern=$4
	shift 4
	if ! wait_for 90 has_steps "$case_name" 6; then
		fail "$what" "no step 6" "$work/$case_name.out"
	elif ! "$@"; then
		fail "$what" "it could not be done: $*"
	elif ! wait_for 120 says "$case_name" ', start 2 on \|; once more on the same nodes'; then
		fail "$what" "not started again: $(state "$job")" "$work/$case_name.out"
	elif ! wait_for 60 says "$case_name" 'resumed from .* after step'; then
		fail "$what" "it began anew" "$work/$case_name.out"
	elif [ "$pattern" ] && ! says "$case_name" "$pattern"; then
		fail "$what" "its output has no \"$pattern\"" "$work/$case_name.out"
	else
		ends_like "$case_name" "$expected_run" "$what"
		return
	fi
	on_cluster scancel "$job"
	wait_for 60 is "$over" "$job"
	return 1
}

# ---- what happens to jobs, for `interrupted`

nodes_of_job() {
	on_cluster scontrol show hostnames "$(on_cluster squeue -h -j "$job" -o %N)"
}

# the warning before a time limit, as #SBATCH --signal=B:USR1 has it: to the job's script
warn() {
	on_cluster scancel --batch --signal=USR1 "$job"
}
signal_all() {
	on_cluster scancel --signal=TERM "${1:-$job}"
}

# a job that is worth more takes all nodes for a moment
preempt() {
	greater=$(on_cluster sbatch --parsable --partition=high --nodes="$node_count" --exclusive --time=1 --output=/dev/null --wrap 'sleep 1') &&
		wait_for 90 is COMPLETED "$greater"
}

# the administrator sets the last of the job's nodes down, and up again (if its slurmd's word has not done so already)
node_down() {
	down=$(nodes_of_job | tail -n 1)
	on_cluster scontrol update NodeName="$down" State=DOWN Reason=test && wait_for 30 is PENDING "$job" || return 1
	on_cluster scontrol update NodeName="$down" State=RESUME 2>/dev/null
	return 0
}

# the last of the job's nodes is gone; there is another one
lose_last() {
	lost=$(nodes_of_job | tail -n 1)
	node_lost "${lost#fnode}"
}

# the node that the job's script runs on is gone, and comes back when the job has lost it
lose_first() {
	lost=$(nodes_of_job | head -n 1)
	node_lost "${lost#fnode}" && wait_for 60 is PENDING "$job" && node_back "${lost#fnode}"
}

# signal_rank NAME SIGNAL N
signal_rank() {
	for process in $(pgrep -f "run.dir=$work/$1( |\$)"); do
		if [ "$(readlink "/proc/$process/exe")" = "$(readlink -f "$favor")" ] && tr '\0' '\n' <"/proc/$process/environ" | grep -qx "PMIX_RANK=$3"; then
			kill -"$2" "$process"
			return
		fi
	done
	return 1
}
