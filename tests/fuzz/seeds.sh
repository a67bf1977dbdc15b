#!/bin/sh
# seeds.sh MAKE_SEEDS FOLDER: writes the seeds of all fuzz targets to FOLDER/TARGET/: small valid inputs that libFuzzer starts from. Some come
# from the golden files, binary ones from the program MAKE_SEEDS, the rest stands here.
set -eu
make_seeds=$1 out=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
golden=$root/tests/golden
cut=$(printf '\n--8<--\n.') # command substitution drops line ends
cut=${cut%.}

# seed TARGET NAME PART...: the parts with cuts between them
seed() {
	target=$1 name=$2
	shift 2
	mkdir -p "$out/$target"
	{
		printf '%s' "$1"
		shift
		for part; do
			printf '%s%s' "$cut" "$part"
		done
	} >"$out/$target/$name"
}

"$make_seeds" "$out"

mkdir -p "$out/image"
cp "$golden"/data/images/*.jpg "$golden"/data/images/*.png "$golden"/data/images/*.webp "$out/image"

# ---- safetensors
seed safetensors header 'h{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}}' 'abcdefghijklmn'
seed safetensors halves 'h{"h":{"dtype":"F16","shape":[],"data_offsets":[0,2]},"e":{"dtype":"I64","shape":[0,4],"data_offsets":[2,2]}}' 'ab'
seed safetensors index 'i{"metadata":{"total_size":8},"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}' \
	'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' 'abcd' ''
printf 'r\070\000\000\000\000\000\000\000{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  abcd' >"$out/safetensors/raw"
printf 'r\000\000\000\000\000\000\000\020{}' >"$out/safetensors/claims-2-60"

# ---- model configurations
config=$(cat "$golden/e2e/base/config.json") preprocessor=$(cat "$golden/e2e/base/preprocessor_config.json")
seed hf_config flat "$config" '{"eos_token_id": [388, 386]}' "$preprocessor"
seed hf_config nested "$(cat "$golden/cli/model/config.json")" "$(cat "$golden/cli/model/generation_config.json")" \
	'{"size": {"shortest_edge": 784, "longest_edge": 12544}, "image_mean": [0.5, 0.5, 0.5], "image_std": 0.5, "do_resize": true}'
seed hf_config alone "$config"

# ---- tokenizers
small='{"version":"1.0","added_tokens":[{"id":6,"content":"<|im_start|>","special":true,"normalized":false},{"id":7,"content":"<é>","lstrip":true,"rstrip":true,"single_word":true,"normalized":true}],
"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"(?i:'"'"'s|'"'"'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},
"post_processor":{"type":"ByteLevel"},"decoder":{"type":"ByteLevel"},
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":"","end_of_word_suffix":"","byte_fallback":false,"ignore_merges":false,"vocab":{"a":0,"b":1,"Ġ":2,"ab":3,"Ġa":4,"Ġab":5},"merges":["a b",["Ġ","a"],["Ġ","ab"]]}}'
seed tokenizer small "$small" 'ab ab<|im_start|>b <é> it'"'"'s 12'
seed tokenizer golden "$(cat "$golden/e2e/base/tokenizer.json")" 'Which activity? <|im_start|>'

# ---- configuration
seed config quickstart "$(cat "$root/configs/quickstart.yaml")" 'learner.lr=1e-5' 'placement={rollout: 1, reward: 1, learner: 2}'
seed config short 'method: sft
model: {path: m}
data: {train: a.jsonl, classes: [running, "on the phone"], augment: true}
reward: {accuracy: {mode: visual-rft, weight: 0.5}}
placement: colocate' 'rollout.stop=["\n\n", x]' 'reward.accuracy=visual-rft' 'data.seed=18446744073709551615'

# ---- data sets
seed jsonl plain '{"image": "a.jpg", "label": "running"}
{"image": ["b.jpg", "c/d.png"], "label": "sitting_down", "split": "test", "think": "one sits"}

{"problem": "What is it?", "solution": "<answer>eating</answer>", "target": "<answer>eating</answer>", "image": []}
{"image": "./x/../y.jpg", "label": "é", "other": {"a": [1, null, true, 1.5]}}'
seed jsonl paths '{"image": "../x.jpg", "label": "a"}
{"image": "/etc/x.jpg", "label": "a"}
{"image": "a/./b//../c.jpg", "label": "a"}
{"image": "http://x", "label": "a"}'
seed csv plain 'filename,label,split,other
a.jpg,running,train,"1,2"
"b ""x"".png",sitting down,test,
c/d.webp,"eating",train,"two
lines"
'
seed csv paths 'path,label
../a.jpg,x
/a.jpg,x
a/../../b.jpg,y
a/../b.jpg,y'
seed classes all 'running
sitting_down
Größe
' '{"running": ["jogging", "sprint"], "Größe": ["grosse"]}' 'Which of {classes}? {{x}} {problem} <think>' 'sitting down'

# ---- what models write, and chat templates
seed reward right '<think>She runs.</think> <answer>Running</answer>' 'running' 'jogging'
seed reward hedged '<think>a</think><answer>a</answer><answer>b <answer>c</answer>' 'c' ''
seed reward marks "$(printf '<think>\303\244\314\210\314\243</think>\n<answer> Stra\303\237e_x </answer>\n')" "strasse X" 'ﬁ'
seed template none '' '' '' 'a text'
seed template jinja "{% for m in messages %}<|im_start|>{{ m['role'] }}{% endfor %}" '' '' '{{ 7 * 7 }}{% raw %}<|im_start|>'
seed template json '' '{"chat_template": "{% x %}"}' '{"chat_template": [{"name": "default", "template": "<|im_start|>"}]}' '<|im_end|>'

# ---- a run's folder
seed report run '{"step": 1, "reward": 0.5, "rewards/accuracy/mean": 0.25, "num_tokens": 100, "step_time": 1.5, "samples_digest": "0123"}
{"step": 2, "reward": null, "kl": 1e-3, "loss": 0.1, "num_tokens": 200, "step_time": 1.5}
' '{"step": 1, "group": 0, "sample": 0, "record": 3, "image": "nowhere.jpg", "label": "running", "prompt": "Which?", "response": "<think>a</think><answer>b</answer>", "answer": "b", "rewards": {"accuracy": 0, "format": 1}, "reward": 1, "advantage": -0.7, "tokens": 12, "finish": "stop"}
{"step": 1, "group": 0, "sample": 1, "record": 3, "image": "nowhere.jpg", "label": "running", "prompt": "Which?", "response": "</script><script>alert(1)</script>", "answer": "", "rewards": {"accuracy": 0, "format": 0}, "reward": 0, "advantage": 0.7, "tokens": 3, "finish": "length"}
' 'method: grpo
model: {path: "m<b>"}
learner:
  steps: 2
rollout: {stop: [a, b]}
' '{"accuracy": 0.5, "interval": [0.2, 0.8], "format": 1, "mean_length": 9, "n": 2, "classes": [{"name": "running", "n": 2, "correct": 1, "accuracy": 0.5}], "confusion": [[1, 1]], "predictions": [{"image": "a"}]}'
