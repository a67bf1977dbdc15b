#!/bin/sh
# Do the kernels' tests see mistakes? Each mutant is one of kernels/ with one mistake planted; it is compiled and linked as the build folder
# compiles and links the tests (so a build with sanitizers has its mutants sanitized), and a test that passes with it is a failure.
#
#   mutations.sh [BUILD]             every mistake of the list
#   mutations.sh [BUILD] --short     a few of them; of all others, that they can still be planted
#   mutations.sh BUILD --only TEXT   those whose name or file has the text in it
#   mutations.sh BUILD --barriers    every __syncthreads() removed, one at a time; BUILD is one of -Db_sanitize=thread, for most
#                                    missing barriers only show there
# The tests must be built: ninja -C BUILD. A mutant that is no mistake (it computes the same) does not belong here.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${1:-$root/build}" && pwd) || exit 1
mode=${2:-all} only=${3:-}
case $mode in
all | --short | --barriers | --only) ;;
*)
	echo "FAIL: $mode is no way to run this"
	exit 2
	;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
failures=0 done_short=0
[ -x "$build/tests/kernels/test_kernel_attention" ] || {
	echo "skipped: mutants of the kernels: $build has no tests of kernels (no C++ compiler, or not built)"
	exit 0
}
export CMOCKA_TEST_ABORT=1 TSAN_OPTIONS="halt_on_error=1 ${TSAN_OPTIONS:-}" ASAN_OPTIONS="detect_leaks=0 ${ASAN_OPTIONS:-}"

fail() {
	echo "FAIL: $1: $2"
	failures=$((failures + 1))
}

# command_for TARGET: how ninja makes it
command_for() {
	ninja -C "$build" -t commands "$1" | tail -n 1
}

# sources FILE: the kernels that have it in them
sources() {
	case $1 in
	*.cu) echo "${1%.cu}" ;;
	attention.cuh) echo attention attention_backward attention_decode attention_plan ;;
	attention_mma.cuh) echo attention attention_backward attention_decode ;;
	attention_forward.cuh) echo attention attention_decode ;;
	attention_backward.cuh) echo attention_backward ;;
	elementwise.cuh) echo elementwise rope ;;
	column_sum.cuh) echo norm reduce ;;
	softmax_row.cuh) echo sample ;;
	device.cuh) echo norm ;;
	*) echo "no kernel has $1" >&2 ;;
	esac
}

# The link is by hand only as far as the mutant's objects stand in for the build's.
# try NAME FILE TEST: the mutated FILE is in $work/kernels
try() {
	try_link=$(command_for "tests/kernels/test_kernel_$3")
	for source in $(sources "$2"); do
		compile=$(command_for "tests/kernels/$source.o" |
			sed "s| [^ ]*/kernels/$source\.cu | $work/kernels/$source.cu |; s| tests/kernels/$source\.[do]| $work/$source.o|g")
		compile=$(echo "$compile" | sed "s| -MF $work/$source\.o| -MF $work/$source.d|; s|-Werror||")
		if ! (cd "$build" && eval "$compile") >"$work/log" 2>&1; then
			fail "$1" "does not compile"
			head -n 5 "$work/log" | sed 's/^/    /'
			return
		fi
		try_link=$(echo "$try_link" | sed "s| tests/kernels/$source\.o | $work/$source.o |")
	done
	try_link=$(echo "$try_link" | sed "s| -o tests/kernels/test_kernel_$3 | -o $work/mutant |")
	if ! (cd "$build" && eval "$try_link") >"$work/log" 2>&1; then
		fail "$1" "does not link"
		head -n 5 "$work/log" | sed 's/^/    /'
		return
	fi
	timeout -k 5 "${mutant_seconds:-600}" "$work/mutant" >"$work/log" 2>&1
	case $? in
	0) fail "$1" "test_kernel_$3 passes with it" ;;
	*) echo "ok: $1: test_kernel_$3 says $(reason)" ;;
	esac
}

# What ended the mutant, in short.
reason() {
	grep -aom 1 -E 'data race|heap-buffer-overflow|runtime error|emulation: .*: |is [-0-9.naif]+, (not exactly|expected)|other bits|was written|invalid argument' \
		"$work/log" || tail -n 1 "$work/log" | cut -c 1-60
}

