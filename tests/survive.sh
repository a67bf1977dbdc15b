#!/bin/sh
# Ranks that are lost without the job: survive.sh [BUILD FOLDER] [--long | --random N SEED | --build]. Needs an MPI that goes on after a failure (ULFM):
# Open MPI 5 in FAVOR_ULFM or build-openmpi5, fetched by jobs/install_ulfm.sh if it is not there; builds favor with it in build-ulfm.
#
# Each case lets ranks fail on purpose (FAVOR_FAULT) and compares weights, metrics and samples with those of a run without faults and with
# another MPI, BUILD FOLDER's: to the bit. Ranks that roll out or score cost nothing but a line; a learner or the last rollout rank ends the job,
# and --resume auto goes on. --long: each phase of each such role, killed and stopped, and 100 runs with up to two faults at random. --build: only
# fetches and builds.
. "$(dirname "$0")/e2e/lib.sh"
ulimit -c 0
export OMP_NUM_THREADS=1 FAVOR_START_DEADLINE=10
kind=${2:-} random_runs=4 random_seed=1
[ "$kind" != --long ] || random_runs=100
if [ "$kind" = --random ]; then
	random_runs=$3 random_seed=$4
fi

# One at a time: tests/run.sh lets it be built ahead.
mpi=${FAVOR_ULFM:-$root/build-openmpi5} ulfm=$root/build-ulfm
mkdir -p "$ulfm"
exec 9>"$ulfm/.lock"
flock 9
if ! "$root/jobs/install_ulfm.sh" "$mpi" >"$work/install" 2>&1; then
	echo "skipped: survival: $(tail -n 1 "$work/install")"
	exit 0
fi
mpi=$(cd "$mpi" && pwd)
with_ulfm() {
	PATH="$mpi/bin:$PATH" PKG_CONFIG_PATH="$mpi/lib/pkgconfig" "$@"
}
{ [ -f "$ulfm/build.ninja" ] || with_ulfm meson setup "$ulfm" "$root"; } >"$work/log" 2>&1 &&
	with_ulfm ninja -C "$ulfm" favor >>"$work/log" 2>&1 || {
	fail "favor with Open MPI 5" "can't be built" "$work/log"
	finish
}
exec 9>&-
[ "$kind" != --build ] || exit 0
make_data

limit=150 most=40 # seconds: a run is cut off, a job must have ended
count_ticks
count=7 # ranks: learners 0 (the leader) and 1, reward 2 and 3, rollout 4, 5 and 6
cat >"$work/tiny.yaml" <<END
method: grpo
model: {path: $base, init: random}
data: {train: $work/letters.jsonl, eval: $work/letters.jsonl, root: $work/synth, eval_limit: 12, prompt: answer, system: none}
rollout: {group_size: 4, max_tokens: 12, stop: [a, i, o, u, " the", " in"]}
reward: {accuracy: visual-rft, format: 0}
learner: {steps: 6, groups_per_step: 8, micro_batch: 2, lr: 1.0e-3, beta: 0.04, eval_every: 3}
placement: {rollout: 3, reward: 2, learner: 2}
checkpoint: {every: 1, keep: 2}
run: {seed: 1, samples_per_step: -1, deadline: 3}
END
ranks $count train "$work/tiny.yaml" run.dir="$work/clean" || {
	fail "the run without faults" "failed" "$work/log"
	finish
}

# train RUN OPTIONS...: in $work/RUN, with the MPI that goes on
train() {
	run=$work/$1
	shift
	# of the ordinary MPI's settings those for its own components don't fit
	with_ulfm env -u OMPI_MCA_rmaps_base_oversubscribe OMPI_MCA_btl=self,sm,tcp timeout -k 5 $limit mpirun --with-ft ulfm \
		--oversubscribe -n $count "$ulfm/favor" train "$work/tiny.yaml" run.dir="$run" "$@" >"$work/raw" 2>&1
	train_code=$?
	tr -d '\000' <"$work/raw" >"$work/log" # this mpirun puts NULs between what ranks say
	return $train_code
}

