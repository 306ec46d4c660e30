# setup.sh -- sourced by every test of the command line: $1 is this folder, $2 the command, $3 the neighbour, $4 cmake.
here=$(cd "$1" && pwd)
stead=$2
holder=$3
cmake=$4
. "$here/../shell/lib.sh"
SECTION="stead-test-$$"
export TZ=UTC

# json [PATH [IS value | TYPE t | LENGTH n]]: about what the last command wrote.
json() {
    set -- -D "FILE=$TEST_DIR/out" ${1:+-D "PATH=$1"} ${2:+-D "$2=$3"}
    "$cmake" "$@" -P "$here/json.cmake" >"$TEST_DIR/json_err" 2>&1 || fail "$(cat "$TEST_DIR/json_err")"
}

# hold ARG...: a neighbour in the background; returns when it is ready.  release: it may go on to its end.
hold() {
    rm -f hold.in hold.out
    mkfifo hold.in
    "$holder" "$@" <hold.in >hold.out 2>hold.err &
    hold_pid=$!
    test_pids="$test_pids $hold_pid"
    exec 8>hold.in
    wait_for grep -q ready hold.out
}
release() {
    exec 8>&-
    wait "$hold_pid"
}
