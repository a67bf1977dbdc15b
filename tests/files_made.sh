#!/bin/sh
# The files that favor makes have the modes that the user's umask asks for, no wider and no narrower; and the program has no way to
# start another one, so that nothing in a model, a data set or a checkpoint can be run: files_made.sh [BUILD FOLDER].
. "$(dirname "$0")/e2e/lib.sh"
make_data
cd "$work" || exit 1
cat >run.yaml <<END
method: grpo
model: {path: $base, init: random}
data: {train: synth/train.jsonl, eval: synth/test.jsonl, eval_limit: 2, prompt: answer, system: none}
rollout: {group_size: 2, max_tokens: 4}
learner: {steps: 2, groups_per_step: 1, beta: 0.0}
checkpoint: {every: 1}
END
mkdir tmp
export TMPDIR="$work/tmp"

# modes CASE FOLDER FILE-MODE FOLDER-MODE: of all that lies in it
modes() {
	odd=$(find "$2" \( -type f ! -perm "$3" -o -type d ! -perm "$4" \) -printf '%m %p\n' | head -n 5)
	if [ "$(find "$2" -type f | wc -l)" -eq 0 ]; then
		fail "$1" "no files were made"
	elif [ "$odd" ]; then
		fail "$1" "files should be $3 and folders $4, but are: $odd"
	else
		ok "$1"
	fi
}

# made CASE COMMAND...: runs it; its failure is the case's
made() {
	made_case=$1
	shift
	"$@" >"$work/log" 2>&1 || fail "$made_case" "$* failed" "$work/log"
}

for mask in 022 027 077; do
	case $mask in
	022) file=644 folder=755 ;;
	027) file=640 folder=750 ;;
	077) file=600 folder=700 ;;
	esac
	umask $mask
	checkpoint=runs/$mask/checkpoints/step-000002.h5
	ranks 0 train run.yaml run.dir="runs/$mask" || fail "a run under umask $mask" "failed" "$work/log"
	ranks 0 train run.yaml run.dir="runs/$mask" learner.steps=3 --resume auto || fail "a resumed run under umask $mask" "failed" "$work/log"
	made "an evaluation under umask $mask" "$favor" eval run.yaml model.path="$checkpoint" model.init= run.dir="runs/$mask"
	made "a report under umask $mask" "$favor" report "runs/$mask"
	modes "files of a run, resumed and evaluated, under umask $mask" "runs/$mask" $file $folder
	made "an export under umask $mask" "$favor" export "$checkpoint" "export-$mask"
	modes "an exported model under umask $mask" "export-$mask" $file $folder
	made "a data set under umask $mask" "$favor" synth "synth-$mask" --train 2 --test 1 --size 32
	modes "a drawn data set under umask $mask" "synth-$mask" $file $folder
	mkdir "patches-$mask"
	made "patches under umask $mask" "$favor" preprocess --model "export-$mask" --image synth/images/train/000001.jpg \
		--out "patches-$mask/x.safetensors"
	modes "patches under umask $mask" "patches-$mask" $file $folder
done
umask 022
left=$(find tmp -mindepth 1 | head -n 3)
if [ "$left" ]; then
	fail "temporary files are taken away" "left: $left"
else
	ok "temporary files are taken away"
fi

# ---- nothing is run
# execv: main starts the program itself anew (/proc/self/exe). fork: a child of the same program opens a checkpoint first, or watches the
# end of mpirun. dlopen: CUDA's and NCCL's
# libraries by their fixed names, and the CUDA backend from its fixed places (or where FAVOR_CUDA_LIBRARY says).
if ! command -v nm >/dev/null; then
	echo "skipped: the program can't start others: nm is not installed"
else
	starts=$(nm -D --undefined-only "$favor" | sed -n 's/^ *U \([a-z_]*\)@.*/\1/p' |
		grep -E '^(system|popen|v?fork|exec[a-z]*|f?execve(at)?|posix_spawnp?|wordexp)$' | sort | tr '\n' ' ')
	if [ "$starts" = "execv fork " ]; then
		ok "the program can't start others (it imports $starts)"
	else
		fail "the program can't start others" "it imports $starts"
	fi
	uses=$(grep -rnE '\b(execv|fork|dlopen|dlsym) *\(' "$root/src" --include='*.c' | grep -vE '^[^:]*:[0-9]+:[[:space:]]*(/?\*|//)' |
		sed "s|^$root/||; s|:.*||" | sort -u | tr '\n' ' ')
	case $uses in
	"src/app/doctor_gpu.c src/app/main.c src/backend/cuda/nccl.c src/backend/cuda/open.c src/checkpoint/checkpoint_probe.c src/comm/launcher.c ") ok "execv, fork and dlopen stand where they are known" ;;
	*) fail "execv, fork and dlopen stand where they are known" "in $uses" ;;
	esac
fi

# a model folder with a program and a pickle in it, whose configuration names them: neither is looked at
cp -r export-022 trap
sed -i 's/"model_type"/"auto_map": {"AutoModel": "modeling.Model"}, "model_type"/' trap/config.json
cat >trap/modeling.py <<END
open("$work/was-run", "w")
END
# a pickle that touches the same file when it is loaded
printf "cposix\nsystem\n(S'touch %s/was-run'\ntR." "$work" >trap/pytorch_model.bin
printf '{%% set x = cycler.__init__.__globals__.os.popen("touch %s/was-run") %%}' "$work" >trap/chat_template.jinja
made "a model with programs beside it" "$favor" generate --model trap --prompt "{{ 7 * 7 }}" --max-tokens 2
if [ -e was-run ]; then
	fail "programs beside a model are not run" "one was"
else
	ok "programs beside a model are not run"
fi
rm trap/model.safetensors
ranks 0 generate --model trap --prompt x --max-tokens 2
code=$?
if [ $code -eq 2 ] && grep -q 'neither model.safetensors nor model.safetensors.index.json is there' "$work/log" && [ ! -e was-run ]; then
	ok "a pickle is no model"
else
	fail "a pickle is no model" "exit code $code" "$work/log"
fi
finish