plant() { # FILE SED...: into $work/kernels; fails if nothing changed
	rm -rf "$work/kernels"
	cp -r "$root/kernels" "$work/kernels"
	plant_file=$1
	shift
	sed "$@" "$root/kernels/$plant_file" >"$work/kernels/$plant_file"
	! cmp -s "$root/kernels/$plant_file" "$work/kernels/$plant_file"
}

# mutant [-s] NAME FILE TEST SED: -s: one of the few of --short
mutant() {
	short=
	if [ "$1" = -s ]; then
		short=1
		shift
	fi
	if ! plant "$2" -E "$4"; then
		fail "$1" "can no longer be planted in kernels/$2"
	elif [ "$mode" = --only ]; then
		case "$1 $2" in *"$only"*) try "$1" "$2" "$3" ;; esac
	elif [ "$mode" = all ] || [ "$short" ]; then
		try "$1" "$2" "$3"
	else
		done_short=$((done_short + 1))
	fi
}

# barriers FILE TEST: each of its __syncthreads() removed
barriers() {
	total=$(grep -c '__syncthreads();' "$root/kernels/$1")
	nth=1
	while [ "$nth" -le "$total" ]; do
		line=$(grep -n '__syncthreads();' "$root/kernels/$1" | sed -n "${nth}s/:.*//p")
		name="kernels/$1 without barrier $nth of $total (line $line)"
		if plant "$1" "${line}s/__syncthreads();/;/"; then
			try "$name" "$1" "$2"
		else
			fail "$name" "can not be planted"
		fi
		nth=$((nth + 1))
	done
}

if [ "$mode" = --barriers ]; then
	grep -q 'fsanitize=thread' "$build/build.ninja" || {
		echo "FAIL: barriers: $build is no build of -Db_sanitize=thread"
		exit 1
	}
	barriers attention_forward.cuh attention
	barriers attention_backward.cuh attention_backward
	barriers device.cuh norm
	barriers norm.cu norm
	barriers column_sum.cuh norm
	barriers reduce.cu optimizer
	barriers rows.cu rows
	barriers sample.cu sample
	barriers softmax_row.cuh sample
	[ $failures -eq 0 ]
	exit
fi

# ---- masks and ends
mutant -s "a row sees one key more" attention_forward.cuh attention 's/>= sees\[i \/ 2\]/> sees[i \/ 2]/'
mutant "a causal query does not see itself" attention.cuh attention 's/i \+ s\.kv_len - s\.q_len \+ 1/i + s.kv_len - s.q_len/'
mutant "causality is forgotten" attention.cuh attention 's/return s\.causal \?.*/return s.kv_len;/'
mutant "keys beyond a stretch are copied" attention_mma.cuh attention 's/r < keys \? first/r <= keys ? first/'
mutant "rows beyond a tile are written" attention.cu attention 's/if \(r < rows && column < depth\)/if (column < depth)/'
mutant "columns beyond a head are written" attention.cu attention 's/if \(r < rows && column < depth\)/if (r < rows)/'
mutant "a plain row sees all keys of a block" attention_forward.cuh attention 's/key < seen\(block, r\) \? s : -INFINITY/s/'
mutant "a key's gradient misses causality" attention_backward.cuh attention_backward 's/return item\.own \? min.*/return tile.keys;/'
mutant "a tile's first key is forgotten in the mask of gradients" attention_backward.cuh attention_backward 's/own_keys\(segment, query\) - \(tile\.key - segment\.kv_start\)/own_keys(segment, query)/'
mutant "a query's gradient sees one key more" attention_backward.cuh attention_backward 's/column \+ i % 2 < sees\[i \/ 2\]/column + i % 2 <= sees[i \/ 2]/'
mutant "the first query that sees a key is left out" attention_plan.cu attention_backward 's/- \(s\.kv_len - s\.q_len\);/- (s.kv_len - s.q_len) + 1;/'
mutant "a tile of keys runs into its neighbour" attention_plan.cu attention_backward 's/int32_t keys = cuts\[c \+ 1\] - key < TILE \?.*/int32_t keys = TILE;/'
mutant "half of the rows' gradients" attention_backward.cuh attention_backward 's/from < rows; from \+= HALF/from < rows; from += TILE/'
mutant "norm's tail is not checked" norm.cu norm 's/squares \+= WIDE \|\| i < cols - k \?/squares += true ?/'
mutant "an elementwise tail is not checked" elementwise.cuh elementwise 's/left < ELEMENTS \? \(int\)left : ELEMENTS/ELEMENTS/'
mutant "entries of equal rows counted from the wrong lane" rows.cu rows 's/__popc\(lanes & \(\(1u << lane\) - 1\)\)/__popc(lanes)/'

