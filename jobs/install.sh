#!/bin/sh
# Installs the Debian 12 packages that favor is built with: jobs/install.sh [--tests]. With --tests also what tests/run.sh and
# tests/nightly.sh need. As root, or through sudo; does nothing where all are there. Called by jobs/quickstart.sh and tests/run.sh.
set -eu

packages="git build-essential meson ninja-build pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libjpeg62-turbo-dev
	libpng-dev libwebp-dev libpcre2-dev libutf8proc-dev libjansson-dev libyaml-dev libcmocka-dev"
# h5py reads checkpoints as others will; pip fetches Open MPI 5 (jobs/install_ulfm.sh); the rest of the Python tools is not needed to run the tests
for_tests="libdnnl-dev clang libclang-rt-14-dev libomp-dev valgrind hdf5-tools python3 python3-h5py python3-pip slurm-wlm munge iproute2 procps"

say() {
	echo "jobs/install.sh: $*" >&2
}

case "${1:-}" in
"") ;;
--tests) packages="$packages $for_tests" ;;
*)
	say "usage: jobs/install.sh [--tests]"
	exit 2
	;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	say "this is no Debian; install what meson.build asks for by hand (in Debian's names:" $packages")"
	exit 1
fi

missing=
for package in $packages; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
	as_root=
elif command -v sudo >/dev/null; then
	as_root=sudo
else
	say "run it as root, or install sudo: these packages are missing:$missing"
	exit 1
fi

say "installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! $as_root apt-get update >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	say "the package lists can't be fetched (is there a network? may you use sudo?)"
	exit 1
fi
if ! $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	say "the packages above can't be installed:$missing"
	exit 1
fi
