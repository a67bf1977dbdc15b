#!/bin/sh
# A job over three hosts, and what their network does to it: hosts.sh [BUILD FOLDER] [--long].
#
# The hosts are network namespaces with their own host names, joined by tests/hosts/lan.c, which delays, loses, slows down and cuts.
# Whatever it does, the job goes on and ends with the weights, metrics and samples of the same job on one host, or it ends within its
# deadline with a message that names a rank behind the cut, leaves no process on any host, and goes on from its checkpoint.
. "$(dirname "$0")/e2e/lib.sh"
long=
[ "${2:-}" != --long ] || long=1
export OMP_NUM_THREADS=1
lan=$build/tests/hosts/lan
hosts=3 deadline=4

if ! { touch "$work/host0" && unshare --net="$work/host0" --uts true && [ -c /dev/net/tun ]; } 2>"$work/log"; then
	echo "skipped: many hosts: no network namespaces and tunnels can be made here (needs root): $(cat "$work/log")"
	exit 0
fi
umount "$work/host0"

# processes HOST: their ids
processes() {
	space=$(stat -L -c %i "$work/host$1")
	for process in /proc/[0-9]*; do
		[ "$(stat -L -c %i "$process/ns/net" 2>/dev/null)" != "$space" ] || echo "${process#/proc/}"
	done
}

lan_up=
# network OPTIONS...: hosts and the network between them
network() {
	for i in 0 1 2; do
		touch "$work/host$i"
		unshare --net="$work/host$i" true
	done
	rm -f "$work/cable"
	mkfifo "$work/cable"
	"$lan" $hosts "$work/host" "$@" <"$work/cable" >"$work/lan-log" 2>&1 &
	lan_up=$!
	exec 8>"$work/cable"
	for i in $(seq 100); do
		! grep -q ready "$work/lan-log" || return 0
		sleep 0.05
	done
	fail "the network" "is not up" "$work/lan-log"
	finish
}
network_down() {
	[ "$lan_up" ] || return
	for i in 0 1 2; do
		for process in $(processes $i); do
			kill -9 "$process" 2>/dev/null
		done
	done
	exec 8>&-
	wait "$lan_up"
	lan_up=
	umount "$work/host0" "$work/host1" "$work/host2"
}
trap 'network_down; rm -rf "$work"' EXIT

make_data
cat >"$work/tiny.yaml" <<END
method: grpo
model: {path: $base, init: random}
data: {train: $work/letters.jsonl, root: $work/synth, prompt: answer, system: none}
rollout: {group_size: 4, max_tokens: 12, stop: [a, i, o, u, " the", " in"]}
reward: {accuracy: visual-rft, format: 0}
learner: {steps: 8, groups_per_step: 6, micro_batch: 2, lr: 1.0e-3, beta: 0.04}
placement: {rollout: 3, reward: 1, learner: 2}
checkpoint: {every: 2, keep: 0}
run: {seed: 1, samples_per_step: -1, deadline: $deadline}
END

