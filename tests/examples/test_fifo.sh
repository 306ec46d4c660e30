#!/bin/sh
# Three producers and two consumers, started in any order; every message arrives once, in order; then the same with a
# producer and a consumer killed in the middle: what they held is lost at most, nobody waits for ever, and the rest
# arrives.
. "$1/setup.sh"

sum() { cat "$@" | awk '/^(produced|consumed) / { n += $2 } END { print n + 0 }'; }

in_background() { # NAME ARG...
    name=$1
    shift
    "$example" q.stead "$@" >"$name.out" 2>"$name.err" &
    last_pid=$!
    test_pids="$test_pids $last_pid"
}
# Consumers end after a silence, of a second here; on a machine that stands still that is no sign that all have come.  So
# they begin anew until the producers are done, and then once more.
consumer() {
    until [ -e produced ]; do
        "$example" q.stead consume 1 || return
    done
    "$example" q.stead consume 1
}
consume_in_background() { # NAME
    consumer >"$1.out" 2>"$1.err" &
    last_pid=$!
    test_pids="$test_pids $last_pid"
}
wait_fine() {
    for pid in "$@"; do
        wait "$pid" || fail "a process failed: $(cat ./*.err)"
    done
}

producers=
consume_in_background c1 && consumers=$last_pid
in_background p1 produce 2000 && producers="$producers $last_pid"
in_background p2 produce 2000 && producers="$producers $last_pid"
consume_in_background c2 && consumers="$consumers $last_pid"
in_background p3 produce 100 5 && producers="$producers $last_pid"
# shellcheck disable=SC2086 # a list of words
wait_fine $producers && : >produced && wait_fine $consumers
[ "$(sum p?.out)" -eq 4100 ] || fail "produced $(sum p?.out)"
[ "$(sum c?.out)" -eq 4100 ] || fail "consumed $(sum c?.out) of 4100"

rm -f ./*.out ./*.err produced
in_background p1 produce 1000000 && victim1=$last_pid
in_background c1 consume 20 && victim2=$last_pid
in_background p2 produce 3000 && producers=$last_pid
consume_in_background c2 && consumers=$last_pid
sleep 0.3
kill -KILL "$victim1" "$victim2"
wait "$victim1" "$victim2"
in_background p3 produce 100 && producers="$producers $last_pid" # nobody but c2 can have these
# shellcheck disable=SC2086 # a list of words
wait_fine $producers && : >produced && wait_fine $consumers
[ "$(sum p2.out p3.out)" -eq 3100 ] || fail "the surviving producers did not come to their end"
[ "$(sum c2.out)" -ge 100 ] || fail "the surviving consumer got $(sum c2.out)"
run 0 "$example" q.stead consume 0 # the queue is empty, and whole
out_is 'consumed 0'
run 2 "$example" q.stead
