#!/bin/sh
# A rank that hangs ends the job: test_deadline.sh MPIRUN HANG. For each way to hang: the job's exit code is not 0, it
# takes the deadline (2 s) and a few seconds, and there is one message, which names the rank that hangs.
mpirun=$1
hang=$2
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# expect RANKS MODE VICTIM PATTERN: the one message has the pattern
expect() {
	start=$(date +%s)
	timeout -k 3 60 "$mpirun" -n "$1" "$hang" "$2" "$3" >"$log" 2>&1
	code=$?
	seconds=$(($(date +%s) - start))
	lines=$(grep -c '^favor: rank' "$log")
	if [ $code -eq 0 ] || [ $code -ge 124 ] || [ $seconds -gt 15 ] || [ "$lines" -ne 1 ] ||
		! grep -q "^favor: .*$4" "$log"; then
		echo "FAIL: $*: exit code $code after $seconds s, $lines messages:"
		cat "$log"
		failed=1
	else
		echo "ok: $*: exit code $code after $seconds s: $(grep '^favor: rank' "$log")"
	fi
}

ill='last phase decode, step 12, sample 97,'
expect 4 sleep 3 "rank 3 (rollout) on .*, phase decode, step 12, sample 97: nothing moves on this rank.*in pause;"
expect 4 stop 3 "rank 0 (learner).*from rank 3 (rollout on .*$ill"
expect 4 stop 1 "from rank 1 (reward on .*$ill"
expect 4 half 2 "from rank 2 (rollout on .*$ill"
expect 4 sleep 0 "rank 0 (learner) on .*, phase decode, step 12, sample 97: nothing moves on this rank.*in pause;"
expect 4 stop 0 "from rank 0 (learner on .*last phase decode, step 12,"
expect 7 stop 4 "rank 0 (learner).*from rank 4 (rollout on .*$ill"
expect 4 close 2 "phase wait for all ranks to finish.*from rank 2 (rollout on .*$ill"
expect 2 stop 1 "from rank 1 (all roles on .*$ill"
expect 3 deadlock 9 "all ranks only wait"

if ! timeout -k 3 60 "$mpirun" -n 4 "$hang" slow 3 >"$log" 2>&1 || grep -q favor: "$log"; then
	echo "FAIL: a rank that works for longer than the deadline:"
	cat "$log"
	failed=1
else
	echo "ok: a rank that works for longer than the deadline holds nobody up"
fi
exit $failed
