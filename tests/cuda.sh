#!/bin/sh
# The program on the CUDA backend where there is no GPU: cuda.sh [BUILD FOLDER]. The backend is built against an emulation of CUDA and
# cuBLASLt (tests/kernels/emulation) into a shared object that the program opens as it would open the real one. Whole runs of a tiny
# model with device: cuda must keep the invariants that runs on the CPU keep; what can't be had is refused with what to do.
. "$(dirname "$0")/e2e/lib.sh"
on_emulated_gpu "the CUDA backend on its emulation"
make_data

cat >"$work/tiny.yaml" <<END
method: grpo
device: cuda
model: {path: $base, init: random}
data: {train: $work/letters.jsonl, root: $work/synth, prompt: answer, system: none}
rollout: {group_size: 3, max_tokens: 6, stop: [a, i, o, u, " the", " in"]}
reward: {accuracy: visual-rft, format: 0}
learner: {steps: 2, groups_per_step: 2, micro_batch: 1, lr: 1.0e-3, beta: 0.04, weight_decay: 0.1}
checkpoint: {every: 1, keep: 0}
run: {seed: 1, samples_per_step: -1}
END

# train NAME RANKS OPTIONS...: into $work/NAME
train() {
	train_dir=$work/$1 train_ranks=$2
	shift 2
	ranks "$train_ranks" train "$work/tiny.yaml" run.dir="$train_dir" "$@"
}

# difference NAME: the largest difference between sampler's and learner's log-probabilities
difference() {
	metric sampling/sampling_logp_difference/max "$work/$1/metrics.jsonl" | sort -u | tr '\n' ' '
}

# near A B T: |A - B| <= T B, B above 0
near() {
	awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(b > 0 && d <= t * b) }'
}

# ---- one rank and three, float32 and bfloat16: the same samples, weights and metrics; one forward
for dtype in float32 bfloat16; do
	for count in 0 3; do
		if ! train $dtype-$count $count model.dtype=$dtype; then
			fail "train, $dtype, $count ranks" "the run failed" "$work/log"
			continue
		fi
		if grep -q '^favor: device: cuda (GPU 0, emulated GPU)' "$work/log"; then
			ok "train, $dtype, $count ranks: on the GPU"
		else
			fail "train, $dtype, $count ranks" "it doesn't say that it is on the GPU" "$work/log"
		fi
		if [ "$(difference $dtype-$count)" = "0 " ]; then
			ok "train, $dtype, $count ranks: sampler and learner have the same bits"
		else
			fail "train, $dtype, $count ranks" "log-probabilities differ by $(difference $dtype-$count)"
		fi
	done
	if cmp -s "$work/$dtype-0/samples.jsonl" "$work/$dtype-3/samples.jsonl" &&
		[ "$(digest "$(newest "$work/$dtype-0")")" = "$(digest "$(newest "$work/$dtype-3")")" ]; then
		ok "1 and 3 ranks, $dtype: the same samples and weights, digest $(digest "$(newest "$work/$dtype-0")")"
	else
		fail "1 and 3 ranks, $dtype" "other samples or weights"
	fi
done
if [ "$(digest "$(newest "$work/float32-0")")" = "$(digest "$(newest "$work/bfloat16-0")")" ]; then
	fail "float32 and bfloat16" "the same weights: one of them is not what it says"
fi

# ---- against the CPU: the same tokens in the first step, and its gradient within rounding
# said NAME: the first step's responses
said() {
	grep '"step": *1,' "$work/$1/samples.jsonl" | sed 's/.*"response": *\("\([^"\\]\|\\.\)*"\).*/\1/'
}
train cpu 0 device=cpu || fail "train on the CPU" "the run failed" "$work/log"
expected=$(metric grad_norm "$work/cpu/metrics.jsonl" | head -n 1)
got=$(metric grad_norm "$work/float32-0/metrics.jsonl" | head -n 1)
said cpu >"$work/expected"
said float32-0 >"$work/got"
if [ "$(wc -l <"$work/expected")" -eq 6 ] && cmp -s "$work/expected" "$work/got" && near "$got" "$expected" 1e-5; then
	ok "float32 against the CPU: the same tokens, gradient norm $got and $expected"
else
	fail "float32 against the CPU" "gradient norm $got instead of $expected, or other tokens"
fi

