#!/bin/sh
# test_misuse.sh MISUSE -- memcheck reports each mistake in a stead heap, and nothing in a correct program.
set -u
folder=$(mktemp -d "${TMPDIR:-/tmp}/stead-memcheck.XXXXXX")
trap 'rm -rf "$folder"' EXIT
failed=0
for mistake in none overrun after-free uninitialised slab-end; do
    valgrind --quiet --error-exitcode=99 "$1" "$folder/$mistake" $mistake >"$folder/log" 2>&1
    code=$?
    case $mistake in
    none) want=0 sign= ;;
    uninitialised) want=99 sign='depends on uninitialised value' ;;
    *) want=99 sign='Invalid write' ;;
    esac
    if [ $code != $want ] || ! grep -q "$sign" "$folder/log" && [ -n "$sign" ]; then
        echo "$mistake: exit code $code instead of $want, looked for '$sign':"
        cat "$folder/log"
        failed=1
    fi
done
exit $failed
