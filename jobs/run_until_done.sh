#!/bin/sh
# Runs a training until it is done, whatever ends it in between: jobs/run_until_done.sh mpirun -n 4 build/favor train CONFIG.yaml [key=value ...]
# (--resume auto is added). For machines without a scheduler; jobs/slurm/ has the job scripts.
#
#   0    done
#   2    bad input or usage: ends at once, since it would fail again
#   75   stopped by a signal that came from elsewhere, and saved: goes on
#   else a crash (a rank was killed, a host is gone, a deadline passed): goes on from the newest checkpoint after a pause that doubles from
#        FAVOR_PAUSE (1) to 60 seconds; after FAVOR_TRIES (10) starts in a row that came no step further it ends with that code
#
# SIGTERM, SIGUSR1 and Ctrl-C to this script stop the run for good: it saves, and the script ends with 75.
set -u
. "$(dirname "$0")/mpi-env.sh"
if [ $# -eq 0 ]; then
	echo "usage: jobs/run_until_done.sh mpirun -n 4 build/favor train CONFIG.yaml [key=value ...]" >&2
	exit 2
fi
most=${FAVOR_TRIES:-10} first_pause=${FAVOR_PAUSE:-1}
pause=$first_pause tries=0 stopped= child=
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkfifo "$work/messages"

# mpirun passes SIGUSR1 on to its ranks; of SIGTERM it would end them at once
stop() {
	stopped=1
	[ -z "$child" ] || kill -USR1 "$child" 2>/dev/null
}
trap stop TERM INT USR1

say() {
	echo "jobs/run_until_done.sh: $*" >&2
}

while :; do
	tee "$work/log" <"$work/messages" >&2 &
	# in a session of its own: Ctrl-C reaches this script alone, which passes it on
	setsid "$@" --resume auto 2>"$work/messages" &
	child=$!
	while :; do
		wait $child # ends early when a signal is trapped
		code=$?
		kill -0 $child 2>/dev/null || break
	done
	child=
	wait
	case $code in
	0 | 2) exit $code ;;
	esac
	if [ "$stopped" ]; then
		say "stopped; the same command goes on"
		exit 75
	fi
	if grep -q '^favor: wrote ' "$work/log"; then # it came further
		tries=0 pause=$first_pause
	fi
	tries=$((tries + 1))
	if [ $tries -ge "$most" ]; then
		say "code $code; $tries starts in a row have written no checkpoint: given up"
		exit $code
	fi
	[ $code -ne 75 ] || continue
	say "code $code; starting again in $pause s"
	sleep "$pause" &
	wait $!
	[ -z "$stopped" ] || exit 75
	pause=$((2 * pause < 60 ? 2 * pause : 60))
done
