#!/bin/sh
# The second release converts, the first one then refuses, a new store needs no conversion.
. "$1/setup.sh"
run 0 "$example" a.stead 1
out_is 'release 1: 20 degrees'
run 0 "$example" a.stead 2
out_is 'release 2: 20000 thousandths at unknown'
run 0 "$example" a.stead 2
out_is 'release 2: 20000 thousandths at unknown'
run 1 "$example" a.stead 1
err_has 'a\.stead'
run 0 "$example" b.stead 2
out_is 'release 2: 0 thousandths at new'