# ---- indices and strides
mutant -s "values by the keys' stride" attention_forward.cuh attention 's/copy_block\(v, in\.v, in\.v_stride/copy_block(v, in.v, in.k_stride/'
mutant "a fragment's half is taken from the wrong lane" attention_mma.cuh attention 's/step \* 16 \+ lane \/ 16 \* 8\);/step * 16 + lane \/ 8 % 2 * 8);/'
mutant "values of the wrong half" attention_mma.cuh attention 's/\+ n \* 16 \+ lane \/ 16 \* 8\)/+ n * 16 + lane \/ 8 % 2 * 8)/'
mutant "a row's head is not counted from its query" attention.cuh attention 's/return head \+ row - steps\(row\) \* group;/return (head + row) % (group + 1);/'
mutant "partial sums of own keys over those of the prefix" attention_decode.cu attention 's/item\.chunk \+ \(item\.own \? chunks_of\(segment\.prefix_len\) : 0\)/item.chunk/'
mutant "scratch of gradients shared by key heads" attention_backward.cuh attention_backward 's/\(item \* kv_heads \+ kv_head\) \* 2/(item * kv_heads) * 2/'
mutant "dout by the stride of q" attention_backward.cuh attention_backward 's/copy_rows\(dout, b\.dout, b\.dout_stride\)/copy_rows(dout, b.dout, in.q_stride)/'
mutant "norm's sums of dbias over those of dweight" norm.cu norm 's/own_bias = own_weight \+ \(int64_t\)blockDim\.y \* cols/own_bias = own_weight + cols/'
mutant "rotation by the neighbour's angle" rope.cu elementwise 's/rotate\(a, b, c\[pair\], s\[pair\]\)/rotate(a, b, c[pair], s[pair ? pair - 1 : 0])/'

# ---- order, waits and sums
mutant -s "chunks end late" attention.cuh attention 's/== CHUNK_BLOCKS - 1/== CHUNK_BLOCKS/'
mutant -s "a part's pieces go beyond it" reduce.cu optimizer 's/end = min\(last, begin \+ length\)/end = begin + length/'
mutant "pieces of another part" reduce.cu optimizer 's/partials\[blockIdx\.x \* KERNEL_SQUARES_PIECES \+ i\]/partials[i]/'
mutant "pieces beyond a warp's threads are left out" reduce.cu optimizer 's/i < pieces; i \+= 32/i < pieces \&\& i < 32; i += 32/'
mutant "the longest part decides how all are cut" reduce.cu optimizer 's/length = piece_length\(last - first\);/length = piece_length(bounds[gridDim.y] - bounds[gridDim.y - 1]);/'
mutant "unaligned parts are read as if aligned" reduce.cu optimizer 's/const bool wide = .*;/const bool wide = true;/'
mutant "factors of a merge swapped" attention.cuh attention 's/return fmaf\(x2, b, __fmul_rn\(x, a\)\);/return fmaf(x2, a, __fmul_rn(x, b));/'
mutant -s "decoding does not wait for its keys" attention_forward.cuh attention 's/wait_copies<3>/wait_copies<4>/'
mutant "decoding does not wait for its values" attention_forward.cuh attention 's/wait_copies<2>/wait_copies<3>/'
mutant "forward does not wait for its values" attention_forward.cuh attention 's/wait_copies<1>/wait_copies<2>/'
mutant "sums are not rescaled" attention_forward.cuh attention 's/sums\.o\[n\]\[i\] = __fmul_rn\(sums\.o\[n\]\[i\], keep\)/sums.o[n][i] = sums.o[n][i]/'
mutant "gradients of keys are not scaled" attention_backward.cu attention_backward 's/values \? x : __fmul_rn\(x, scale\)/x/'
mutant "gradients are never added" attention_backward.cuh attention_backward 's/accumulate \? __fadd_rn\(to_float\(\*to\), x\) : x/x/'
mutant "the last item of a key is left out" attention_backward.cu attention_backward 's/i < tile\.items; i/i < tile.items - 1; i/'
mutant "the output's product is forgotten" attention_backward.cuh attention_backward 's/__fadd_rn\(dp\[n\]\[i\], -product\(n, i\)\)/dp[n][i]/'
if [ "$mode" = --short ] && [ $done_short -gt 0 ]; then
	echo "ok: $done_short further mutants can be planted"
fi
[ $failures -eq 0 ]
