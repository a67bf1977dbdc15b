# Sourced: a Slurm cluster of one's own on this machine, started in a second and stopped again: munged, slurmctld and a slurmd for each node, with
# configuration, keys, state and ports of their own below one folder. Needs root, since slurmd changes users.
#
#   cluster_up FOLDER NODES    1: this host is the node. More: hosts fnode0, fnode1, ... in network namespaces, each with its own host name
#                              and /dev/shm (two slurmd on one host name break MPI), joined by a bridge
#   on_cluster COMMAND...      runs it where sbatch and MPI find the cluster: here, or on fnode0
#   cluster_down               stops all that was started, and nothing else; call it in a trap
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

# hosts_lack: the same for more than one node
hosts_lack() {
	if ! command -v ip >/dev/null || ! command -v nsenter >/dev/null; then
		echo "the package iproute2 is not there"
	elif ! ip netns add fnode-try 2>/dev/null; then
		echo "network namespaces can't be made"
	else
		ip netns del fnode-try
	fi
}

hosts_up() {
	cluster_hosts=$1
	ip netns add fnodesw || return 1
	ip -n fnodesw link add br0 type bridge && ip -n fnodesw link set br0 up || return 1
	: >"$cluster/hosts"
	i=0
	while [ $i -lt "$1" ]; do
		ip netns add "fnode$i" && ip -n "fnode$i" link set lo up &&
			ip link add e0 netns "fnode$i" type veth peer name "p$i" netns fnodesw &&
			ip -n "fnode$i" addr add "10.98.0.$((i + 1))/24" dev e0 && ip -n "fnode$i" link set e0 up &&
			ip -n fnodesw link set "p$i" master br0 && ip -n fnodesw link set "p$i" up || return 1
		echo "10.98.0.$((i + 1)) fnode$i" >>"$cluster/hosts"
		i=$((i + 1))
	done
	echo "127.0.0.1 localhost" >>"$cluster/hosts"
}

# in_host HOST COMMAND...
in_host() {
	in_host_name=$1
	shift
	nsenter --net="/run/netns/$in_host_name" unshare --uts --mount sh -c '
		hostname "$1"
		mount -t tmpfs none /dev/shm
		mount --bind "$2/hosts" /etc/hosts
		shift 2
		exec "$@"' sh "$in_host_name" "$cluster" "$@"
}

on_cluster() {
	if [ "$cluster_hosts" ]; then
		in_host fnode0 "$@"
	else
		"$@"
	fi
}

cluster_up() {
	cluster=$1
	nodes=$2
	port=$((20000 + $$ % 400 * 20))
	mkdir -p "$cluster/state" "$cluster/log" "$cluster/munge" || return 1
	chmod 755 "$cluster"
	head -c 128 /dev/urandom >"$cluster/munge/key" && chmod 400 "$cluster/munge/key"
	munged --force --key-file="$cluster/munge/key" --socket="$cluster/munge/socket" --pid-file="$cluster/munge/pid" \
		--log-file="$cluster/munge/log" --seed-file="$cluster/munge/seed" || return 1
	if [ "$nodes" -eq 1 ]; then
		here=$(hostname -s)
		control="$here(127.0.0.1)"
		lines="NodeName=$here NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=${cluster_cpus:-4} RealMemory=2000"
	else
		hosts_up "$nodes" || return 1
		control="fnode0(10.98.0.1)"
		lines=
		i=0
		while [ $i -lt "$nodes" ]; do
			lines="$lines
NodeName=fnode$i NodeAddr=10.98.0.$((i + 1)) Port=$((port + 2)) CPUs=${cluster_cpus:-4} RealMemory=2000"
			i=$((i + 1))
		done
	fi
	cat >"$cluster/slurm.conf" <<-END
		ClusterName=favor$$
		SlurmctldHost=$control
		SlurmUser=root
		SlurmdUser=root
		SlurmctldPort=$port
		AuthType=auth/munge
		AuthInfo=socket=$cluster/munge/socket
		CredType=cred/munge
		StateSaveLocation=$cluster/state
		SlurmdSpoolDir=$cluster/spool-%n
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
		MinJobAge=60
		MailProg=/bin/true
		$lines
		PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=15 OverSubscribe=NO
		PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
	END
	export SLURM_CONF="$cluster/slurm.conf"
	on_cluster slurmctld -c || return 1
	if [ "$nodes" -eq 1 ]; then
		mkdir -p "$cluster/spool-$here"
		slurmd -N "$here" || return 1
	else
		i=0
		while [ $i -lt "$nodes" ]; do
			mkdir -p "$cluster/spool-fnode$i"
			in_host "fnode$i" slurmd -N "fnode$i" || return 1
			i=$((i + 1))
		done
	fi
	tries=0
	until [ "$(on_cluster sinfo -h -o %t 2>/dev/null | sort -u)" = idle ]; do
		tries=$((tries + 1))
		[ $tries -lt 200 ] || return 1
		sleep 0.1
	done
}

cluster_down() {
	[ "$cluster" ] || return 0
	for signal in TERM KILL; do
		for file in "$cluster"/slurmd-*.pid "$cluster/slurmctld.pid" "$cluster/munge/pid"; do
			[ -f "$file" ] && kill -$signal "$(cat "$file")" 2>/dev/null
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
		i=0
		while [ $i -lt "$cluster_hosts" ]; do
			ip netns del "fnode$i" 2>/dev/null
			i=$((i + 1))
		done
		ip netns del fnodesw 2>/dev/null
	fi
	cluster=
	cluster_hosts=
}
