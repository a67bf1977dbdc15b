# Sourced: a Slurm cluster of one's own on this machine, started in a second and stopped again: munged, slurmctld and a slurmd for each node, with
# configuration, keys, state and ports of their own below one folder. Needs root, since slurmd changes users.
#
#   cluster_up FOLDER NODES     1: this host is the node. More: nodes fnode0, fnode1, ... in network namespaces, each with its own host name
#                               and /dev/shm (two slurmd on one host name break MPI), joined by a bridge; slurmctld is on fnode0
#   on_cluster COMMAND...       runs it where Slurm's commands find the cluster
#   on_node NODE COMMAND...     on that node, as slurmd's jobs do: with its host name (needs more than one node)
#   node_lost N                 the power of fnodeN is gone: its cable first, then all that runs there
#   node_back N                 it is there again
#   controller_restart          slurmctld ends by SIGKILL and starts again from what it had saved
#   cluster_down                stops all that was started, and nothing else; call it in a trap
#
# SLURM_CONF is set for all commands of Slurm that are run here.

cluster=
cluster_hosts=

# cluster_lacks: says why a cluster can't be started here; nothing if it can
cluster_lacks() {
	if [ "$(id -u)" -ne 0 ]; then
		echo "it needs root"
	elif ! command -v slurmctld >/dev/null || ! command -v slurmd >/dev/null; then
		echo "the package slurm-wlm is not there"
	elif ! command -v munged >/dev/null; then
		echo "the package munge is not there"
	elif [ -z "$(ls -A /sys/fs/cgroup 2>/dev/null)" ]; then
		echo "no control groups are mounted in /sys/fs/cgroup, which slurmd wants"
	fi
}

# space NODE: the network namespace of a node, or of the bridge between them. Other clusters may run beside this one.
space() {
	echo "favor-slurm-$$-$1"
}

# hosts_lack: the same for more than one node
hosts_lack() {
	if ! command -v ip >/dev/null || ! command -v nsenter >/dev/null; then
		echo "the package iproute2 is not there"
		return
	fi
	if ! ip netns add "$(space try)" 2>/dev/null; then
		echo "network namespaces can't be made"
	elif ! ip -n "$(space try)" link add br0 type bridge 2>/dev/null || ! ip -n "$(space try)" link add e0 type veth peer name e1 2>/dev/null; then
		echo "bridges can't be made in a network namespace"
	fi
	ip netns del "$(space try)" 2>/dev/null
}

hosts_up() {
	cluster_hosts=$1
	bridge=$(space bridge)
	ip netns add "$bridge" && ip -n "$bridge" link add br0 type bridge && ip -n "$bridge" link set br0 up || return 1
	: >"$cluster/hosts"
	for i in $(seq 0 $(($1 - 1))); do
		host=$(space "fnode$i")
		ip netns add "$host" && ip -n "$host" link set lo up &&
			ip link add e0 netns "$host" type veth peer name "p$i" netns "$bridge" &&
			ip -n "$host" addr add "10.98.0.$((i + 1))/24" dev e0 && ip -n "$host" link set e0 up &&
			ip -n "$bridge" link set "p$i" master br0 && ip -n "$bridge" link set "p$i" up || return 1
		echo "10.98.0.$((i + 1)) fnode$i" >>"$cluster/hosts"
	done
	echo "127.0.0.1 localhost" >>"$cluster/hosts"
}

on_node() {
	on_node_name=$1
	shift
	nsenter --net="/run/netns/$(space "$on_node_name")" unshare --uts --mount sh -c '
		hostname "$1"
		mount -t tmpfs none /dev/shm
		mount --bind "$2/hosts" /etc/hosts
		shift 2
		exec "$@"' sh "$on_node_name" "$cluster" "$@"
}

on_cluster() {
	if [ "$cluster_hosts" ]; then
		nsenter --net="/run/netns/$(space fnode0)" "$@"
	else
		"$@"
	fi
}

# start_slurmd NODE
start_slurmd() {
	mkdir -p "$cluster/spool-$1" "$cluster/tmp-$1"
	if [ "$cluster_hosts" ]; then
		on_node "$1" slurmd -N "$1"
	else
		slurmd -N "$1"
	fi
}

start_controller() { # [-c: forgets what was saved]
	if [ "$cluster_hosts" ]; then
		on_node fnode0 slurmctld "$@"
	else
		slurmctld "$@"
	fi
}

