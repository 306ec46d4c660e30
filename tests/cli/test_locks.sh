#!/bin/sh
# info --locks: who holds, who waits, in LIVE.
. "$1/setup.sh"

hold a.stead live alloc 1 16 lock wait unlock close
first=$hold_pid
exec 7>&8 # keeps the first neighbour waiting
run 0 "$stead" info --locks a.stead
out_has "^lock +process $first thread [0-9]+ holds exclusive"
run 0 "$stead" info --locks --json a.stead
json 'locks' LENGTH 1
json 'locks;0;pid' IS "$first"
json 'locks;0;mode' IS exclusive
json 'locks;0;waiting' IS OFF
json 'locks;0;alive' IS ON

"$holder" a.stead live share unlock close </dev/null >waiter.out 2>&1 &
waiter=$!
test_pids="$test_pids $waiter"
waits() { "$stead" info --locks a.stead | grep -Eq "process $waiter thread [0-9]+ waits for shared, for [0-9.]+ s"; }
wait_for waits
exec 7>&-
release || fail "the holder failed: $(cat hold.err)"
wait $waiter || fail "the waiter failed: $(cat waiter.out)"
run 0 "$stead" info --locks a.stead
out_has '^locks +none held'
