#!/bin/sh
# check.sh SCRIPT.awk ROOT -- runs a check over every C source of the tree at ROOT; each line it prints is a finding.
set -eu
script=$1
cd "$2"
set --
for folder in include base alloc lock persist store tools examples bench tests; do
    [ ! -d "$folder" ] || set -- "$@" "$folder"
done
files=$(find "$@" -type f \( -name '*.c' -o -name '*.h' -o -name '*.cc' \) | LC_ALL=C sort)
[ -n "$files" ] || { echo "no source was found: the check would prove nothing" >&2; exit 1; }
# shellcheck disable=SC2086 # names of sources have no spaces
findings=$(LC_ALL=C awk -f "$script" $files)
[ -z "$findings" ] || { printf '%s\n' "$findings"; exit 1; }
# shellcheck disable=SC2086
echo "fine: $(printf '%s\n' $files | wc -l) files"
