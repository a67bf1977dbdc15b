#!/bin/sh
# What a user gives wrong ends with exit code 2 and one message that names the place: bad_input.sh [BUILD FOLDER].
. "$(dirname "$0")/e2e/lib.sh"
make_data
cd "$work" || exit 1

# what stands on stderr in a good run too, besides the message
notes='^favor: (warning: |memory plan|resume: )'

# verdict CASE CODE PATTERN: of a run whose stderr is in $work/log
verdict() {
	grep -E '^favor:' "$work/log" | grep -Ev "$notes" >"$work/messages"
	if [ "$2" -ne 2 ]; then
		fail "$1" "exit code $2" "$work/log"
	elif [ "$(wc -l <"$work/messages")" -ne 1 ]; then
		fail "$1" "$(wc -l <"$work/messages") messages" "$work/log"
	elif ! sed '/^favor:/,$!d' "$work/log" | tr '\n' ' ' | grep -Eq "favor: $3"; then
		fail "$1" "the message has no $3" "$work/log"
	elif grep -Eq 'Sanitizer|runtime error|Segmentation|MPI_ABORT' "$work/log"; then
		fail "$1" "more than a message" "$work/log"
	else
		ok "$1: $(cat "$work/messages")"
	fi
}

# bad CASE PATTERN ARGUMENTS...
bad() {
	bad_case=$1 bad_pattern=$2
	shift 2
	limit=60 ranks 0 "$@"
	verdict "$bad_case" $? "$bad_pattern"
}

# the same on four ranks: still one message, soon
bad_ranks() {
	bad_case=$1 bad_pattern=$2
	shift 2
	begin=$(date +%s)
	limit=60 ranks 4 "$@"
	bad_code=$?
	seconds=$(($(date +%s) - begin))
	if [ $seconds -gt 10 ]; then
		fail "$bad_case, 4 ranks" "took $seconds s" "$work/log"
	else
		verdict "$bad_case, 4 ranks" $bad_code "$bad_pattern"
	fi
}

# config NAME [SED SCRIPT]: a good configuration, changed
config() {
	cat >"$1.yaml" <<-END
		method: grpo
		model: {path: $base, init: random}
		data: {train: synth/train.jsonl, prompt: answer, system: none}
		rollout: {group_size: 2, max_tokens: 4}
		learner: {steps: 1, groups_per_step: 1, beta: 0.0}
		run: {dir: runs/$1}
	END
	[ -z "${2:-}" ] || sed -i "$2" "$1.yaml"
}

config good
if ranks 0 train good.yaml; then
	ok "the configuration that the cases change is good"
else
	fail "the configuration that the cases change is good" "it is not" "$work/log"
fi
good=runs/good/checkpoints/step-000001.h5

# ---- command line
bad "unknown command" 'there is no command "trian"' trian good.yaml
bad "no configuration named" 'usage: favor train CONFIG.yaml' train
bad "missing configuration file" 'nowhere.yaml: .*' train nowhere.yaml
bad "unknown option" 'there is no option --resme' train good.yaml --resme auto
bad "option without its value" '--resume needs a value' train good.yaml --resume
bad "unknown override" '.*learner.lrr.*learner.lr' train good.yaml learner.lrr=1
bad "override out of range" '.*rollout.top_p.*' train good.yaml rollout.top_p=1.5
bad "unknown key of a section" '.*unknown key comm.xyzzy; valid in comm are reproducible, transport, overlap, bucket_kib' train good.yaml comm.xyzzy=1
bad "flag with a value" '--json takes no value' generate --model "$base" --prompt x --json=1
bad "argument that is no override" '.*oops.*' train good.yaml oops
bad "generate without a model" '--model and --prompt' generate --prompt x
bad "generate with a number that is too large" '--max-tokens: 99999999 is outside \[1, 1048576\]' generate --model "$base" --prompt x --max-tokens=99999999
bad "generate from bytes that are no text" '--prompt: the text is not UTF-8' generate --model "$base" --prompt "$(printf 'a\377')"
bad "generate with a model of the hub" 'Qwen/Qwen2-VL-2B-Instruct: .*nothing is downloaded' generate --model Qwen/Qwen2-VL-2B-Instruct --prompt x
bad "eval with an empty name" '--name .* is empty' eval good.yaml --name ""
bad "generate with a number that is none" '--top-k: "x"' generate --model "$base" --prompt x --top-k x

