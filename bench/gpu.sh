#!/bin/sh
# favor beside PyTorch and transformers on one GPU, on Qwen2-VL-2B's shapes with random weights (made in place, never written):
#
#   bench/gpu.sh [--shapes NAME] [--device cuda|cpu] [--dtype D] [--build DIR] [--repeat N] [--no-peers] [--out FILE]
#
#   generation of one group and of 32 groups; forward and backward over a group; a whole GRPO step (generate, loss, backward, AdamW). Times are
#   medians. Prints each beside its floor (the larger of operations by the matrix peak and bytes by the bandwidth, both measured in
#   the same call through the same backend), beside the peer's time, and beside the goal.
#
#   --shapes      a folder of bench/shapes: qwen2-vl-2b (512 tokens of prompt, 256 of them an image's; 8 responses of 256), or small or tiny
#                 (46 and 16, 2 groups: to try this script)
#   --device cpu  without a GPU; FAVOR_CUDA_LIBRARY with cuda takes another CUDA backend, the emulation too
#   --no-peers    favor alone. The peers want PEERS_PYTHON (python3) with torch and transformers; TRL is not used: the peer's step is plain
#                 PyTorch on the repeated rows, with the fused AdamW, which is less work than TRL's
#   --out FILE    the raw lines (bench/bench_gpu.c, bench/peers/gpu.py) as well
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
shapes=qwen2-vl-2b device=cuda dtype=bfloat16 build= repeat=3 peers=1 out=

usage() {
	echo "bench/gpu.sh: $1" >&2
	sed -n '/^#   /s/^#   //p' "$0" >&2
	exit 2
}
while [ $# -gt 0 ]; do
	option=$1
	case $option in
	--no-peers)
		peers=
		shift
		continue
		;;
	--shapes | --device | --dtype | --build | --repeat | --out) [ $# -ge 2 ] && [ "$2" ] || usage "$option wants a value" ;;
	*) usage "$option is no option" ;;
	esac
	case $option in
	--shapes) shapes=$2 ;;
	--device) device=$2 ;;
	--dtype) dtype=$2 ;;
	--build) build=$2 ;;
	--repeat) repeat=$2 ;;
	--out) out=$2 ;;
	esac
	shift 2
done
case $device in cuda | cpu) ;; *) usage "--device is cuda or cpu" ;; esac
case $dtype in bfloat16 | float32) ;; *) usage "--dtype is bfloat16 or float32" ;; esac
case $repeat in '' | *[!0-9]* | 0) usage "--repeat is a number from 1 on" ;; esac
model=$root/bench/shapes/$shapes
[ -e "$model/config.json" ] || usage "there are no shapes $shapes in bench/shapes: $(ls "$root/bench/shapes" | tr '\n' ' ')"
case $shapes in
tiny | small) group=8 groups=2 text=30 image=112 response=16 matrix=512 stream=64 ;;
*) group=8 groups=32 text=256 image=448 response=256 matrix=8192 stream=1024 ;;
esac
if [ -z "$build" ]; then
	build=$root/build-gpu
	[ ! -e "$root/bundle" ] || build=$root/build # a bundle (tests/gpu.sh --bundle)
fi
if [ ! -e "$root/bundle" ]; then
	[ -e "$build/build.ninja" ] || usage "$build is no build folder: meson setup $build -Dcuda=enabled"
	ninja -C "$build" bench/bench_gpu >/dev/null
	[ "$device" = cpu ] || [ "${FAVOR_CUDA_LIBRARY:-}" ] || ninja -C "$build" libfavor_cuda.so >/dev/null
fi
if [ "$device" = cuda ] && [ -z "${FAVOR_CUDA_LIBRARY:-}" ]; then
	export FAVOR_CUDA_LIBRARY="$build/libfavor_cuda.so" # bench_gpu is not beside it
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

python=${PEERS_PYTHON:-python3}
# the toolkit's libraries, where only PyTorch's wheels have them: behind all other folders
for folder in $("$python" -c '
import glob, sys
print(*[f for p in sys.path for f in glob.glob(p + "/nvidia/*/lib")])' 2>/dev/null); do
	wheels=${wheels:+$wheels:}$folder
done

LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}${wheels:+:$wheels}" "$build/bench/bench_gpu" --model "$model" --tokenizer "$root/models/har-tiny" --device "$device" \
	--dtype "$dtype" --group $group --groups $groups --text $text --image $image --response $response --repeat "$repeat" --matrix $matrix --stream $stream \
	>"$work/favor" || exit $?
