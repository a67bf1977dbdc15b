#!/bin/sh
# favor tokenize as a user calls it: there and back, line ends, errors. Usage: test_tokenize.sh PROGRAM
set -eu
program=$1
model=$FAVOR_GOLDEN/data/tiny-tokenizer
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
	echo "FAILED: $1"
	exit 1
}

# there and back: an empty line, a carriage return, an added token, no line end at the end
printf 'the quick <|im_start|>fox\n\nwith CR\r\n  naïve 日本\nlast' >"$work/text"
"$program" tokenize --model "$model" <"$work/text" >"$work/ids"
[ "$(wc -l <"$work/ids")" = 5 ] || fail "5 lines of ids"
[ "$(sed -n 2p "$work/ids")" = "[]" ] || fail "an empty line has no ids"
sed -n 1p "$work/ids" | grep -Eq '^\[[0-9]+(,[0-9]+)*\]$' || fail "a JSON array on one line"
"$program" tokenize --decode --model "$model" <"$work/ids" >"$work/back"
(cat "$work/text" && echo) | cmp - "$work/back" || fail "text -> ids -> text"

# code 2 and one message for each
refused() {
	code=0
	"$program" tokenize "$@" <"$work/in" >/dev/null 2>"$work/err" || code=$?
	[ $code = 2 ] || fail "code $code for: $*"
	[ "$(wc -l <"$work/err")" = 1 ] || fail "one line of message for: $*"
	grep -q -- "$needle" "$work/err" || fail "the message $(cat "$work/err") does not name $needle"
}
: >"$work/in"
needle='--model' refused
needle='--model' refused --model
needle='--nonsense' refused --nonsense
needle='extra' refused --model "$model" extra
needle='tokenizer.json' refused --model "$work"
printf 'good\nbad \377\n' >"$work/in"
needle='line 2.*byte 4' refused --model "$model"
for line in '[1, 2' '{"a": 1}' '["a"]' '[-1]' '[1.5]' ''; do
	printf '[1]\n%s\n' "$line" >"$work/in"
	needle='line 2' refused --model "$model" --decode
done
"$program" tokenize --help | grep -q -- --decode || fail "--help"
echo "all good"
