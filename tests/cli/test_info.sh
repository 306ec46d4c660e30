#!/bin/sh
# info: the facts of a sealed store, of one in use, of one whose process died; and it changes nothing.
. "$1/setup.sh"

run 0 "$holder" a.stead sole alloc 10 100 commit close
before=$(cksum <a.stead)
run 0 "$stead" info a.stead
out_has '^store +a\.stead$'
out_has '^id +[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'
out_has '^state +clean$'
out_has '^sharing +sole$'
out_has '^attached +0$'
out_has '^live blocks +10$'
out_has '^capacity +64\.0 GiB \(68719476736\)$'
out_has '^mode +-rw-------$'
out_has '^last change +2[0-9]{3}-'
run 0 "$stead" info --json a.stead
json store IS a.stead
json state IS clean
json live_blocks IS 10
json attached IS 0
json file_bytes IS "$(wc -c <a.stead | tr -d ' ')"
json owner IS "$(id -u)"
json recovered TYPE BOOLEAN
[ "$(cksum <a.stead)" = "$before" ] || fail "info changed the file"
[ "$(ls)" = "$(printf 'a.stead\nerr\njson_err\nout')" ] || fail "info left something behind: $(ls)"

# Without write permission, for file and directory (root may write all the same: then this shows less).
chmod 400 a.stead
run 0 "$stead" info a.stead
chmod 600 a.stead

# In use, in each mode: seen, not disturbed.
for mode in sole turns live; do
    run 0 "$holder" $mode.stead $mode close
    hold $mode.stead $mode wait close
    run 0 "$stead" info --json $mode.stead
    json state IS 'in use'
    json sharing IS $mode
    json attached IS 1
    release || fail "$mode: the neighbour was disturbed: $(cat hold.err)"
    run 0 "$stead" info --json $mode.stead
    json state IS clean
done

# SOLE, killed: read through a private replay, and the log stays for the next opener.
run 137 sh -c '"$1" b.stead sole alloc 3 50 commit alloc 4 50 crash' sh "$holder"
[ -e b.stead-wal ] || fail "a crash left no log"
before=$(cat b.stead b.stead-wal | cksum)
run 0 "$stead" info --json b.stead
json state IS recovered
json recovered IS ON
json live_blocks IS 3
[ "$(cat b.stead b.stead-wal | cksum)" = "$before" ] || fail "info changed a crashed store"

# LIVE, killed: unclean, said so, and still so after the look.
run 137 sh -c '"$1" c.stead live alloc 3 50 crash' sh "$holder"
for again in 1 2; do
    run 1 "$stead" info --json c.stead
    json state IS unclean
    json accepted_unclean IS OFF # by this look only
    err_has 'c\.stead'
done

# Garbage.
printf 'no store' >d
run 1 "$stead" info d
err_has '^stead info: d: '
head -c 100000 /dev/zero >e
run 1 "$stead" info e
run 1 "$stead" info .
