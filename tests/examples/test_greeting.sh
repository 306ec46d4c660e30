#!/bin/sh
# The text outlives its writer, is replaced by the next one, and goes when it is removed.
. "$1/setup.sh"
trap '"$example" remove >/dev/null 2>&1; test_end' EXIT
"$example" remove >/dev/null 2>&1
run 1 "$example" read
err_has 'stead-greeting'
run 0 "$example" write 'Hello from shared memory!'
run 0 "$example" read
out_is 'Hello from shared memory!'
run 0 "$example" write 'Hello again.'
run 0 "$example" read
out_is 'Hello again.'
run 0 "$example" remove
run 1 "$example" read
run 1 "$example" remove
run 2 "$example"
