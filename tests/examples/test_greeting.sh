#!/bin/sh
# The text outlives its writer, is replaced by the next one, and goes when it is removed.
. "$1/setup.sh"
section=shm:stead-greeting-$$ # of this run alone: several may go on at once
trap '"$example" remove $section >/dev/null 2>&1; test_end' EXIT
run 1 "$example" read $section
err_has "stead-greeting-$$"
run 0 "$example" write 'Hello from shared memory!' $section
run 0 "$example" read $section
out_is 'Hello from shared memory!'
run 0 "$example" write 'Hello again.' $section
run 0 "$example" read $section
out_is 'Hello again.'
run 0 "$example" remove $section
run 1 "$example" read $section
run 1 "$example" remove $section
run 2 "$example"
run 2 "$example" write
run 2 "$example" read $section more
