#!/bin/sh
# With and without a launcher: test_launch.sh TEST_WORLD. In a Slurm batch script a program without srun is alone; tasks
# of srun without an MPI plugin are refused.
world=$1
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if ! SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_NPROCS=4 "$world" auto >"$log" 2>&1; then
	echo "FAIL: in a batch script:"
	cat "$log"
	failed=1
fi
if ! SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 "$world" auto >"$log" 2>&1; then
	echo "FAIL: srun of one task without MPI:"
	cat "$log"
	failed=1
fi
if SLURM_JOB_ID=7 SLURM_PROCID=1 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 "$world" auto >"$log" 2>&1 ||
	! grep -q '^favor: .*srun has started 4 tasks without MPI' "$log"; then
	echo "FAIL: srun of several tasks without MPI:"
	cat "$log"
	failed=1
fi
exit $failed
