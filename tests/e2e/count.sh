# Runs test suites and counts their cases, for tests/run.sh and tests/nightly.sh, which source it.
#
# Whatever happens, the last line is "N passed, N failed" or "N passed, N failed, N skipped", and the exit code is 0 only if nothing failed.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
logs=$root/build/logs # one file a suite; the newest run's
rm -rf "$logs"
mkdir -p "$logs"
sums=$logs/sums # a line a suite: passed, failed, skipped
: >"$sums"
over= lanes=

# the sanitizers' word is final, and what they find is a failure; tests may set further options of their own
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export LSAN_OPTIONS=suppressions=$root/tests/e2e/lsan.supp:print_suppressions=0
# where the packages put h5py
export PYTHON="${PYTHON:-/usr/bin/python3}"
# Ranks share few cores; Open MPI refuses root unless it is told.
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMP_WAIT_POLICY=passive
if [ "$(id -u)" -eq 0 ]; then
	export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# What was started here and still runs ends with this script, suites in process groups of their own too; what is deaf to SIGTERM, ten seconds later.
end_all() {
	below=$(ps -e -o pid=,ppid= | awk -v top=$$ '{ parent[$1] = $2 }
		END { for (p in parent) { for (q = p; q > 1 && q != top; q = parent[q]); if (q == top && p != top) print p } }')
	# shellcheck disable=SC2086
	kill $below 2>/dev/null
	for _ in $(seq 100); do
		# shellcheck disable=SC2086
		ps -o stat= -p "$(echo $below | tr ' ' ,)" 2>/dev/null | grep -qv '^Z' || return
		sleep 0.1
	done
	# shellcheck disable=SC2086
	kill -KILL $below 2>/dev/null
}

last_line() {
	end_all
	[ "$over" ] || echo 0 1 0 >>"$sums" # ended before its end
	# shellcheck disable=SC2046
	set -- $(awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }' "$sums")
	passed=$1 failed=$2 skipped=$3
	if [ $skipped -gt 0 ]; then
		echo "$passed passed, $failed failed, $skipped skipped"
	else
		echo "$passed passed, $failed failed"
	fi
	exit $((failed > 0)) # in a trap, exit alone would give the code from before it
}
trap last_line EXIT
trap 'echo "interrupted"; exit 1' INT TERM

# Arguments of compile. No -Werror: gcc warns of code that the sanitizers put in. For gcc -O1, and of debug information the lines alone, which is all
# that reports show: it compiles much faster so.
sanitized="-Dwerror=false -Db_sanitize=address,undefined -Db_lundef=false"
gcc_sanitized="build-asan --buildtype=debugoptimized -Doptimization=1 -Dc_args=-g1 -Dcpp_args=-g1 $sanitized"
clang_sanitized="build-clang-asan --native-file tests/e2e/clang.ini --buildtype=debugoptimized $sanitized"

now() {
	date +%s
}

# say NAME PASSED FAILED SKIPPED SECONDS: a suite's line; adds to the sums
say() {
	echo "$2 $3 $4" >>"$sums"
	printf '%-40s %4d passed  %3d failed  %3d skipped  %4d s\n' "$1" "$2" "$3" "$4" "$5"
}

# await LOG COMMAND...: runs it and returns its code; a signal to this script is heard at once, not when the command has ended
await() {
	await_log=$1
	shift
	"$@" >"$await_log" 2>&1 &
	wait $!
}

# step NAME COMMAND...: one case, which is passed if the command succeeds. Returns what the command returns.
step() {
	step_name=$1 step_begin=$(now)
	step_log=$logs/$(echo "$1" | tr -c 'a-zA-Z0-9\n' -).log
	shift
	if await "$step_log" "$@"; then
		say "$step_name" 1 0 0 $(($(now) - step_begin))
		return 0
	fi
	tail -n 30 "$step_log" | sed 's/^/    /'
	echo "FAIL: $step_name (all of it: $step_log)"
	say "$step_name" 0 1 0 $(($(now) - step_begin))
	return 1
}

# count PATTERN FILE
count() {
	grep -Ec "$1" "$2"
}

# script NAME COMMAND...: a script suite, which prints "ok: ", "FAIL: " or "skipped: " lines. It is ended after $suite_seconds (half an hour).
script() {
	script_name=$1 script_begin=$(now)
	script_log=$logs/$(echo "$1" | tr -c 'a-zA-Z0-9\n' -).log
	shift
	await "$script_log" timeout -k 10 "${suite_seconds:-1800}" "$@"
	script_code=$?
	script_ok=$(count '^ok: ' "$script_log") script_bad=$(count '^FAIL: ' "$script_log")
	script_skips=$(count '^skipped: ' "$script_log")
	if [ $script_code -ne 0 ] && [ "$script_bad" -eq 0 ] || [ $((script_ok + script_bad + script_skips)) -eq 0 ]; then
		echo "FAIL: $script_name ended with exit code $script_code:"
		tail -n 20 "$script_log" | sed 's/^/    /'
		script_bad=1
	else
		sed -n '/^FAIL: /,/^\(ok\|skipped\): /{/^\(ok\|skipped\): /!p}; /^skipped: /p' "$script_log"
	fi
	say "$script_name" "$script_ok" "$script_bad" "$script_skips" $(($(now) - script_begin))
}

# units NAME BUILD ARGUMENTS...: meson's tests of a build folder
units() {
	units_name=$1 units_build=$2 units_begin=$(now)
	units_log=$logs/$(echo "$1" | tr -c 'a-zA-Z0-9\n' -).log
	shift 2
	await "$units_log" meson test -C "$units_build" --no-rebuild "$@"
	units_code=$?
	units_text=$(ls -t "$units_build"/meson-logs/testlog*.txt | head -n 1)
	result='^ *[0-9]+/[0-9]+ .* '
	units_ok=$(count "$result(OK|EXPECTEDFAIL) " "$units_log")
	units_skips=$(count "$result""SKIP " "$units_log")
	units_bad=$(count "$result(FAIL|TIMEOUT|ERROR|INTERRUPT|UNEXPECTEDPASS) " "$units_log")
	if [ $units_code -ne 0 ] && [ "$units_bad" -eq 0 ] || [ $((units_ok + units_skips + units_bad)) -eq 0 ]; then
		echo "FAIL: $units_name: meson test ended with exit code $units_code:"
		tail -n 20 "$units_log" | sed 's/^/    /'
		units_bad=1
	fi
	grep -E "$result(FAIL|TIMEOUT|ERROR|INTERRUPT|UNEXPECTEDPASS|SKIP) " "$units_log" |
		while IFS= read -r line; do
			case $line in
			*" SKIP "*) echo "skipped: $units_name: $line" ;;
			*) echo "FAIL: $units_name: $line" ;;
			esac
			tail_of_test "$units_text" "$(echo "$line" | sed 's|^ *[0-9]*/[0-9]* *||; s|  .*||')"
		done
	# cases that a test program left out by itself, with what it said before
	left_out='^\[  SKIPPED \] [a-z]'
	grep -EB 1 "$left_out" "$units_text" | grep -Ev '^--|^\[ RUN|listed below' | sort -u | sed "s/^/skipped: $units_name: /"
	units_skips=$((units_skips + $(grep -E "$left_out" "$units_text" | sort -u | wc -l)))
	say "$units_name" "$units_ok" "$units_bad" "$units_skips" $(($(now) - units_begin))
}

