#!/bin/sh
# info --locks in SOLE and TURNS, and all that looks inside a LIVE store in which a writer died.
. "$1/setup.sh"

# TURNS: the turn is listed, and keeps nobody from looking.
hold t.stead turns lock alloc 1 16 wait unlock close
run 0 "$stead" info --locks --timeout 100 t.stead
out_has "^lock +process $hold_pid thread [0-9]+ holds exclusive, attached since 20[0-9: -]+ \(turn\)$"
"$holder" t.stead turns lock unlock close </dev/null >waiter.out 2>&1 8>&- &
waiter=$!
test_pids="$test_pids $waiter"
waits() { "$stead" info --timeout 0 --locks t.stead 2>/dev/null | grep -Eq "process $waiter thread [0-9]+ waits for exclusive, for [0-9.]+ s \(turn\)"; }
wait_for waits
run 0 "$stead" info --locks --json --timeout 100 t.stead
json 'locks' LENGTH 2
json 'locks;0;pid' IS "$hold_pid"
json 'locks;0;lock' IS turn
json 'all_locks_seen' IS ON
release || fail "the holder failed: $(cat hold.err)"
wait $waiter || fail "the waiter failed: $(cat waiter.out)"

# SOLE: its threads' lock is its own; that is said, and not "none".
hold s.stead sole alloc 1 16 commit lock wait unlock close
run 0 "$stead" info --locks --timeout 100 s.stead
out_has '^locks +of the writer.s threads: in its own memory, not seen from outside$'
run 0 "$stead" info --locks --json --timeout 100 s.stead
json 'all_locks_seen' IS OFF
release || fail "the holder failed: $(cat hold.err)"
run 0 "$stead" info --locks s.stead
out_has '^locks +none held$'

# SOLE: a reader stays in its section, and what the writer commits waits.
hold w.stead sole alloc 1 16 commit line alloc 1 100 commit line close
writer=$hold_pid
exec 7>&8 # its standard input
run 0 "$stead" info w.stead
grep -q '^held off' out && fail "nobody is in the way"
hold w.stead read share wait unlock close
reader=$hold_pid
echo >&7
held_off() { "$stead" info w.stead | grep -Eq "^held off +by process $reader, since 20"; }
wait_for held_off
run 0 "$stead" info w.stead
out_has '^waiting +[0-9.]+ KiB '
run 0 "$stead" info --json --locks w.stead
json 'held_off_pid' IS "$reader"
json 'held_off_since' TYPE STRING
json 'locks;0;lock' IS application
json 'locks;0;attached' TYPE STRING
run 0 "$stead" info --locks w.stead
out_has "^lock +process $reader thread [0-9]+ holds shared, attached since 20.* \(application\)$"
release || fail "the reader failed: $(cat hold.err)"
run 0 "$stead" info w.stead
grep -q '^held off' out && fail "the reader has gone: $(cat out)"
exec 7>&-
wait $writer || fail "the writer failed: $(cat hold.err)"

# LIVE: dead inside, not repaired.
hold l.stead live alloc 3 16 bind one wait close
"$holder" l.stead live lock crash </dev/null >/dev/null 2>&1
for round in 1 2; do # looking does not use the news up
    run 1 "$stead" info l.stead
    out_has '^state +owner died$'
    out_has '^live blocks +4$'
    run 1 "$stead" info --locks --json l.stead
    json 'state' IS 'owner died'
    json 'locks' TYPE ARRAY
    run 1 "$stead" names l.stead
    out_has ' one$'
    run 1 "$stead" blocks --summary l.stead
    out_has '^'
    run 1 "$stead" blocks --json l.stead
    json '' LENGTH 4
    run 1 "$stead" backup l.stead copy.stead
    [ ! -e copy.stead ] || fail "a backup of what is half made"
done
# ... and given up by the next one, which does not repair.
"$holder" l.stead live give-up </dev/null >waiter.out 2>&1 || fail "the next writer was not told: $(cat waiter.out)"
run 1 "$stead" info --locks l.stead
out_has '^state +not recoverable$'
out_has '^locks +none held$'
run 1 "$stead" names l.stead
out_has ' one$'
release
