#!/bin/sh
# tests/gpu.sh --bundle DEST: what a machine with a GPU needs to run tests/gpu.sh and bench/gpu.sh, in DEST/run.sh and DEST/bundle.tar.gz.
# Builds into build-gpu with the nvcc of PATH, /usr/local/cuda or jobs/install_cuda.sh's. Refuses to be larger than GPU_BUNDLE_MIB (60).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
[ $# -eq 1 ] || {
	echo "usage: tests/gpu.sh --bundle DEST" >&2
	exit 2
}
most=${GPU_BUNDLE_MIB:-60}
mkdir -p "$1"
dest=$(cd "$1" && pwd)
build=build-gpu

toolkit=
if ! command -v nvcc >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
	[ -x .cuda/toolkit/bin/nvcc ] || {
		echo "gpu.sh: there is no nvcc here: jobs/install_cuda.sh gets one" >&2
		exit 2
	}
	toolkit=-Dtoolkit=$root/.cuda/toolkit
fi
# shellcheck disable=SC2086
[ -f $build/build.ninja ] || meson setup $build -Dcuda=enabled -Dmarch=x86-64-v3 $toolkit >/dev/null
kernels="advance attention attention_backward elementwise emulation head norm optimizer rows sample"
ops="attention elementwise head matmul norm optimizer sample"
programs="favor libfavor_cuda.so tests/kernels/libfavor_cuda_emulated.so tests/kernels/libgpu_kernels.so tests/cuda/test_cuda
tests/cuda/test_steps tests/model/test_model_golden bench/bench_gpu"
for t in $kernels; do
	programs="$programs tests/kernels/gpu_kernel_$t tests/kernels/test_kernel_$t"
done
for t in $ops; do
	programs="$programs tests/backend/test_$t"
done
# shellcheck disable=SC2086
nice ninja -C $build $programs >/dev/null

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' INT TERM
for program in $programs; do
	mkdir -p "$stage/build/$(dirname "$program")"
	cp -L "$build/$program" "$stage/build/$program"
	strip --strip-unneeded "$stage/build/$program"
done
mkdir -p "$stage/tests/e2e" "$stage/models" "$stage/configs" "$stage/bench" "$stage/tools" "$stage/bin" "$stage/lib"
cp tests/gpu.sh "$stage/tests/"
cp tests/e2e/lib.sh tests/e2e/events.py "$stage/tests/e2e/"
cp -r tests/golden "$stage/tests/"
cp -r models/har-tiny "$stage/models/"
cp configs/quickstart.yaml "$stage/configs/"
cp -r bench/gpu.sh bench/peers bench/shapes "$stage/bench/"
cp tools/make_base.py "$stage/tools/"
touch "$stage/bundle"

