#!/bin/sh
# Two clerks and one who is killed in the middle of a transfer: the sum is what it was, run after run.
. "$1/setup.sh"
run 0 "$example" a.stead 200
out_is '500 transfers, 100000 in all accounts' # 200 + 200, and the killed one's 100
run 0 "$example" a.stead 100
out_is '750 transfers, 100000 in all accounts'