# ---- the plan's memory on the host: the largest tensor three times, to and from checkpoints; of two learners through MPI the whole block too
# planned TEXT BLOCKS: MiB behind the text in the plan of the newest run, and whether it is that
planned() {
	planned_mib=$(sed -n "s/.*memory plan.*$1 \([0-9.]*\) MiB.*/\1/p" "$work/log")
	"$favor" inspect --json "$(newest "$work/cpu")" | tr -d ' \n' | grep -o '"shape":\[[0-9,]*\]' | tr -dc '0-9,\n' |
		awk -F, -v got="$planned_mib" -v blocks="$2" '{ n = 1; for (i = 1; i <= NF; i++) n *= $i; sum += n; if (n > most) most = n }
			END { exit !(most > 0 && got == sprintf("%.1f", (3 * most + blocks * sum) * 4 / 1048576)) }'
}
train planned-cpu 0 device=cpu learner.steps=1 && planned ', to and from checkpoints' 0 && on_cpu=$planned_mib &&
	train planned-one 0 learner.steps=1 && planned '; on the host, to and from checkpoints and MPI,' 0 &&
	train planned-two 2 placement=colocate learner.steps=1 && planned '; on the host, to and from checkpoints and MPI,' 1 &&
	ok "the plan's memory on the host: $on_cpu MiB, of two learners on GPUs $planned_mib" ||
	fail "the plan's memory on the host" "not as it should be, or a run failed: $planned_mib MiB" "$work/log"

# ---- killed = never killed: after a step's checkpoint, on one rank and on three; and by kill -9 in mid-step
for count in 0 3; do
	cp -r "$work/bfloat16-$count" "$work/killed-$count"
	rm "$work/killed-$count/checkpoints/step-000002.h5"
	if train killed-$count $count model.dtype=bfloat16 --resume auto && grep -q 'resumed from .*step-000001.h5' "$work/log"; then
		same_run "gone on with after step 1, $count ranks" bfloat16-$count killed-$count
	else
		fail "gone on with after step 1, $count ranks" "the resumed run failed" "$work/log"
	fi
done
"$favor" train "$work/tiny.yaml" run.dir="$work/killed" model.dtype=bfloat16 >"$work/log" 2>&1 &
job=$!
tries=0
while [ ! -s "$work/killed/metrics.jsonl" ] && [ $tries -lt 6000 ]; do
	tries=$((tries + 1))
	sleep 0.01
done
sleep 0.2
kill -9 $job 2>/dev/null
wait $job 2>/dev/null
if train killed 0 model.dtype=bfloat16 --resume auto; then
	same_run "killed in mid-step and gone on with" bfloat16-0 killed
else
	fail "killed in mid-step and gone on with" "the resumed run failed" "$work/log"
fi

# ---- gradients over two learners, through the host: added in index order they are one learner's, to the bit
if train reproducible-0 0 comm.reproducible=true learner.steps=1 &&
	train reproducible-2 2 placement=colocate comm.reproducible=true learner.steps=1 &&
	[ "$(digest "$(newest "$work/reproducible-0")")" = "$(digest "$(newest "$work/reproducible-2")")" ]; then
	ok "two learners, comm.reproducible: digest $(digest "$(newest "$work/reproducible-2")")"
else
	fail "two learners, comm.reproducible" "other weights, or a run failed" "$work/log"
fi
if train two 2 placement=colocate learner.steps=1 && near "$(metric grad_norm "$work/two/metrics.jsonl")" "$expected" 1e-5; then
	ok "two learners: gradient norm $(metric grad_norm "$work/two/metrics.jsonl")"
else
	fail "two learners" "another gradient, or the run failed" "$work/log"
fi

# ---- the small commands say the same on both
model=$root/tests/golden/cli/model
prompt="--model $model --image $root/tests/golden/cli/street.jpg --prompt hello"
"$favor" generate $prompt --samples 2 --max-tokens 5 --temperature 0 --device cuda >"$work/cuda" 2>"$work/log"
"$favor" generate $prompt --samples 2 --max-tokens 5 --temperature 0 --device cpu >"$work/cpu.text" 2>&1
if [ -s "$work/cuda" ] && cmp -s "$work/cuda" "$work/cpu.text"; then
	ok "generate --device cuda"
else
	fail "generate --device cuda" "other text than on the CPU" "$work/log"
fi
"$favor" score $prompt --response yes --device cuda >"$work/cuda" 2>"$work/log"
"$favor" score $prompt --response yes --device cpu >"$work/cpu.text" 2>&1
if [ -s "$work/cuda" ] && paste "$work/cuda" "$work/cpu.text" | awk '{ d = $1 - $(NF / 2 + 1); if (d > 2e-5 || d < -2e-5) exit 1 }'; then
	ok "score --device cuda"
else
	fail "score --device cuda" "other log-probabilities than on the CPU" "$work/log"
fi
if ranks 0 eval "$work/tiny.yaml" model.path="$(newest "$work/cpu")" model.init= data.eval="$work/synth/test.jsonl" data.eval_limit=2 \
	run.dir="$work/nowhere" device=cpu --device cuda && grep -q 'device: cuda' "$work/log"; then
	ok "eval --device cuda"
