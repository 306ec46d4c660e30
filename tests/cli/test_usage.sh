#!/bin/sh
# Usage errors are 2 and explained on stderr; help is 0 and on stdout; every verb explains itself.
. "$1/setup.sh"

run 2 "$stead"
err_has '^usage: stead VERB'
run 0 "$stead" help
for verb in info check ls rm backup names blocks sem; do
    out_has "^  $verb "
done
for verb in info check ls rm backup names blocks sem; do
    run 0 "$stead" help $verb
    out_has "^usage: stead $verb"
    run 0 "$stead" $verb --help
    out_has "^usage: stead $verb"
    run 2 "$stead" $verb --nonsense
    err_has 'no option --nonsense'
done
run 0 "$stead" --version
out_has '^stead [0-9]+\.[0-9]+\.[0-9]+$'
run 2 "$stead" frobnicate
err_has 'no verb "frobnicate"'
run 2 "$stead" help frobnicate
run 2 "$stead" info
run 2 "$stead" info a b
run 2 "$stead" check
run 2 "$stead" backup a
run 2 "$stead" rm
run 2 "$stead" info --timeout soon x
err_has 'wants milliseconds'
run 2 "$stead" info --timeout
run 2 "$stead" info --json=yes x
err_has 'takes no value'
run 2 "$stead" names --locks x # an option of another verb

run 1 "$stead" info missing
err_has '^stead info: missing: .*/missing: there is no such store$'
run 1 "$stead" info "$TEST_DIR/missing" # named once
err_has "^stead info: $TEST_DIR/missing: there is no such store\$"
run 1 "$stead" check "$TEST_DIR/missing"
out_is "$TEST_DIR/missing: there is no such store"
run 1 "$stead" rm semaphore:missing-here
err_has 'there is no semaphore named "missing-here"'
run 1 "$stead" sem missing-here
err_has 'there is no semaphore and no event of that name'
run 2 "$stead" rm --stale missing # not a section: nothing it could mean
err_has 'about sections in memory'
run 1 "$stead" info -- --json # a file that is called so
err_has '^stead info: --json'
run 1 sh -c '"$1" help >/dev/full' sh "$stead" # output that cannot be written is a failure
