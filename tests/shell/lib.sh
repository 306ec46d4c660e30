# lib.sh -- what the shell tests share.  Sourced.  A test runs in a fresh directory of its own, which goes with it, and
# fails at the first expectation that does not hold, saying which.
set -u

TEST_DIR=$(mktemp -d "${TMPDIR:-/tmp}/stead-test.XXXXXX") || exit 1
test_pids=
test_end() {
    for pid in $test_pids; do
        kill -KILL "$pid" 2>/dev/null
    done
    rm -rf "$TEST_DIR"
}
trap test_end EXIT
trap 'exit 1' INT TERM
cd "$TEST_DIR" || exit 1

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    for file in out err; do
        [ ! -s "$TEST_DIR/$file" ] || { echo "--- std$file:"; cat "$TEST_DIR/$file"; } >&2
    done
    exit 1
}

# run CODE COMMAND...: the command ends with this exit code; what it wrote is in the files out and err.
run() {
    run_wants=$1
    shift
    "$@" >"$TEST_DIR/out" 2>"$TEST_DIR/err"
    run_code=$?
    [ "$run_code" = "$run_wants" ] || fail "exit code $run_code, not $run_wants, of: $*"
}

# out_is TEXT: what the last command wrote to stdout, exactly.
out_is() {
    [ "$(cat "$TEST_DIR/out")" = "$1" ] || fail "stdout is not: $1"
}

# out_has PATTERN, err_has PATTERN: an extended regular expression matches one of the lines.
out_has() {
    grep -Eq -e "$1" "$TEST_DIR/out" || fail "no line of stdout matches: $1"
}
out_lacks() {
    ! grep -Eq -e "$1" "$TEST_DIR/out" || fail "a line of stdout matches: $1"
}
err_has() {
    grep -Eq -e "$1" "$TEST_DIR/err" || fail "no line of stderr matches: $1"
}

# wait_for COMMAND...: until it succeeds, for at most a minute.
wait_for() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 1200 ] || fail "waited in vain for: $*"
        sleep 0.05
    done
}
