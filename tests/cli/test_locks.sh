#!/bin/sh
# info --locks: who holds, who waits, in LIVE.
. "$1/setup.sh"

hold a.stead live alloc 1 16 lock wait unlock close
first=$hold_pid
exec 7>&8 # keeps the first neighbour waiting
run 1 "$stead" info --locks --timeout 100 a.stead # it does not wait for the holder
out_has '^state +locked$'
out_has "^lock +process $first thread [0-9]+ holds exclusive"
run 1 "$stead" info --locks --json --timeout 0 a.stead
json 'state' IS locked
json 'locks' LENGTH 1
json 'locks;0;pid' IS "$first"
json 'locks;0;mode' IS exclusive
json 'locks;0;waiting' IS OFF
json 'locks;0;alive' IS ON
for verb in names blocks check; do
    run 1 "$stead" $verb --timeout 100 a.stead
done
run 1 "$stead" backup --timeout 100 a.stead b.stead
[ ! -e b.stead ] || fail "a backup of what is being changed"

"$holder" a.stead live share unlock close </dev/null >waiter.out 2>&1 7>&- 8>&- & # else it holds the fifo open
waiter=$!
test_pids="$test_pids $waiter"
waits() { "$stead" info --timeout 0 --locks a.stead 2>/dev/null | grep -Eq "process $waiter thread [0-9]+ waits for shared, for [0-9.]+ s"; }
wait_for waits
exec 7>&-
release || fail "the holder failed: $(cat hold.err)"
wait $waiter || fail "the waiter failed: $(cat waiter.out)"
run 0 "$stead" info --locks a.stead
out_has '^locks +none held'
