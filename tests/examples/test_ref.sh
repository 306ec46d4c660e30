#!/bin/sh
# The copy of a store that is open is read at another address.
. "$1/setup.sh"
run 0 "$example" a.stead
out_is 'another address, sums 5050 and 5050'
[ ! -e a.stead.copy ] || fail "the copy was left"