# ---- configuration
config key 's/group_size/grop_size/'
bad "malformed key" 'key.yaml:4: .*rollout.grop_size.*rollout.group_size' train key.yaml
bad_ranks "malformed key" 'key.yaml:4: .*rollout.grop_size.*rollout.group_size' train key.yaml
config type 's/max_tokens: 4/max_tokens: four/'
bad "wrong type" 'type.yaml:4: .*rollout.max_tokens.*four' train type.yaml
config yaml 's/steps: 1,/steps: 1, {/'
bad "no YAML" 'yaml.yaml:5: .*' train yaml.yaml
config list 's/^method: grpo/method: [grpo]/'
bad "a list where a word belongs" 'list.yaml:1: .*method.*' train list.yaml
config greedy 's/max_tokens: 4/max_tokens: 4, temperature: 0/'
bad "greedy training" '.*rollout.temperature.*' train greedy.yaml
bad "a binary as configuration" '.*favor.*' train "$favor"
bad "a folder as configuration" 'synth: .*' train synth
bad "placement for other ranks" '.*placement.*' train good.yaml run.dir=runs/placement 'placement={rollout: 2, reward: 1, learner: 1}'

# ---- data set
line=$(head -n 1 synth/train.jsonl)
{
	head -n 2 synth/train.jsonl
	echo '{"image": "images/train/000003.jpg", "label": '
	tail -n +4 synth/train.jsonl
} >synth/line.jsonl
bad "one bad line" '.*synth/line.jsonl:3:.*not JSON.*' train good.yaml data.train=synth/line.jsonl run.dir=runs/line
bad_ranks "one bad line" '.*synth/line.jsonl:3:.*not JSON.*' train good.yaml data.train=synth/line.jsonl run.dir=runs/line
{
	head -n 3 synth/train.jsonl
	echo '{"image": "images/train/nowhere.jpg", "label": "walking"}'
} >synth/missing.jsonl
bad "missing image" '.*synth/missing.jsonl:4: .*nowhere.jpg.*' train good.yaml data.train=synth/missing.jsonl run.dir=runs/missing
bad_ranks "missing image" '.*synth/missing.jsonl:4: .*nowhere.jpg.*' train good.yaml data.train=synth/missing.jsonl run.dir=runs/missing
head -c 900 synth/images/train/000001.jpg >synth/images/train/cut.jpg
{
	echo "$line"
	echo '{"image": "images/train/cut.jpg", "label": "walking"}'
} >synth/cut.jsonl
bad "truncated JPEG" '.*synth/cut.jsonl:2: .*cut.jpg.*' train good.yaml data.train=synth/cut.jsonl run.dir=runs/cut
bad_ranks "truncated JPEG" '.*synth/cut.jsonl:2: .*cut.jpg.*' train good.yaml data.train=synth/cut.jsonl run.dir=runs/cut
bad "truncated JPEG in eval" '.*synth/cut.jsonl:2: .*cut.jpg.*' eval good.yaml data.eval=synth/cut.jsonl
echo "hello" >synth/images/train/text.jpg
echo '{"image": "images/train/text.jpg", "label": "walking"}' >synth/text.jsonl
bad "text as image" '.*synth/text.jsonl:1: .*text.jpg.*' train good.yaml data.train=synth/text.jsonl run.dir=runs/text
printf 'path,activity\nimages/train/000001.jpg,walking\n' >synth/table.csv
bad "CSV without a label column" '.*synth/table.csv.*label.*' train good.yaml data.train=synth/table.csv run.dir=runs/csv
: >synth/empty.jsonl
bad "empty data set" '.*synth/empty.jsonl.*' train good.yaml data.train=synth/empty.jsonl run.dir=runs/empty
bad "missing data set" '.*synth/nowhere.jsonl.*' train good.yaml data.train=synth/nowhere.jsonl run.dir=runs/nowhere
bad "not enough shots" '.*data.shots.*' train good.yaml data.shots=1000 run.dir=runs/shots
bad "a label that is no class" '.*synth/train.jsonl:[0-9]+: .*' train good.yaml 'data.classes=[walking, flying]' run.dir=runs/classes
bad "a prompt file that is not there" '.*data.prompt.*nowhere.txt.*' train good.yaml data.prompt=nowhere.txt run.dir=runs/prompt
# what would leave the data set's folder
echo '{"image": "../picture.jpg", "label": "walking"}' >synth/climb.jsonl
cp synth/images/train/000001.jpg picture.jpg
bad "an image outside, by .." '.*synth/climb.jsonl:1: .*leaves its folder.*data.allow_outside.*' train good.yaml data.train=synth/climb.jsonl run.dir=runs/climb
echo "{\"image\": \"$work/picture.jpg\", \"label\": \"walking\"}" >synth/absolute.jsonl
bad "an image outside, absolute" '.*synth/absolute.jsonl:1: .*lies outside of the data file.*data.root.*' train good.yaml data.train=synth/absolute.jsonl run.dir=runs/absolute
ln -s "$work/picture.jpg" synth/link.jpg
echo '{"image": "link.jpg", "label": "walking"}' >synth/link.jsonl
bad "an image outside, by a link" '.*synth/link.jsonl:1: .*link.jpg: is a link to a place outside of .*' train good.yaml data.train=synth/link.jsonl run.dir=runs/link
for set in climb absolute link; do
	if ranks 0 train good.yaml data.train=synth/$set.jsonl data.allow_outside=true run.dir=runs/allowed-$set; then
		ok "an image outside that the user allows ($set)"
	else
		fail "an image outside that the user allows ($set)" "refused" "$work/log"
	fi