role_of() {
	case $1 in
	0 | 1) echo learner ;;
	2 | 3) echo reward ;;
	*) echo rollout ;;
	esac
}

# Ranks that a fault other than a mere pause has hit, one a line
hit_ranks() {
	sed -n 's/^favor: FAVOR_FAULT: rank \([0-9]*\), .*: \(kill\|stop\|exit\|abort\)$/\1/p' "$work/log" | sort -u
}

lost_line() {
	grep "favor: rank $1 ($(role_of "$1") on .* is lost: .*training goes on with" "$work/log"
}

# check_survived CODE SECONDS RANK...: these ranks were lost, no others, and the job went on; prints what is wrong
check_survived() {
	code=$1 seconds=$2
	shift 2
	for rank; do
		lost_line "$rank" >/dev/null || echo "no line about rank $rank;"
	done
	[ "$(grep -c 'is lost: .*training goes on with' "$work/log")" -eq $# ] || echo "not these ranks alone are lost;"
	[ "$code" -eq 0 ] || echo "exit code $code"
	[ "$seconds" -le $most ] || echo "ended after $seconds s"
	! pgrep -f "run.dir=$work/hit" >/dev/null || echo "processes are left: $(pgrep -f "run.dir=$work/hit" | tr '\n' ' ')"
}

# survives CASE FAULTS RANK...: the job goes on without these ranks
survives() {
	name=$1 faults=$2
	shift 2
	rm -rf "$work/hit"
	begin=$(ticks)
	FAVOR_FAULT=$faults train hit
	code=$?
	seconds=$(($(ticks) - begin))
	wrong=
	for rank; do
		hit_ranks | grep -qx "$rank" || wrong="$wrong the fault of rank $rank did not happen;"
	done
	# of a process that leaves by itself the launcher says the code
	case $faults in *:exit) [ $code -ne 7 ] || code=0 ;; esac
	wrong="$wrong$(check_survived $code $seconds "$@")"
	if [ "$wrong" ]; then
		fail "$name" "$wrong" "$work/log"
	else
		same_run "$name ($(lost_line "$1" | sed 's/.*is lost: //'))" clean hit
	fi
}

# ends CASE FAULTS RANK: the job ends since this rank is lost, says so once, and goes on later
ends() {
	rm -rf "$work/hit"
	begin=$(ticks)
	FAVOR_FAULT=$2 train hit
	code=$?
	seconds=$(($(ticks) - begin))
	said=$(grep "favor: rank [0-9]* (.*) on .*, phase .*rank $3 ($(role_of "$3") on " "$work/log" | sed 's/^.*favor: rank/rank/')
	if [ $code -eq 0 ] || [ $code -eq 124 ] || [ $seconds -gt $most ]; then
		fail "$1" "exit code $code after $seconds s" "$work/log"
	elif [ "$(echo "$said" | grep -c .)" -ne 1 ]; then
		fail "$1" "no message that names rank $3, or several" "$work/log"
	elif sleep 1 && pgrep -f "run.dir=$work/hit" >/dev/null; then
		fail "$1" "processes are left: $(pgrep -f "run.dir=$work/hit" | tr '\n' ' ')" "$work/log"
	elif ! train hit --resume auto; then
		fail "$1" "the resumed run failed" "$work/log"
	else
		same_run "$1 ($said)" clean hit
	fi
}

