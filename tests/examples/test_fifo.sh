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
wait_fine() {
    for pid in "$@"; do
        wait "$pid" || fail "a process failed: $(cat ./*.err)"
    done
}

pids=
in_background c1 consume 2 && pids="$pids $last_pid"
in_background p1 produce 2000 && pids="$pids $last_pid"
in_background p2 produce 2000 && pids="$pids $last_pid"
in_background c2 consume 2 && pids="$pids $last_pid"
in_background p3 produce 100 5 && pids="$pids $last_pid"
# shellcheck disable=SC2086 # a list of words
wait_fine $pids
[ "$(sum p?.out)" -eq 4100 ] || fail "produced $(sum p?.out)"
[ "$(sum c?.out)" -eq 4100 ] || fail "consumed $(sum c?.out) of 4100"

rm -f ./*.out ./*.err
in_background p1 produce 1000000 && victim1=$last_pid
in_background c1 consume 2 && victim2=$last_pid
in_background p2 produce 3000 && pids=$last_pid
in_background c2 consume 3 && pids="$pids $last_pid"
sleep 0.3
kill -KILL "$victim1" "$victim2"
# shellcheck disable=SC2086 # a list of words
wait_fine $pids
[ "$(sum p2.out)" -eq 3000 ] || fail "the surviving producer did not come to its end"
[ "$(sum c2.out)" -gt 0 ] || fail "the surviving consumer got nothing"
run 0 "$example" q.stead consume 0 # the queue is empty, and whole
out_is 'consumed 0'
run 2 "$example" q.stead
