#!/bin/sh
# test_bank.sh HERE BANK -- the program of the power cuts, killed without one: what it told of is there; a number that it
# did not reach is reported.
. "$1/../shell/lib.sh"
bank=$2

for mode in sole turns; do
    "$bank" run $mode "$mode.stead" >told &
    test_pids=$!
    wait_for grep -q '^durable 4[0-9][0-9]$' told # the store was closed and opened again some times
    kill -KILL $test_pids
    wait $test_pids 2>/dev/null
    last=$(sed '$d' told | tail -n 1 | tr -dc 0-9) # the last line may be half there
    run 0 "$bank" verify $mode "$mode.stead" "$last"
    out_has "^GOOD [0-9]+ commits, $last told of; sum 0;"
    run 1 "$bank" verify $mode "$mode.stead" 1000000000
    out_has '^BAD [0-9]+ commits, 1000000000 told of'
    rm "$mode.stead"
    run 0 "$bank" verify $mode "$mode.stead" 0
    run 1 "$bank" verify $mode "$mode.stead" 1
    out_has '^BAD the open: .*no such store'
done
