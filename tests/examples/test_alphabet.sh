#!/bin/sh
# Child reads what the parent wrote; writing through a read-only attachment faults; the report has its lines.
. "$1/setup.sh"
run 0 "$example"
out_has '^Read: abcdefghijklmnopqrstuvwxyz$'
out_has '^Faulted, as it should\.$'
out_has '^  number attached:  1$'
out_has '^  creator process:  this one$'
out_has '^  mode:             600$'