done
mkfifo synth/pipe.jpg
echo '{"image": "pipe.jpg", "label": "walking"}' >synth/pipe.jsonl
bad "a pipe as image" '.*synth/pipe.jsonl:1: .*pipe.jpg: this is no file' train good.yaml data.train=synth/pipe.jsonl run.dir=runs/pipe
# a gibibyte without a line end, on no disk
head -n 2 synth/train.jsonl >synth/long.jsonl
truncate -s 1G synth/long.jsonl
bad "a line of 1 GiB" '.*synth/long.jsonl:3: the line is longer than 16777216 bytes.*' train good.yaml data.train=synth/long.jsonl run.dir=runs/long
printf 'path,label\nimages/train/000001.jpg,walking\n"' >synth/long.csv
truncate -s 1G synth/long.csv
bad "a CSV row of 1 GiB" '.*synth/long.csv:3: the row is longer than 16777216 bytes.*' train good.yaml data.train=synth/long.csv run.dir=runs/long
rm synth/long.jsonl synth/long.csv
printf '\377\376p' >synth/wide.csv
bad "UTF-16" 'synth/wide.csv: is UTF-16; save it as UTF-8' train good.yaml data.train=synth/wide.csv run.dir=runs/wide
echo '{"image": "images/train/000001.jpg", "problem": "<image>What is it?", "solution": "x"}' >synth/place.jsonl
bad "an image's place in a problem" 'synth/place.jsonl:1: .*"problem" holds <image>.*' train good.yaml data.train=synth/place.jsonl run.dir=runs/place
bad "evaluations without a data set" '.*learner.eval_every=1.*there is nothing to evaluate on; give data.eval.*' train good.yaml learner.eval_every=1 run.dir=runs/none
bad "a prompt that is none" '.*data.prompt: "thnk" is neither think nor answer.*' train good.yaml data.prompt=thnk run.dir=runs/none
echo 'Which of {clases}?' >prompt.txt
bad "a prompt's placeholder" 'data.prompt: prompt.txt: unknown placeholder at "{clases}."; .*' train good.yaml data.prompt=prompt.txt run.dir=runs/none
bad "pixels of the model and of the configuration" 'data.min_pixels [0-9]+ .the model.s. is above data.max_pixels 100' train good.yaml data.max_pixels=100 run.dir=runs/none
cp -r "$base" bare
rm bare/preprocessor_config.json
if ranks 0 train good.yaml model.path=bare data.eval=synth/train.jsonl run.threads=129 run.dir=runs/same &&
	grep -q '^favor: warning: data.eval is data.train and has no splits' "$work/log" && grep -q '^favor: warning: run.threads is 129' "$work/log" &&
	grep -q '^favor: warning: bare: no image settings' "$work/log"; then
	ok "what is allowed and hardly meant: warnings"
else
	fail "what is allowed and hardly meant" "no warnings, or no run" "$work/log"
fi
bad "no data set" '.*data.train is missing.*' train good.yaml data.train= run.dir=runs/none

# ---- model folder
# folder NAME: a whole model folder, model-NAME, to be damaged
"$favor" export "$good" whole 2>"$work/log" || fail "export" "failed" "$work/log"
folder() {
	cp -r whole "model-$1"
}
model() {
	bad "$1" "$2" train good.yaml run.dir=runs/model model.init= model.path="model-$3"
}
cp -r whole model-good
if ranks 0 train good.yaml run.dir=runs/whole model.init= model.path=model-good; then
	ok "the model folder that the cases change is good"
