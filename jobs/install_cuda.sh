#!/bin/sh
# What the CUDA backend is built with and runs with: nvcc, the CUDA runtime and cuBLAS, from the Python package index's wheels of
# NVIDIA, laid out as one toolkit: jobs/install_cuda.sh [DIR] (default: .cuda here). No root is needed, nothing outside DIR is touched, and
# a toolkit that is there already (/usr/local/cuda, or Debian's) does as well: then this script is not needed. The GPU's driver is the
# system's matter: driver 580 or newer.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:-$here/.cuda}"
dir=$(cd "${1:-$here/.cuda}" && pwd)
wheels="nvidia-cuda-nvcc==13.0.* nvidia-cuda-crt==13.0.* nvidia-nvvm==13.0.* nvidia-cuda-cccl==13.0.* nvidia-cuda-runtime==13.0.* nvidia-cublas==13.1.*"

say() {
	echo "jobs/install_cuda.sh: $*" >&2
}

if [ "$(uname -m)" != x86_64 ]; then
	say "these wheels are asked for on x86_64; on other machines install NVIDIA's toolkit and pass -Dtoolkit="
	exit 1
fi
if [ ! -x "$dir/python/bin/pip" ]; then
	# a virtual environment of its own: Debian's python lets nobody install beside its packages
	python3 -m venv "$dir/python" || {
		say "python3 -m venv failed; on Debian: apt-get install python3-venv"
		exit 1
	}
fi
say "installing $wheels"
"$dir/python/bin/pip" install --quiet --disable-pip-version-check $wheels
root=$(echo "$dir"/python/lib/python3*/site-packages/nvidia/cu13)
if [ ! -x "$root/bin/nvcc" ]; then
	say "the wheels have no nvcc in $root/bin: their layout has changed"
	exit 1
fi
# wheels carry libraries by their versions alone, and in lib
[ -e "$root/lib64" ] || ln -s lib "$root/lib64"
for library in cudart cublasLt; do
	[ -e "$root/lib/lib$library.so" ] || ln -s "lib$library.so.13" "$root/lib/lib$library.so"
done
rm -f "$dir/toolkit"
ln -s "$root" "$dir/toolkit"
"$dir/toolkit/bin/nvcc" --version >/dev/null || {
	say "$dir/toolkit/bin/nvcc doesn't run"
	exit 1
}
say "done; now: meson setup build -Dcuda=enabled -Dtoolkit=$dir/toolkit && ninja -C build"
