#!/bin/sh
# Committed counts stay, rolled back and crashed ones never were.
. "$1/setup.sh"
for n in 1 2 3; do
    run 0 "$example" a.stead
    out_is $n
done
run 137 sh -c '"$1" a.stead crash' sh "$example" # commits the 4, dies over the 100
run 0 "$example" a.stead
out_is 5
