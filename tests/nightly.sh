#!/bin/sh
# The long checks, some hours on two cores, most of it fuzzers and valgrind: every suite at its full length, everything under the sanitizers of gcc and
# of clang, the unit tests under valgrind, each barrier of a kernel removed, the fuzzers. What waits most of its time (ranks that are killed, deadlines)
# goes on beside what computes, in lanes. Last line and exit code as those of tests/run.sh.
. "$(dirname "$0")/e2e/count.sh"

step "packages" jobs/install.sh --tests || {
	over=1
	exit 1
}
compile "gcc" build || {
	over=1
	exit 1
}
suite_seconds=10800 # of any of these

long_suites() {
	script "signals, long" tests/signals.sh build --long
	script "Slurm, long" tests/slurm.sh build --long
	script "survival, long" tests/survive.sh build --long
	script "hosts, long" tests/hosts.sh build --long
	script "load, long" tests/load.sh build --long
	script "elastic, long" tests/elastic.sh build --long
	script "invariants, long" tests/invariants.sh build --long
	script "NCCL, emulated, long" tests/nccl.sh build --long
}

faults_and_mutants() {
	script "faults, long" tests/faults.sh build --long
	script "mutants of the kernels" tests/kernels/mutations.sh build
	# every CUDA thread of the emulation is a thread to ThreadSanitizer: the only one to see most missing barriers
	if compile "gcc with ThreadSanitizer" build-tsan --buildtype=debugoptimized -Dwerror=false -Db_sanitize=thread -Db_lundef=false \
		-Dcuda=disabled; then
		script "kernels without a barrier" env mutant_seconds=1800 tests/kernels/mutations.sh build-tsan --barriers
	fi
}

# everything NAME BUILD: what a sanitizer may find something in
everything() {
	units "unit tests, $1" "$2" -t 10
	script "bad input, $1" tests/bad_input.sh "$2"
	script "files that are made, $1" tests/files_made.sh "$2"
	script "deadlines, $1" tests/deadlines.sh "$2"
	script "doctor, $1" tests/doctor.sh "$2"
	script "invariants, $1" tests/invariants.sh "$2"
	script "signals, $1" tests/signals.sh "$2"
}

sanitizers_and_valgrind() {
	# shellcheck disable=SC2086
	if compile "gcc with sanitizers" $gcc_sanitized; then
		everything "gcc with sanitizers" build-asan
	fi
	# shellcheck disable=SC2086
	if compile "clang with sanitizers" $clang_sanitized; then
		everything "clang with sanitizers" build-clang-asan
	fi
	script "CUDA, by nvcc" tests/cuda_build.sh build --install
	# valgrind knows no AVX-512; under mpirun it would watch Open MPI, so the comm room stays out, and so do shell
	# scripts; HDF5 itself loses memory when a disk is full or a file is damaged
	if compile "gcc for valgrind" build-valgrind --buildtype=debugoptimized -Dmarch=x86-64-v2; then
		units "unit tests under valgrind" build-valgrind -t 100 --no-suite comm --no-suite script --no-suite hdf5-errors \
			--wrap='env OMP_NUM_THREADS=1 valgrind --quiet --fair-sched=yes --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,indirect --trace-children=no'
	fi
}

lane long_suites
lane faults_and_mutants
lane sanitizers_and_valgrind 5
end_lanes

# ten minutes a target, two at a time; what they keep in build-fuzz/corpus makes the next night's start better
script "fuzzers, long" tests/fuzz.sh "${FUZZ_SECONDS:-600}"
over=1
