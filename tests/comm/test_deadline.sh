#!/bin/sh
# A rank that hangs ends the job: test_deadline.sh MPIRUN HANG. For each way to hang: the job's exit code is not 0, it
# takes the deadline (2 s) and a few seconds, and there is one message, which names the rank that hangs. Jobs mostly wait: five at a time.
mpirun=$1
hang=$2
failed=0 number=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# begin RANKS MODE VICTIM: in the background, into $work/NUMBER.log and .result: "CODE SECONDS"
begin() {
	start=$(date +%s)
	timeout -k 3 60 "$mpirun" -n "$1" "$hang" "$2" "$3" >"$work/$number.log" 2>&1
	echo "$? $(($(date +%s) - start))" >"$work/$number.result"
}

# judge NUMBER CASE PATTERN: there is one message, and it has the pattern. A busy mpirun of Open MPI 4.1 says now and then that it can't read what MPI_Abort
# sends it, and may then not end the job: the next rank that speaks does, so one more message counts for each such line.
judge() {
	log=$work/$1.log
	read -r code seconds <"$work/$1.result"
	lines=$(grep -c '^favor: rank' "$log")
	unread=$(grep -c 'ORTE_ERROR_LOG: .*show_help' "$log")
	if [ "$code" -eq 0 ] || [ "$code" -ge 124 ] || [ "$seconds" -gt 15 ] || [ "$lines" -lt 1 ] || [ "$lines" -gt $((1 + unread)) ] ||
		! grep -m 1 '^favor: rank' "$log" | grep -q "^favor: .*$3"; then
		echo "FAIL: $2: exit code $code after $seconds s, $lines messages:"
		cat "$log"
		failed=1
	else
		echo "ok: $2: exit code $code after $seconds s: $(grep -m 1 '^favor: rank' "$log")"
	fi
}

# ranks | mode | victim | what the message says
ill='last phase decode, step 12, sample 97,'
cat >"$work/cases" <<END
4 sleep 3 rank 3 (rollout) on .*, phase decode, step 12, sample 97: nothing moves on this rank.*in pause;
4 stop 3 rank 0 (learner).*from rank 3 (rollout on .*$ill
4 stop 1 from rank 1 (reward on .*$ill
4 half 2 from rank 2 (rollout on .*$ill
4 sleep 0 rank 0 (learner) on .*, phase decode, step 12, sample 97: nothing moves on this rank.*in pause;
4 stop 0 from rank 0 (learner on .*last phase decode, step 12,
7 stop 4 rank 0 (learner).*from rank 4 (rollout on .*$ill
4 close 2 phase wait for all ranks to finish.*from rank 2 (rollout on .*$ill
2 stop 1 from rank 1 (all roles on .*$ill
3 deadlock 9 all ranks only wait
END
while read -r count mode victim pattern; do
	number=$((number + 1))
	begin "$count" "$mode" "$victim" </dev/null &
	[ $((number % 5)) -ne 0 ] || wait
done <"$work/cases"
wait
number=0
while read -r count mode victim pattern; do
	number=$((number + 1))
	judge $number "$count $mode $victim" "$pattern"
done <"$work/cases"

if ! timeout -k 3 60 "$mpirun" -n 4 "$hang" slow 3 >"$work/log" 2>&1 || grep -q favor: "$work/log"; then
	echo "FAIL: a rank that works for longer than the deadline:"
	cat "$work/log"
	failed=1
else
	echo "ok: a rank that works for longer than the deadline holds nobody up"
fi
exit $failed
