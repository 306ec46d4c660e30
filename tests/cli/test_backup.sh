#!/bin/sh
# backup: a sealed copy of the last commit, of a store at rest, in use, and crashed; never over something.
. "$1/setup.sh"

copy_has() { # COPY BLOCKS
    run 0 "$stead" check "$1"
    run 0 "$stead" info --json "$1"
    json state IS clean
    json live_blocks IS "$2"
    [ ! -e "$1-wal" ] || fail "$1 has a log"
}

run 0 "$holder" a.stead sole alloc 10 100 commit close
run 0 "$stead" backup a.stead rest.stead
copy_has rest.stead 10
run 1 "$stead" backup a.stead rest.stead
err_has 'rest\.stead'

hold a.stead sole alloc 5 100 commit alloc 7 100 wait commit close
run 0 "$stead" backup a.stead used.stead
copy_has used.stead 15 # the last commit, not what is being written
release || fail "the neighbour was disturbed: $(cat hold.err)"
run 0 "$stead" info --json a.stead
json live_blocks IS 22

run 137 sh -c '"$1" a.stead sole alloc 1 100 commit alloc 1 100 crash' sh "$holder"
run 0 "$stead" backup a.stead crashed.stead
copy_has crashed.stead 23

hold b.stead live alloc 4 100 wait close
run 0 "$stead" backup b.stead live.stead
copy_has live.stead 4
release || fail "the neighbour was disturbed: $(cat hold.err)"

run 137 sh -c '"$1" c.stead live alloc 4 100 crash' sh "$holder"
run 1 "$stead" backup c.stead unclean.stead
[ ! -e unclean.stead ] || fail "a copy of what nobody can vouch for"
run 1 "$stead" backup missing x.stead
[ ! -e x.stead ] || fail "a copy of nothing"