else
	fail "eval --device cuda" "it failed, or was not on the GPU" "$work/log"
fi

if "$favor" doctor 2>"$work/log" | grep -q 'CUDA backend: libfavor_cuda_emulated.so, an emulation of CUDA'; then
	ok "doctor names the backend"
else
	fail "doctor names the backend" "it doesn't" "$work/log"
fi

# ---- what can't be had
# refused CASE TEXT COMMAND...: exit code 2 and one line that has the text
refused() {
	refused_case=$1 refused_text=$2
	shift 2
	"$@" >"$work/out" 2>"$work/log"
	code=$?
	if [ $code -eq 2 ] && grep -Eq "$refused_text" "$work/log" && [ ! -s "$work/out" ]; then
		ok "$refused_case: $(grep -E "$refused_text" "$work/log" | cut -c 1-140)"
	else
		fail "$refused_case" "exit code $code" "$work/log"
	fi
}
one="$favor generate $prompt --max-tokens 1"
refused "no GPU" 'device: cuda, but .*no usable GPU.*device: cpu' env FAVOR_EMULATED_GPUS=0 $one --device cuda
refused "no such library" 'device: cuda, but FAVOR_CUDA_LIBRARY' env FAVOR_CUDA_LIBRARY=/nowhere.so $one --device cuda
refused "another library" 'is no CUDA backend of favor' env FAVOR_CUDA_LIBRARY="$build/tests/app/other_clock.so" $one --device cuda
refused "another build's library" 'belongs to another build' env FAVOR_CUDA_LIBRARY="$build/tests/cuda/cuda_other.so" $one --device cuda
refused "another device" '"gpu" is none of auto, cpu and cuda' $one --device gpu
refused "more than the GPU has" 'memory plan of rank 0 .single. is .* MiB on the GPU: lower' env FAVOR_EMULATED_MIB=64 "$favor" train \
	"$work/tiny.yaml" run.dir="$work/none"
refused "run.memory_limit is the GPU's" 'above its limit of 1 MiB on the GPU' "$favor" train "$work/tiny.yaml" run.dir="$work/none" \
	run.memory_limit=1

# ---- two ranks, whose plan fits a GPU once: on one, on one each of two, and where each sees but its own
train planned 2 placement=colocate run.memory_limit=1
mib=$(sed -n 's/.*memory plan of rank 0 ([^)]*) is \([0-9]*\) MiB.*/\1/p' "$work/log" | head -n 1)
export FAVOR_EMULATED_MIB=$((${mib:-0} * 3 / 2)) FAVOR_EMULATED_GPUS=1
train crowded 2 placement=colocate learner.steps=1
if [ $? -eq 2 ] && grep -q "above its limit of $((FAVOR_EMULATED_MIB / 2)) MiB on the GPU" "$work/log"; then
	ok "two ranks on one GPU have half of its memory each"
else
	fail "two ranks on one GPU" "a plan of $mib MiB was not refused" "$work/log"
fi
export FAVOR_EMULATED_GPUS=2
if train apart 2 placement=colocate learner.steps=1; then
	ok "two ranks on two GPUs have one each"
else
	fail "two ranks on two GPUs" "the run failed" "$work/log"
fi
printf '#!/bin/sh\nCUDA_VISIBLE_DEVICES=$OMPI_COMM_WORLD_RANK exec "%s" "$@"\n' "$favor" >"$work/own_gpu"
chmod +x "$work/own_gpu"
program=$favor favor=$work/own_gpu
if train own 2 placement=colocate learner.steps=1 && grep -q '^favor: gradients: by NCCL' "$work/log"; then
	ok "ranks that see but one GPU, each its own, have all of its memory"
else
	fail "ranks that see but one GPU" "the run failed, or took them for one GPU" "$work/log"
fi
if train hidden 3 placement=colocate learner.steps=1 || ! grep -q 'device: cuda, but .*no usable GPU' "$work/log"; then
	fail "a rank that sees no GPU" "it was not refused" "$work/log"
else
	ok "a rank that sees no GPU is refused"
fi
unset FAVOR_EMULATED_MIB FAVOR_EMULATED_GPUS
favor=$program

if FAVOR_EMULATED_GPUS=0 ranks 0 train "$work/tiny.yaml" run.dir="$work/auto" device=auto learner.steps=1 &&
	grep -q '^favor: device: cpu (auto: .*no usable GPU' "$work/log"; then
	ok "device: auto without a GPU: $(grep '^favor: device' "$work/log")"
else
	fail "device: auto without a GPU" "not on the CPU, or not said" "$work/log"
fi
finish