: >"$work/peer"
if [ "$peers" ]; then
	if (
		[ ! -e "$root/bundle" ] || export LD_LIBRARY_PATH="${PEERS_LIBRARY_PATH:-}" # its own libraries, not the bundle's
		exec "$python" "$root/bench/peers/gpu.py" "{\"model\": \"$model\", \"device\": \"$device\", \"dtype\": \"$dtype\", \"group\": $group, \"groups\": $groups,
			\"text\": $text, \"image\": $image, \"response\": $response, \"warmup\": 1, \"steps\": $repeat}"
	) >"$work/peer" 2>"$work/peer.log"; then
		:
	else
		echo "bench/gpu.sh: the peer did not come to its end:" >&2
		tail -n 5 "$work/peer.log" >&2
		peer_failed=1
	fi
fi
[ -z "$out" ] || cat "$work/favor" "$work/peer" >"$out"

awk -v group=$group -v groups=$groups -v response=$response '
function median(from,    n, i, j, t, v) {
	n = 0
	for (i = from; i <= NF; i++) v[++n] = $i
	for (i = 2; i <= n; i++)
		for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
	return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
function goal(met) { return met ? "met" : "missed" }
function line(name, title, tokens, wanted,    ratio, peer_text, ratio_text) {
	if (!(name in seconds)) return
	peer_text = ratio_text = "-"
	if (name in peer) {
		peer_text = sprintf("%.4g", peer[name])
		ratio = peer[name] / seconds[name]
		ratio_text = sprintf("%.2fx", ratio) (wanted ? sprintf(" (goal %gx: %s)", wanted, goal(ratio >= wanted)) : "")
	}
	printf "%-30s %10.4g s %10s s  %-24s %10.0f tokens/s  floor %9.4g s = %4.1f%%  %10.4g GFLOP %9.4g GB\n", title, seconds[name], peer_text, ratio_text,
		tokens / seconds[name], floor[name], 100 * floor[name] / seconds[name], flops[name] / 1e9, bytes[name] / 1e9
}
FILENAME == ARGV[1] && $1 == "device" { sub(/^device /, ""); device = $0; next }
FILENAME == ARGV[1] && NF == 2 { value[$1] = $2; next }
FILENAME == ARGV[1] { flops[$1] = $2; bytes[$1] = $3; floor[$1] = $4; seconds[$1] = median(5); next }
$1 == "peer" { sub(/^peer /, ""); who = $0; next }
{ peer[$1] = median(2) }
END {
	peak = value["peak_after"] > value["peak"] ? value["peak_after"] : value["peak"]
	printf "favor: %s; %.1f M parameters; prompt %d; matrix peak %.4g TFLOP/s, bandwidth %.4g GB/s, both measured\n", device, value["parameters"] / 1e6,
		value["prompt"], peak / 1e12, value["bandwidth"] / 1e9
	printf "peer:  %s\n\n%-30s %12s %12s\n", who ? who : "none", "", "favor", "peer"
	many = groups * group * response
	line("generate", "generation, 1 group", group * response, 5)
	line("generate_many", "generation, " groups " groups", many, 0)
	line("forward_backward", "forward + backward, 1 group", group * (value["prompt"] + response), 3)
	line("step", "GRPO step, 1 group", group * response, 4)
	print ""
	if ("generate" in seconds)
		printf "generation: %.1f%% of its floor (goal 60%%: %s)\n", 100 * floor["generate"] / seconds["generate"], goal(floor["generate"] / seconds["generate"] >= 0.6)
	if ("forward_backward" in seconds) {
		share = flops["forward_backward"] / seconds["forward_backward"] / peak
		printf "forward + backward: %.1f%% of the measured matrix peak (goal 45%%: %s)\n", 100 * share, goal(share >= 0.45)
	}
}' "$work/favor" "$work/peer"
[ -z "${peer_failed:-}" ]
