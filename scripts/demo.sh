#!/bin/sh
# demo.sh BUILD [FILE] -- what stead is for, in five steps on a real file; see ./run demo.
set -eu
tree=$1/bench/tree
stead=$1/tools/stead
if [ $# -gt 1 ]; then
    file=$2
    [ ! -e "$file" ] || { echo "demo: $file exists already; name one that does not" >&2; exit 1; }
else
    directory=$(mktemp -d "$1/demo.XXXXXX") # in the build directory: /tmp is often in memory
    trap 'rm -rf "$directory"' EXIT
    trap 'exit 1' INT TERM
    file=$directory/tree.stead
fi
# The demonstration wants a real disk; a file in memory shows the same, only not the disk's part in the figures.
[ "$(stat -f -c %T "$(dirname "$file")" 2>/dev/null)" != tmpfs ] || echo "note: $file is on tmpfs, in memory"

step() { printf '\n=== %s\n' "$1"; }
show() {
    printf '$ %s\n' "$*"
    "$@"
}

step "1. A process builds a binary tree of 200,000 linked nodes in $file, and ends"
show "$tree" --file "$file" --keep --mode sole --threads 2 --count 100000
show "$stead" info "$file"

step "2. A new process finds it, through the root pointer; every pointer is valid as it stands"
show "$tree" --file "$file" --keep --mode sole --threads 2 --count 100000

step "3. A process inserts more, commits every 10,000, and is killed in the middle of an insert"
killed=$(show "$tree" --file "$file" --keep --mode sole --threads 2 --count 100000 --commit-every 10000 --kill-at 55555)
printf '%s\n' "$killed" # by the coordinator of the processes, which saw the signal
case $killed in
*'killed in the middle'*) ;;
*) echo "demo: the process was to be killed, and was not" >&2; exit 1 ;;
esac
show "$stead" info "$file"
show "$stead" check "$file"

step "4. The next process finds the last commit, nothing less and nothing half made"
show "$tree" --file "$file" --keep --mode sole --threads 2 --count 100000
show "$stead" check "$file"

step "5. The same tree side by side: stead, plain malloc with a pthread_rwlock, LMDB (short run; see docs/benchmarks.md)"
echo "Median [least .. most], then this row's time divided by the other's: 0.50 x is twice as fast as the other."
for threads in 1 2 4; do
    show "$tree" --mode sole --threads $threads --count 50000 --reps 3 --dir "$(dirname "$file")"
done

step "Done"
if [ -n "${directory:-}" ]; then
    echo "The file was scratch and is gone.  To keep one: ./run demo FILE, then look at it with $stead."
else
    echo "The tree is in $file: $stead info $file"
fi