# ---- faults at random: up to two of the ranks that can be spared, so that one rollout rank is left
draw() { # N: a number in [0, N), into $drawn. The low bits of such a generator are poor.
	random_state=$(((random_state * 1103515245 + 12345) % 2147483648))
	drawn=$((random_state / 65536 % $1))
}
draw_fault() { # into $drawn_fault, of rank $1
	phases="$(phases_of "$1")|wait for all ranks to finish"
	draw "$(echo "$phases" | tr '|' '\n' | wc -l)"
	phase=$(echo "$phases" | tr '|' '\n' | sed -n "$((drawn + 1))p")
	draw 4
	passage=$((drawn + 1))
	draw 6
	step=$drawn
	case $phase in
	"publish weights" | "wait for the"* | "wait for all"*) passage=1 ;;
	evaluation) step=3 passage=1 ;;
	esac
	[ "$phase" != "wait for all ranks to finish" ] || step=6
	draw 4
	[ $drawn -gt 0 ] && action=kill || action=stop
	drawn_fault="$phase@$passage:$1:$step:$action"
}
random() {
	random_state=$random_seed happened=0
	for number in $(seq "$random_runs"); do
		draw 5
		first=$((drawn + 2))
		draw_fault $first
		faults=$drawn_fault
		draw 5
		second=$((drawn + 2))
		if [ $second -ne $first ]; then
			draw_fault $second
			faults=$faults,$drawn_fault
		fi
		rm -rf "$work/hit"
		begin=$(ticks)
		FAVOR_FAULT=$faults train hit
		code=$?
		seconds=$(($(ticks) - begin))
		happened=$((happened + $(hit_ranks | wc -l)))
		# shellcheck disable=SC2046
		wrong=$(check_survived $code $seconds $(hit_ranks))
		if [ "$wrong" ]; then
			fail "random run $number, $faults" "$wrong" "$work/log"
		else
			same_run "random run $number, $faults" clean hit
		fi
	done
	ok "$happened faults in $random_runs runs from seed $random_seed"
}

reward_phases="wait for sampled groups|reward|publish weights|wait for the end of the step|evaluation|wait for all ranks to agree"
rollout_phases="wait for work|encode|rollout|publish weights|wait for the end of the step|wait for the leader's weights|evaluation|wait for all ranks to agree"
phases_of() {
	case $1 in
	2 | 3) echo "$reward_phases" ;;
	*) echo "$rollout_phases" ;;
	esac
}

if [ "$kind" != --random ]; then
	train calm && same_run "no fault, through the leader" clean calm || fail "no fault" "failed" "$work/log"
	survives "a rollout rank is killed" "rollout@3:4:2:kill" 4
	survives "a reward rank is killed" "reward:2:2:kill" 2
	survives "two rollout ranks, one after the other" "wait for the leader's weights:5:1:kill,encode:6:3:kill" 5 6
	survives "all reward ranks" "reward:2:1:kill,wait for sampled groups:3:3:kill" 2 3
	survives "a rollout rank freezes" "rollout:5:3:stop" 5
	ends "the last rollout rank" "rollout:4:1:kill,rollout:5:2:kill,rollout:6:3:kill" 6
	ends "a learner" "forward and backward:1:2:kill" 1
	ends "the leader" "optimizer:0:3:kill" 0
fi
if [ "$kind" = --long ]; then
	survives "a reward rank freezes" "reward:3:3:stop" 3
	survives "both reward ranks at once" "reward:2:2:kill,reward:3:2:kill" 2 3
	survives "a reward and two rollout ranks at once" "reward:2:2:kill,rollout:4:2:kill,rollout:5:2:kill" 2 4 5
	survives "a rollout rank leaves by itself" "rollout:4:2:exit" 4
	survives "a rollout rank crashes" "rollout:4:2:abort" 4
	survives "a rollout rank in the first evaluation" "rollout:4:0:kill" 4
	ends "a learner freezes" "forward and backward:1:2:stop" 1
	ends "a rank before the first step" "open model:4:-1:kill" 4
	for rank in 2 4; do
		{
			phases_of $rank | tr '|' '\n' | sed 's/$/:1/; s/^evaluation:1/evaluation:3/'
			echo "wait for all ranks to finish:6"
		} >"$work/phases"
		while IFS=: read -r phase step; do
			for action in kill stop; do
				survives "$(role_of $rank) rank $rank, $phase, step $step: $action" "$phase:$rank:$step:$action" $rank </dev/null
			done
		done <"$work/phases"
	done
fi
random
finish
