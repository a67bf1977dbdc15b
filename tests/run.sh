#!/bin/sh
# All tests on a fresh Debian 12: installs what they need, builds, runs them. As root, or as a user with sudo (without, if nothing has
# to be installed). The last line is "N passed, N failed" or "N passed, N failed, N skipped". Longer checks are in tests/nightly.sh.
. "$(dirname "$0")/e2e/count.sh"

step "packages" jobs/install.sh --tests || {
	over=1
	exit 1
}
script "include directions" tests/test_includes.sh
# nothing is run of it, and what clang warns of does not depend on how it optimizes
clang="build-clang --native-file tests/e2e/clang.ini -Doptimization=0"
if compile "gcc" build; then
	build_ahead "tests/survive.sh build --build" "tests/cuda_build.sh build --build" "tests/e2e/build.sh $clang" "tests/fuzz.sh --build" \
		"tests/e2e/build.sh $gcc_sanitized"
	units "unit tests" build
	script "mutants of the kernels" tests/kernels/mutations.sh build --short
	script "bad input" tests/bad_input.sh build
	script "files that are made" tests/files_made.sh build
	script "deadlines" tests/deadlines.sh build
	script "doctor" tests/doctor.sh build
	script "invariants" tests/invariants.sh build
	script "faults" tests/faults.sh build
	script "survival" tests/survive.sh build
	script "signals" tests/signals.sh build
	script "elastic" tests/elastic.sh build
	script "Slurm" tests/slurm.sh build
	script "hosts" tests/hosts.sh build
	script "CUDA, emulated" tests/cuda.sh build
	script "NCCL, emulated" tests/nccl.sh build
	script "load" tests/load.sh build
	script "CUDA, by nvcc" tests/cuda_build.sh build
fi
# shellcheck disable=SC2086
compile "clang" $clang
script "fuzzers, 10 seconds each" tests/fuzz.sh 10
# shellcheck disable=SC2086
if compile "gcc with sanitizers" $gcc_sanitized; then
	# the tests of the CUDA backend and damage to each place of a checkpoint: nightly.sh
	export FAVOR_TEST_STRIDE=4
	units "unit tests with sanitizers" build-asan -t 5 --no-suite cuda
	unset FAVOR_TEST_STRIDE
	script "bad input with sanitizers" tests/bad_input.sh build-asan
fi
over=1