else
	fail "the model folder that the cases change is good" "it is not" "$work/log"
fi
weights=model.safetensors
folder cut
head -c 5000 whole/$weights >model-cut/$weights
model "truncated safetensors" '.*model-cut/model.safetensors.*' cut
folder short
head -c 300000 whole/$weights >model-short/$weights
model "safetensors without its end" '.*model-short/model.safetensors.*' short
folder header
printf '\377\377\377\377\377\377\377\177{}' >model-header/$weights
model "safetensors with a header of 2^63 bytes" '.*model-header/model.safetensors.*' header
folder negative
sed -i 's/"hidden_size": *32/"hidden_size": -32/' model-negative/config.json
model "negative size" '.*model-negative/config.json.*hidden_size.*-32.*' negative
bad_ranks "negative size" '.*model-negative/config.json.*hidden_size.*-32.*' train good.yaml run.dir=runs/model model.init= model.path=model-negative
folder huge
sed -i 's/"num_hidden_layers": *2/"num_hidden_layers": 2000000000/' model-huge/config.json
model "two thousand million layers" '.*model-huge/config.json.*num_hidden_layers.*' huge
folder claims
printf '\000\000\000\000\000\000\000\020{}' >model-claims/$weights
model "a header of 2^60 bytes" '.*model-claims/model.safetensors: the header claims 1152921504606846976 bytes, the file has 10.*' claims
folder wide
sed -i 's/"hidden_size": *32/"hidden_size": 131072/; s/"num_attention_heads": *2/"num_attention_heads": 1024/; s/"intermediate_size": *64/"intermediate_size": 1048576/; s/"num_hidden_layers": *2/"num_hidden_layers": 1024/; s/"mrope_section"/"mrope_section_was"/' model-wide/config.json
sed -i 's/"mrope_section_was": *\[/"mrope_section": [16, 24, 24], "was": [/' model-wide/config.json
bad "a model of a million GiB, drawn" '.*model-wide/config.json: a model of .* parameters takes .* GiB, and this machine has .*' train good.yaml run.dir=runs/model model.path=model-wide
folder llama
sed -i 's/"model_type": *"qwen2_vl"/"model_type": "llama"/; s/Qwen2VLForConditionalGeneration/LlamaForCausalLM/' model-llama/config.json
model "another architecture" '.*model-llama/config.json.*llama.*' llama
folder missing
LC_ALL=C sed -i 's/"model.norm.weight"/"model.nurm.weight"/' model-missing/$weights
model "missing tensor" '.*model-missing.*model.norm.weight.*' missing
folder shape
LC_ALL=C sed -i 's/\("model.embed_tokens.weight":{[^}]*"shape":\)\[400,32\]/\1[32,400]/' model-shape/$weights
if cmp -s whole/$weights model-shape/$weights; then
	fail "misshapen tensor" "the test could not change its header"
fi
model "misshapen tensor" '.*model-shape.*model.embed_tokens.weight.*32, 400.*400, 32.*|.*model-shape.*model.embed_tokens.weight.*400, 32.*32, 400.*' shape
folder tokenizer
rm model-tokenizer/tokenizer.json
model "no tokenizer.json" '.*model-tokenizer/tokenizer.json.*' tokenizer
folder config
rm model-config/config.json
model "no config.json" '.*model-config/config.json.*' config
folder weights
rm model-weights/$weights
model "no weights" '.*model-weights.*safetensors.*' weights
folder vocabulary
sed -i 's/"vocab_size": *400/"vocab_size": 100/' model-vocabulary/config.json
model "vocabulary smaller than the tokeniser's" '.*model-vocabulary.*' vocabulary
folder positions
sed -i 's/"max_position_embeddings": *2048/"max_position_embeddings": 32/' model-positions/config.json
model "prompt too long" '.*max_position_embeddings is 32.*' positions
bad "generate, prompt too long" '.*86 tokens.*--max-tokens 4.*32 positions' generate --model model-positions --max-tokens 4 \
	--prompt "a prompt of more words than this model has places for, however short the words in it may be and are"
bad "score, response too long" '.* tokens; with a response of .* more than the model.s 32 positions' score --model model-positions --prompt x \
	--response "a response of more words than this model has places for, however short the words in it may be and are"
