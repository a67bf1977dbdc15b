#!/bin/sh
# Does the real CUDA backend compile and link, warnings as errors, and does the program open it on a machine without a GPU? cuda_build.sh [BUILD
# FOLDER] [--install | --build]. The program is BUILD FOLDER's, the backend is built in build-cuda. Takes the nvcc of PATH or /usr/local/cuda; with
# --install, jobs/install_cuda.sh's where there is none (some 600 MB). --build: only builds.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
favor=$(cd "${1:-build}" && pwd)/favor || exit 1
how=${2:-} toolkit=
work=$(mktemp -d)
log=$work/log
trap 'rm -rf "$work"' EXIT

fail() {
	echo "FAIL: CUDA: $1"
	tail -n 20 "$log" | sed 's/^/    /'
	exit 1
}

if ! command -v nvcc >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
	if [ ! -x .cuda/toolkit/bin/nvcc ] && [ "$how" != --install ]; then
		echo "skipped: CUDA: there is no nvcc here (jobs/install_cuda.sh gets one)"
		exit 0
	fi
	[ -x .cuda/toolkit/bin/nvcc ] || jobs/install_cuda.sh >"$log" 2>&1 || fail "jobs/install_cuda.sh"
	toolkit=-Dtoolkit=$root/.cuda/toolkit
fi
# shellcheck disable=SC2086
tests/e2e/build.sh -t "cuda_kernels libfavor_cuda.so" build-cuda -Dcuda=enabled $toolkit >"$log" 2>&1 || fail "compile and link"
[ "$how" != --build ] || exit 0
echo "ok: CUDA: nvcc compiles all kernels, and libfavor_cuda.so links"

if [ -e /dev/nvidia0 ]; then
	echo "skipped: CUDA: this machine has a GPU: what is said without one can't be seen"
	exit 0
fi
# the program looks for it beside itself
cp "$favor" build-cuda/libfavor_cuda.so "$work" || exit 1
"$work/favor" doctor >"$log" 2>&1
grep -q "libfavor_cuda.so, CUDA [0-9]" "$log" || fail "favor doctor does not open libfavor_cuda.so"
echo "ok: CUDA: $(grep -o 'libfavor_cuda.so, CUDA [0-9.]*, cuBLASLt [0-9.]*' "$log" | head -n 1) opens without a driver"
"$work/favor" generate --model models/har-tiny --system none --prompt x --max-tokens 1 --device cuda >"$log" 2>&1
code=$?
if [ $code -ne 2 ] || ! grep -q "libcuda.so.1" "$log"; then
	fail "without a driver --device cuda ends with code $code"
fi
echo "ok: CUDA: without a driver: $(grep -m 1 libcuda.so.1 "$log")"
