#!/bin/sh
# Of many first accessors exactly one initialises; no addition is lost; the value persists.
. "$1/setup.sh"
i=0
while [ $i -lt 8 ]; do
    "$example" a.stead add 1 >"out.$i" 2>"err.$i" &
    pids="${pids:-} $!"
    i=$((i + 1))
done
for pid in $pids; do
    wait "$pid" || fail "an accessor failed: $(cat err.*)"
done
[ "$(cat out.* | grep -c '^initialised$')" -eq 1 ] || fail "initialised $(cat out.* | grep -c '^initialised$') times"
run 0 "$example" a.stead get
out_is 15
run 0 "$example" a.stead set 42
run 0 "$example" a.stead get
out_is 42
run 2 "$example" a.stead
