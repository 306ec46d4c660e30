#!/bin/sh
# The tree grows over runs, shrinks, is always in order, and needs nothing but its one file.
. "$1/setup.sh"
run 0 "$example" a.stead insert m c x a e q z
run 0 "$example" a.stead insert e p m
run 0 "$example" a.stead list
out_is "$(printf '%s\n' a c e m p q x z)"
run 0 "$example" a.stead remove c z m nothing
run 0 "$example" a.stead list
out_is "$(printf '%s\n' a e p q x)"
run 0 "$example" a.stead remove a e p q x
run 0 "$example" a.stead list
out_is ''
[ ! -e a.stead-wal ] || fail "a log was left"
run 2 "$example" a.stead
