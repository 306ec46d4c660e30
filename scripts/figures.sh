#!/bin/sh
# figures.sh BUILD [DIR [PART...]] -- every figure of docs/benchmarks.md, one command after the other, about half an hour.
#
# DIR (default: BUILD/figures) is on the disk to be measured; its scratch files need 8 GiB and go again.  PARTs are rows' first
# words in the table below (default: all of them).  Run it on a machine that does nothing else.
set -eu
build=$1
directory=${2:-$1/figures}
[ $# -lt 2 ] || shift
shift
parts=$*
mkdir -p "$directory"

# part      program and options
table='
tree        tree   --mode sole --threads 1 --reps 5
tree        tree   --mode sole --threads 2 --reps 5
tree        tree   --mode sole --threads 4 --reps 5
tree        tree   --mode live --threads 1 --reps 5
tree        tree   --mode live --threads 2 --reps 5
tree        tree   --mode live --threads 4 --reps 5
turns       tree   --mode turns --count 5000 --reps 3
turns       tree   --mode turns --processes 2 --count 1000 --reps 3
turns       tree   --mode turns --processes 4 --count 1000 --reps 3
open        open   --reps 30
durable     commit --only durable --rounds 5 --batch 120
buffered    commit --only buffered --rounds 3 --resident 0
resident    commit --only buffered --rounds 5 --resident 4096 --stead-only
threads     commit --only threads --size 64 --rounds 3 --batch 160
forbidden   commit --only buffered,load --rounds 3 --resident 0 --load 256 --stead-only --forbid perf
forbidden   commit --only buffered,load --rounds 3 --resident 0 --load 256 --stead-only --forbid all
load        commit --only load --rounds 3
recover     commit --only recover --rounds 5
latency     commit --only latency --latency 8 --rounds 2
touch       touch  --rounds 5
misses      misses --rounds 3
alloc       alloc  --works pair,churn --reps 24 --peers stead,mimalloc,jemalloc
alloc       alloc  --works bulk --reps 8 --peers stead,mimalloc,jemalloc
cross       alloc  --works cross,larson,xmalloc --reps 12 --peers stead,mimalloc,jemalloc
lock        lock   -r 15
'
for part in $parts; do
    printf '%s\n' "$table" | grep -q "^$part " || { echo "figures: there is no part \"$part\"" >&2; exit 2; }
done
failed=
while read -r part program options; do
    [ -n "$part" ] || continue
    case " ${parts:-$part} " in
    *" $part "*) ;;
    *) continue ;;
    esac
    printf '\n### %s %s\n' "$program" "$options"
    # shellcheck disable=SC2086 # a list of words
    set -- $options
    case "$program" in
    lock | misses) ;; # they need no file
    *) set -- "$@" --dir "$directory" ;;
    esac
    "$build/bench/$program" "$@" || failed="$failed $part"
done <<END
$table
END
[ -z "$failed" ] || { echo "figures: failed:$failed" >&2; exit 1; }