# ---- Open MPI: mpirun, its daemon, and the plugins that one machine needs
libs=$(dirname "$(ldd $build/favor | sed -n 's/.*libmpi\.so[^ ]* => \([^ ]*\).*/\1/p')")
plugins=$(find "$libs" -path '*openmpi*' -name 'mca_btl_self.so' -printf '%h\n' | head -n 1)
cp -L "$(command -v orterun)" "$stage/bin/mpirun"
cp -L "$(command -v orted)" "$stage/bin/"
within=${plugins#"$(dirname "$(dirname "$libs")")"/} # below the prefix
mkdir -p "$stage/$within" "$stage/share"
for kind in btl_self btl_tcp btl_vader pml_ob1 coll_basic coll_libnbc coll_tuned coll_inter coll_self coll_sm coll_sync \
	allocator_basic allocator_bucket bml_r2 mpool_hugepage rcache_grdma rcache_udreg osc_rdma osc_sm osc_pt2pt topo_basic topo_treematch io_romio321 io_ompio fs_ufs \
	fbtl_posix fcoll_individual fcoll_vulcan fcoll_dynamic_gen2 fcoll_two_phase fcoll_dynamic sharedfp_individual sharedfp_lockedfile sharedfp_sm \
	dfs_app dfs_orted dfs_test errmgr_default_app errmgr_default_hnp errmgr_default_orted errmgr_default_tool ess_env ess_hnp ess_pmi ess_singleton ess_tool \
	filem_raw grpcomm_direct iof_hnp iof_orted iof_tool odls_default odls_pspawn oob_tcp plm_isolated plm_rsh ras_simulator rmaps_mindist rmaps_ppr \
	rmaps_rank_file rmaps_resilient rmaps_round_robin rmaps_seq rml_oob routed_binomial routed_direct routed_radix rtc_hwloc schizo_flux schizo_ompi schizo_orte \
	schizo_slurm state_app state_hnp state_novm state_orted state_tool pmix_ext3x pmix_ext2x pmix_pmix3x pmix_isolated shmem_mmap shmem_posix shmem_sysv reachable_weighted \
	reachable_netlink patcher_overwrite crs_none regx_fwd regx_naive regx_reverse rtc_hwloc memory_patcher; do
	[ ! -e "$plugins/mca_$kind.so" ] || cp -L "$plugins/mca_$kind.so" "$stage/$within/"
done
cp -rL /usr/share/openmpi "$stage/share/"
pmix=$(find "$libs" -path '*pmix*' -name 'mca_gds_hash.so' -printf '%h\n' 2>/dev/null | head -n 1)
if [ "$pmix" ]; then
	pmix_within=${pmix#"$(dirname "$(dirname "$libs")")"/}
	mkdir -p "$stage/$pmix_within"
	cp -L "$pmix"/*.so "$stage/$pmix_within/"
	for folder in /usr/share/pmix2 /usr/share/pmix "$libs/pmix2/share"; do
		[ ! -d "$folder" ] || cp -rL "$folder" "$stage/share/"
	done
fi

# ---- libraries that anything here links to, without glibc's, the driver's and the toolkit's; the compiler's, for machines that have none
find "$stage" -type f \( -name '*.so' -o -path '*/build/*' -o -path '*/bin/*' \) -exec ldd {} + 2>/dev/null |
	sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u >"$stage/links"
if [ "$pmix" ]; then
	ls "$libs"/libpmix.so.2 >>"$stage/links" 2>/dev/null || :
fi
mkdir -p "$stage/lib/compiler"
while IFS= read -r lib; do
	case $(basename "$lib") in
	libc.so* | libm.so* | libdl.so* | libpthread.so* | librt.so* | libresolv.so* | libutil.so* | ld-linux* | libcuda.so* | libcudart.so* | libcublas*) ;;
	libgpu_kernels.so | libfavor_cuda*) ;;
	libstdc++.so* | libgcc_s.so*) cp -L "$lib" "$stage/lib/compiler/" ;;
	*) cp -L "$lib" "$stage/lib/" ;;
	esac
done <"$stage/links"
rm "$stage/links"

cat >"$stage/env.sh" <<'X'
# Sourced with $bundle set: where the bundle's programs find their libraries, Open MPI its plugins.
export PEERS_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" # bench/gpu.sh's peers have the machine's own libraries
LD_LIBRARY_PATH=$bundle/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
/sbin/ldconfig -p 2>/dev/null | grep -q 'libstdc++\.so\.6' || LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$bundle/lib/compiler
export LD_LIBRARY_PATH PATH="$bundle/bin:$PATH"
export OPAL_PREFIX="$bundle" PMIX_INSTALL_PREFIX="$bundle" OMPI_MCA_plm_rsh_agent=/bin/true OMPI_MCA_osc=^ucx,monitoring
export PMIX_MCA_pcompress_base_silence_warning=1
if [ "$(id -u)" -eq 0 ]; then
	export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
X
cat >"$dest/run.sh" <<'X'
#!/bin/sh
# Unpacks the bundle once and runs tests/gpu.sh, or, with "bench" first, bench/gpu.sh, with the other arguments.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bundle=${FAVOR_BUNDLE_FOLDER:-$here/unpacked}
sum=$(cksum <"$here/bundle.tar.gz")
if [ "$(cat "$bundle/sum" 2>/dev/null)" != "$sum" ]; then
	rm -rf "$bundle"
	mkdir -p "$bundle"
	tar -xzf "$here/bundle.tar.gz" -C "$bundle"
	echo "$sum" >"$bundle/sum"
fi
. "$bundle/env.sh"
if [ "${1:-}" = bench ]; then
	shift
	exec sh "$bundle/bench/gpu.sh" "$@"
fi
exec sh "$bundle/tests/gpu.sh" "$@"
X
chmod +x "$dest/run.sh"
tar -C "$stage" -c --owner=0 --group=0 . | gzip -9 >"$dest/bundle.tar.gz"
bytes=$(wc -c <"$dest/bundle.tar.gz")
if [ "$bytes" -gt $((most << 20)) ]; then
	echo "gpu.sh: the bundle has $((bytes >> 20)) MiB, more than $most (GPU_BUNDLE_MIB)" >&2
	exit 1
fi
echo "$dest/run.sh and bundle.tar.gz: $(((bytes + 1048575) >> 20)) MiB, $(du -sm "$stage" | cut -f 1) MiB unpacked"