bad "no model folder" 'nowhere: .*' train good.yaml run.dir=runs/model model.path=nowhere
bad "memory above its limit" '.*memory plan.*learner.recompute, or learner.shard with more learners .run.memory_limit.*' train good.yaml run.dir=runs/memory run.memory_limit=1
bad_ranks "memory of a rank that rolls out" 'the memory plan of rank 3 \(rollout\) is . MiB, above its limit of 6 MiB: lower rollout.groups, rollout.group_size, rollout.max_tokens or data.max_pixels \(run.*' \
	train good.yaml run.dir=runs/memory learner.groups_per_step=64 rollout.groups=64 run.memory_limit=6 'placement={rollout: 1, reward: 1, learner: 2}'

# ---- run folder and checkpoints
bad "a folder that holds a run" 'runs/good: already holds a run.*--resume auto' train good.yaml
head -c 3000 "$good" >cut.h5
bad "resume from a truncated checkpoint" 'cut.h5.*' train good.yaml run.dir=runs/resume --resume cut.h5
echo "no checkpoint" >text.h5
bad "resume from text" 'text.h5.*' train good.yaml run.dir=runs/resume --resume text.h5
bad_ranks "resume from text" 'text.h5.*' train good.yaml run.dir=runs/resume2 learner.groups_per_step=4 --resume text.h5
bad "resume from nothing" 'nowhere.h5.*' train good.yaml run.dir=runs/resume --resume nowhere.h5
ranks 0 train good.yaml run.dir=runs/two learner.steps=2 checkpoint.every=1 || fail "a run of two steps" "failed" "$work/log"
bad "resume of a run that was longer" 'runs/two/.*has done 2 steps, but learner.steps is 1' train good.yaml run.dir=runs/two --resume auto
# a checkpoint that is named must not be mixed with another run, nor with the later steps of its own
cp -r runs/two before
bad "resume of another run's checkpoint" "runs/two: already holds a run, and $good is not of its checkpoints.*--resume auto.*" \
	train good.yaml run.dir=runs/two learner.steps=3 --resume "$good"
bad_ranks "resume of another run's checkpoint" "runs/two: already holds a run, and $good is not of its checkpoints.*--resume auto.*" \
	train good.yaml run.dir=runs/two learner.steps=3 learner.groups_per_step=4 --resume "$good"
bad "resume from before later checkpoints" 'runs/two/checkpoints/step-000001.h5: the run has later checkpoints, up to .*step-000002.h5.*' \
	train good.yaml run.dir=runs/two learner.steps=3 --resume runs/two/checkpoints/step-000001.h5
if diff -r before runs/two >"$work/log"; then
	ok "a resume that is refused changes nothing"
else
	fail "a resume that is refused changes nothing" "it does" "$work/log"
fi
if ranks 0 train good.yaml run.dir=runs/from learner.steps=3 --resume runs/two/checkpoints/step-000001.h5 && ranks 0 train good.yaml \
	run.dir=runs/two learner.steps=3 --resume runs/two/checkpoints/step-000002.h5; then
	ok "resume in a new folder, and from the newest by its name"
else
	fail "resume in a new folder, and from the newest by its name" "refused" "$work/log"
fi
: >file
bad "a run folder that is a file" '.*file.*' train good.yaml run.dir=file/run
bad "inspect text" 'text.h5.*' inspect text.h5
bad "export text" 'text.h5.*' export text.h5 out
mkdir sharded && echo '{}' >sharded/model.safetensors.index.json
bad "export over a model in several files" 'sharded: already holds a model.*' export "$good" sharded
bad "export into a folder that is not there" 'not/there: can.t be made: .*' export "$good" not/there
bad "export over a model" 'whole: already holds a model.*' export "$good" whole

# ---- the other commands
bad "image of text" '.*text.jpg.*' generate --model whole --prompt x --image synth/images/train/text.jpg
bad "image of nothing" '.*nowhere.jpg.*' score --model whole --prompt x --response y --image nowhere.jpg
bad "preprocess of a truncated JPEG" '.*cut.jpg.*' preprocess --model whole --image synth/images/train/cut.jpg --out x.safetensors
bad "tokenize without tokenizer.json" '.*model-tokenizer/tokenizer.json.*' tokenize --model model-tokenizer
bad "report on nothing" '.*nowhere.*' report nowhere
bad "synth with a size of none" '.*size.*' synth out --size 0
finish