# mpirun's way to another host, in place of ssh: agent [OPTIONS] ADDRESS COMMAND
cat >"$work/agent" <<END
#!/bin/sh
while [ "\${1#-}" != "\$1" ]; do shift; done
host=\$((\${1##*.} - 1))
shift
exec 8>&- nsenter --net=$work/host\$host unshare --uts sh -c "hostname host\$host; exec sh -c \"\\\$0\"" "\$*"
END
chmod +x "$work/agent"
for i in 1 2 3; do
	echo "10.99.0.$i slots=2"
done >"$work/hostfile"

# over_hosts ARGUMENTS...: favor on all hosts, mpirun on host 0; ranks go round: 0 and 3 on host 0, 1 and 4 on host 1, 2 and 5 on host 2
over_hosts() {
	ASAN_OPTIONS=detect_leaks=0 timeout -k 5 "${limit:-200}" nsenter --net="$work/host0" unshare --uts sh -c 'hostname host0; exec "$@"' sh \
		mpirun -n 6 --hostfile "$work/hostfile" --map-by node --bind-to none --mca plm_rsh_agent "$work/agent" \
		--mca btl_tcp_if_include 10.99.0.0/24 --mca oob_tcp_if_include 10.99.0.0/24 \
		--mca oob_tcp_keepalive_time 2 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 3 \
		-x OMP_NUM_THREADS -x OMP_WAIT_POLICY \
		"$favor" "$@" >"$work/log" 2>&1 8>&-
}

# far RUN OPTIONS...: train on all hosts
far() {
	far_run=$work/$1
	shift
	over_hosts train "$work/tiny.yaml" run.dir="$far_run" "$@"
}

# doctor CASE NETWORK PATTERN...: looks at all hosts, with exit code 0 and these lines
doctor() {
	name=$1
	network $2
	shift 2
	limit=100 over_hosts doctor "$work/tiny.yaml" run.dir="$work/far-away" --seconds 3
	code=$?
	network_down
	if [ $code -ne 0 ]; then
		fail "$name" "exit code $code" "$work/log"
		return
	fi
	for pattern in "$@"; do
		grep -Eq "$pattern" "$work/log" || {
			fail "$name" "no line has \"$pattern\"" "$work/log"
			return
		}
	done
	ok "$name: $(grep -E "$1" "$work/log" | head -n 1)"
}

# goes_on CASE NETWORK OPTIONS...: as if nothing were
goes_on() {
	name=$1
	shift
	network "$@"
	rm -rf "$work/far"
	begin=$(date +%s)
	if far far; then
		same_run "$name ($(($(date +%s) - begin)) s)" near far
	else
		fail "$name" "the run failed" "$work/log"
	fi
	network_down
}

# wait_for_steps N
wait_for_steps() {
	tries=0
	while [ "$(cat "$work/far/metrics.jsonl" 2>/dev/null | wc -l)" -lt "$1" ]; do
		tries=$((tries + 1))
		[ $tries -lt 6000 ] || return 1
		sleep 0.01
	done
}

# cut CASE HOST SECONDS: the cable of a host is pulled in step 3, and is back after that time. TCP tries again at intervals that double, so
# that packets may come as long after that as the cable was out: a deadline has to be longer than both.
cut() {
	network
	rm -rf "$work/far"
	far far run.deadline=$((4 * $3)) &
	job=$!
	wait_for_steps 2
	echo "cut $2" >&8
	sleep "$3"
	steps=$(cat "$work/far/metrics.jsonl" | wc -l)
	echo "join $2" >&8
	wait $job
	code=$?
	if [ "$steps" -ge 8 ]; then
		fail "$1" "the run was over before the cable was back"
	elif [ $code -ne 0 ]; then
		fail "$1" "exit code $code" "$work/log"
	else
		same_run "$1" near far
	fi
	network_down
}

# cut_for_good CASE HOST MESSAGE STEPS: the cable of a host is pulled after so many steps, for good; the message is a pattern. Then the job
# goes on from its checkpoint over a sound network.
cut_for_good() {
	network
	rm -rf "$work/far"
	limit=100 far far &
	job=$!
	wait_for_steps "$4"
	echo "cut $2" >&8
	begin=$(date +%s)
	wait $job
	code=$? seconds=$(($(date +%s) - begin))
	# each rank has its own watchdog, wherever mpirun is
	left=all
	while [ "$left" ] && [ $(($(date +%s) - begin)) -lt 90 ]; do
		sleep 1
		left=$(for i in 0 1 2; do processes $i; done)
	done
	gone=$(($(date +%s) - begin))
	said=$(grep -a '^favor: rank' "$work/log")
	if [ $code -eq 0 ] || [ $code -eq 124 ] || [ $seconds -gt 60 ]; then
		fail "$1" "exit code $code after $seconds s" "$work/log"
	elif ! echo "$said" | grep -Eq "$3"; then
		fail "$1" "no message that names a rank behind the cut" "$work/log"
	elif [ "$left" ]; then
		fail "$1" "processes are left after $gone s: $(ps -o pid=,args= $left)" "$work/log"
	else
		network_down
		network
		far far --resume auto || fail "$1" "the resumed run failed" "$work/log"
		same_run "$1: exit code $code after $seconds s, all gone after $gone s: $(echo "$said" | head -n 1)" near far
	fi
	network_down
}

ranks 6 train "$work/tiny.yaml" run.dir="$work/near" || {
	fail "one host" "the run failed" "$work/log"
	finish
}
doctor "doctor, three hosts" "" '^good +pairs +12 pairs between hosts: latency' '^good +pairs +3 pairs inside a host' \
	'^good +binding +host2: 2 ranks' '^good +folder .*all ranks see it' '^good +plan +host1: 2 ranks plan' 'nothing is broken'
doctor "doctor, 10 Mbit/s" rate=10 '^warning +pairs +hosts are connected with [0-2]\.[0-9] MB/s only'
goes_on "three hosts"
goes_on "1% of packets lost" loss=1
cut "a cable out for 3 s" 2 3
cut_for_good "a cable out for good" 2 "no sign of life .* rank [25] \((reward|rollout) on host2" 3
if [ "$long" ]; then
	doctor "doctor, 50 ms delay" delay=50 '^good +pairs +12 pairs between hosts: latency 5[0-9]{4}\.'
	goes_on "50 ms delay" delay=50
	goes_on "10 Mbit/s" rate=10
	goes_on "50 ms delay, 1% loss, 10 Mbit/s" delay=50 loss=1 rate=10
	cut "the leader's cable out for 3 s" 0 3
	cut "a learner's cable out for 3 s" 1 3
	cut_for_good "a learner's cable out for good" 1 "no sign of life .* rank [14] \((learner|rollout) on host1" 3
	cut_for_good "the leader's cable out for good" 0 "no sign of life .* rank [0-9] \(" 3
fi
finish