# tail_of_test LOG NAME: the last lines that a test printed, from meson's log of all tests
tail_of_test() {
	awk -v name="$2" '/^test: / { on = substr($0, 7); sub(/^ */, "", on); on = on == name } /^=+( Summary|$| *[0-9]+\/)/ { on = 0 } on' "$1" |
		grep -Ev '^(test|start time|duration|result|command): ' | tail -n 25 | sed 's/^/    /'
}

# compile NAME BUILD ARGUMENTS...: one case; the arguments are of meson setup, where the folder is not there yet
compile() {
	compile_name=$1
	shift
	step "$compile_name" tests/e2e/build.sh "$@"
}

# lane FUNCTION [NICENESS]: suites that go on beside those of other lanes, in the background; end_lanes waits for all. A lane that ends before its end
# is a failure.
lane() {
	(
		renice -n "${2:-0}" -p "$(exec sh -c 'echo $PPID')" >/dev/null
		"$1"
		exit 0
	) &
	lanes="$lanes $!"
}

end_lanes() {
	for one_lane in $lanes; do
		wait "$one_lane" || {
			echo "FAIL: suites of one lane ended before their end"
			say "a lane" 0 1 0 0
		}
	done
	lanes=
}

# build_ahead COMMAND...: each a line of shell that builds what a later suite wants, one after the other, in the background. They have the lowest
# priority: what is left of the processors by suites that mostly wait. The suite itself finds it ready, or waits for it (tests/e2e/build.sh), or
# builds it again and says why it can't be built.
build_ahead() {
	printf '%s\n' "$@" >"$logs/ahead.sh"
	# a process group of its own, which is ended as one. With a session comes a scheduling group where the kernel makes these (autogroup), among which
	# nice alone counts for nothing: it gets the lowest priority, too.
	setsid nice -n 19 sh -c 'echo 19 >/proc/self/autogroup; exec sh "$1"' sh "$logs/ahead.sh" >"$logs/ahead.log" 2>&1 &
}