# A requeued job may start again when the credentials of its start before are over (cred_expire), so that is short here.
configure() {
	cat >"$cluster/slurm.conf" <<-END
		ClusterName=favor$$
		SlurmctldHost=$control
		SlurmUser=root
		SlurmdUser=root
		SlurmctldPort=$port
		AuthType=auth/munge
		AuthInfo=socket=$cluster/munge/socket,cred_expire=5
		CredType=cred/munge
		StateSaveLocation=$cluster/state
		SlurmdSpoolDir=$cluster/spool-%n
		TmpFS=$cluster/tmp-%n
		SlurmctldPidFile=$cluster/slurmctld.pid
		SlurmdPidFile=$cluster/slurmd-%n.pid
		SlurmctldLogFile=$cluster/log/slurmctld.log
		SlurmdLogFile=$cluster/log/slurmd-%n.log
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		JobAcctGatherType=jobacct_gather/none
		AccountingStorageType=accounting_storage/none
		MpiDefault=none
		SchedulerType=sched/backfill
		SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0,requeue_delay=1
		SelectType=select/cons_tres
		SelectTypeParameters=CR_Core
		SlurmdParameters=config_overrides
		ReturnToService=2
		PreemptType=preempt/partition_prio
		PreemptMode=REQUEUE
		JobRequeue=1
		KillWait=20
		SlurmdTimeout=10
		SlurmctldTimeout=10
		InactiveLimit=0
		MinJobAge=600
		MailProg=/bin/true
		$lines
		PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=15 OverSubscribe=NO
		PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
	END
	export SLURM_CONF="$cluster/slurm.conf"
}

cluster_up() {
	cluster=$1
	port=$((20000 + $$ % 400 * 20))
	mkdir -p "$cluster/state" "$cluster/log" "$cluster/munge" || return 1
	chmod 755 "$cluster"
	head -c 128 /dev/urandom >"$cluster/munge/key" && chmod 400 "$cluster/munge/key"
	munged --force --key-file="$cluster/munge/key" --socket="$cluster/munge/socket" --pid-file="$cluster/munge/pid" \
		--log-file="$cluster/munge/log" --seed-file="$cluster/munge/seed" || return 1
	if [ "$2" -eq 1 ]; then
		nodes=$(hostname -s)
		control="$nodes(127.0.0.1)"
		lines="NodeName=$nodes NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=4 RealMemory=2000"
	else
		hosts_up "$2" || return 1
		control="fnode0(10.98.0.1)" nodes= lines=
		for i in $(seq 0 $(($2 - 1))); do
			nodes="$nodes fnode$i"
			lines="$lines
NodeName=fnode$i NodeAddr=10.98.0.$((i + 1)) Port=$((port + 2)) CPUs=4 RealMemory=2000"
		done
	fi
	configure
	start_controller -c || return 1
	for node in $nodes; do
		start_slurmd "$node" || return 1
	done
	nodes_ready 20
}

# nodes_ready SECONDS: waits until all nodes are idle
nodes_ready() {
	tries=$(($1 * 5))
	until [ "$(on_cluster sinfo -h -o %t 2>/dev/null | sort -u)" = idle ]; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep 0.2
	done
}

node_lost() {
	ip -n "$(space bridge)" link set "p$1" down
	kill -9 $(ip netns pids "$(space "fnode$1")") 2>/dev/null
}

node_back() {
	ip -n "$(space bridge)" link set "p$1" up
	start_slurmd "fnode$1"
}

controller_restart() {
	kill -9 "$(cat "$cluster/slurmctld.pid")"
	rm "$cluster/slurmctld.pid"
	sleep 2
	start_controller
}

cluster_down() {
	[ "$cluster" ] || return 0
	for signal in TERM KILL; do
		for file in "$cluster"/slurmd-*.pid "$cluster/slurmctld.pid" "$cluster/munge/pid"; do
			daemon=$(cat "$file" 2>/dev/null) && kill -$signal "$daemon" 2>/dev/null # it removes its file when it ends
		done
		tries=0
		while ls "$cluster"/slurmd-*.pid "$cluster/slurmctld.pid" >/dev/null 2>&1 && [ $tries -lt 20 ] && [ $signal = TERM ]; do
			tries=$((tries + 1))
			sleep 0.1
		done
	done
	# what jobs may have left: slurmstepd and its tasks have this cluster's configuration in their environment
	for process in $(grep -lsz "^SLURM_CONF=$cluster/slurm.conf$" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3); do
		[ "$process" = $$ ] || kill -9 "$process" 2>/dev/null
	done
	if [ "$cluster_hosts" ]; then
		for i in $(seq 0 $((cluster_hosts - 1))); do
			ip netns del "$(space "fnode$i")" 2>/dev/null
		done
		ip netns del "$(space bridge)" 2>/dev/null
	fi
	cluster=
	cluster_hosts=
}
