#!/bin/sh
# names, blocks: what is in a store; hostile names reach neither the terminal nor the JSON as they are.
. "$1/setup.sh"

run 0 "$holder" a.stead sole alloc 5 100 alloc 2 5000 bind alpha bind 'b\033[31m\012c' bind 'bad\377utf' bind 'gr\303\274n "q\134' commit close
run 0 "$stead" names a.stead
out_has ' alpha$'
out_has ' b\\x1b\[31m\\x0ac$'
out_has ' bad\\xffutf$'
out_has ' gr.+n "q\\x5c$'
[ "$(wc -l <out)" -eq 4 ] || fail "not four names"
[ "$(tr -d '\n' <out | LC_ALL=C tr -cd '\001-\037\177' | wc -c)" -eq 0 ] || fail "a control character came through"
run 0 "$stead" names --json a.stead
json '' LENGTH 4
grep -q '"alpha"' out || fail "alpha is not in the JSON"
grep -q 'b\\u001b\[31m\\u000ac' out || fail "the escape is not escaped"
grep -q 'bad\\ufffdutf' out || fail "what is no UTF-8 is not replaced"

run 0 "$stead" blocks a.stead
lines=$(wc -l <out)
run 0 "$stead" info --json a.stead
json live_blocks IS "$lines"
run 0 "$stead" blocks --json a.stead
json '' LENGTH "$lines"
json '0;usable_bytes' TYPE NUMBER
run 0 "$stead" blocks --summary a.stead
[ "$(awk '{ sum += $(NF - 3) } END { print sum }' out)" -eq "$lines" ] || fail "the summary counts otherwise"
out_has 'up to [0-9.]+ KiB +2 blocks'
run 0 "$stead" blocks --summary --json a.stead
json '' TYPE ARRAY

run 0 "$holder" empty.stead sole close
run 0 "$stead" names empty.stead
out_is ''
run 0 "$stead" names --json empty.stead
json '' LENGTH 0

# What is in a name reaches no terminal as it is, by stderr neither.
evil=$(printf 'e\033[31m\nil')
printf 'no store' >"$evil"
for verb in info names blocks check rm; do
    run 1 "$stead" $verb "$evil"
    [ "$(cat out err | tr -d '\n' | LC_ALL=C tr -cd '\001-\037\177' | wc -c)" -eq 0 ] ||
        fail "a control character came through: $verb"
    [ "$(cat out err | wc -l)" -eq 1 ] || fail "not one line: $verb"
done
err_has 'stead rm: e\\x1b\[31m\\x0ail: '
