#!/bin/sh
# check: fine stores are fine; a flipped byte is found and named; a file that is none is an error, not a crash.
. "$1/setup.sh"

run 0 "$holder" a.stead sole alloc 1000 100 commit close
run 0 "$stead" check a.stead
out_has '^a\.stead: fine; [0-9]+ pages, 1[0-9]{3} blocks$'
run 0 "$stead" check --json a.stead
json '' LENGTH 1
json '0;fine' IS ON
json '0;problems' IS 0
json '0;first_problem' TYPE NULL

# One flipped bit in the middle of the blocks.
cp a.stead b.stead
size=$(wc -c <b.stead)
at=$((size - 65536 / 2))
byte=$(od -An -tu1 -j $at -N 1 b.stead | tr -d ' ')
printf "\\$(printf %o $((byte ^ 1)))" | dd of=b.stead bs=1 seek=$at conv=notrunc 2>/dev/null
cmp -s a.stead b.stead && fail "the flip did not happen"
run 1 "$stead" check b.stead
out_has '^b\.stead: [0-9]+ problem'
run 1 "$stead" check --json a.stead b.stead
json '' LENGTH 2
json '0;fine' IS ON
json '1;fine' IS OFF
json '1;first_problem' TYPE STRING

# In use.
hold a.stead sole alloc 5 100 commit wait close
run 0 "$stead" check a.stead
release || fail "the neighbour was disturbed: $(cat hold.err)"

# Crashed, recovered only for the look.
run 137 sh -c '"$1" a.stead sole alloc 5 100 commit crash' sh "$holder"
run 0 "$stead" check a.stead

# LIVE and unclean: sound perhaps, but nobody closed it.
run 137 sh -c '"$1" c.stead live alloc 3 50 crash' sh "$holder"
run 1 "$stead" check c.stead

printf 'no store' >d
run 1 "$stead" check d missing a.stead
out_has '^d: '
out_has '^missing: '
out_has '^a\.stead: fine'
