# Sourced by the job scripts beside it: runs one command as the job's work, to the end, however often the job has to start again.
#
#   favor_job LAUNCHER... favor train CONFIG ... --resume auto
#
# The launcher is $favor_launch: srun with PMIx, or what FAVOR_LAUNCH says: "mpirun", "/opt/slurm/bin/srun --mpi=pmix". What comes and what is done:
#   the warning before the time limit (#SBATCH --signal=B:USR1@N), or SIGTERM to this script: passed on to all ranks as SIGUSR1. favor
#     gives up the step under way, saves the last finished one and leaves with 75; then the job puts itself back into the queue
#   preemption: Slurm sends the ranks of a step of srun SIGTERM; the same happens. (Under mpirun ranks get no notice: the job goes on from its
#     newest checkpoint.)
#   scancel: the ranks of srun save and leave in the same way, and the job stays cancelled
#   node failure: Slurm starts a job with --requeue again by itself
#   a crash (any other code): once more at once, on the same nodes (srun alone); then back into the queue, $FAVOR_RESTARTS times at most (20). The
#     second step also helps where a node has come back from a loss of power: Slurm's PMIx leaves a socket behind in SlurmdSpoolDir,
#     named after job and step, and the same step can't be started there again
#   srun stays behind when its step is over (srun 22.05 does, now and then, where a step has two kinds of nodes): $FAVOR_SRUN_GRACE seconds later (30)
#     it is killed, which counts as a crash: the second step finds nothing left to train, or goes on
#   bad input (2): the job fails at once, with the message in its output; starting it again would not help
# In the queue again, it goes on by --resume auto. --open-mode=append keeps the output of all starts in one file.

read -r -a favor_launch <<<"${FAVOR_LAUNCH:-srun --mpi=pmix}"
favor_launcher=
favor_warned=

# favor_by_srun LAUNCHER: whether that is srun, by its name or by a path to it
favor_by_srun() {
	[ "${1##*/}" = srun ]
}

favor_pass_on() {
	favor_warned=1
	[ -z "$favor_launcher" ] || kill -USR1 "$favor_launcher" 2>/dev/null
}

# Slurm's word on this job: RUNNING also in the grace time before a time limit or preemption; else it is ending for good.
favor_state() {
	squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T 2>/dev/null | head -n 1
}

# The steps of this job that srun has started and that Slurm still knows, one a line; fails where Slurm does not answer.
favor_steps() {
	favor_listed=$(squeue --noheader --steps --jobs="$SLURM_JOB_ID" --format=%i 2>/dev/null) || return
	grep -v -e '\.batch$' -e '\.extern$' -e '\.interactive$' -e '^$' <<<"$favor_listed"
	return 0
}

# favor_watch SRUN OLD: kills a srun whose step is over and that does not end. OLD: steps from before, which may still be listed. A step is looked
# for soon, so that short ones are seen too, then twice a minute; one that was never seen may still wait for its nodes, so nothing is done.
favor_watch() {
	favor_pause=1 favor_seen= favor_gone= favor_sleep=
	trap '[ -z "$favor_sleep" ] || kill "$favor_sleep"; exit' TERM
	trap '' USR1
	while :; do
		sleep $favor_pause &
		favor_sleep=$!
		wait "$favor_sleep"
		kill -0 "$1" 2>/dev/null || return
		favor_pause=$((favor_pause < 15 ? favor_pause * 2 : 30))
		favor_now_listed=$(favor_steps) || continue
		if grep -qvxF -e "$2" <<<"$favor_now_listed"; then
			favor_seen=1 favor_gone=
		elif [ "$favor_seen" ]; then
			favor_gone=${favor_gone:-$SECONDS} favor_pause=5
			if [ $((SECONDS - favor_gone)) -ge "${FAVOR_SRUN_GRACE:-30}" ]; then
				echo "job $SLURM_JOB_ID: its step is over, srun has not ended $((SECONDS - favor_gone)) s later: killed" >&2
				kill -KILL "$1"
				return
			fi
		fi
	done
}

# favor_launch_once COMMAND...: its code in $favor_code
favor_launch_once() {
	favor_watcher=
	favor_old=$(! favor_by_srun "$1" || favor_steps)
	"$@" &
	favor_launcher=$!
	if favor_by_srun "$1"; then
		favor_watch "$favor_launcher" "$favor_old" &
		favor_watcher=$!
	fi
	[ -z "$favor_warned" ] || kill -USR1 "$favor_launcher" 2>/dev/null # it came before the launcher was there
	while :; do
		wait "$favor_launcher" # ends early, with a code above 128, when a signal is trapped
		favor_code=$?
		kill -0 "$favor_launcher" 2>/dev/null || break
	done
	favor_launcher=
	[ -z "$favor_watcher" ] || kill "$favor_watcher" 2>/dev/null
}

# favor_once_more CODE LAUNCHER: whether a crash is worth a second step of this start. Not under mpirun: it may have been preempted without notice.
favor_once_more() {
	case $1 in
	0 | 2 | 75) return 1 ;;
	esac
	favor_by_srun "$2" && [ -z "$favor_warned" ] && [ "$(favor_state)" = RUNNING ]
}

favor_job() {
	trap favor_pass_on USR1 TERM
	echo "job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_JOB_NODELIST: $*" >&2
	favor_launch_once "$@"
	if favor_once_more "$favor_code" "$1"; then
		echo "job $SLURM_JOB_ID: code $favor_code; once more on the same nodes" >&2
		favor_launch_once "$@"
	fi
	case $favor_code in
	0 | 2) exit $favor_code ;;
	75) ;;
	*)
		if [ "${SLURM_RESTART_COUNT:-0}" -ge "${FAVOR_RESTARTS:-20}" ]; then
			echo "job $SLURM_JOB_ID: code $favor_code, and it was started ${SLURM_RESTART_COUNT:-0} times again: given up" >&2
			exit "$favor_code"
		fi
		;;
	esac
	favor_now=$(favor_state)
	if [ "$favor_now" = RUNNING ]; then
		echo "job $SLURM_JOB_ID: code $favor_code; back into the queue" >&2
		scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this script
	fi
	echo "job $SLURM_JOB_ID: code $favor_code, and the job is ${favor_now:-over}" >&2
	exit "$favor_code"
}
