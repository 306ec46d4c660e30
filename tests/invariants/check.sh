#!/bin/sh
# check.sh ROOT -- every invariant that the documents name has a checker that exists and a test that exists.
#
# A row of docs/invariants*.md or docs/invariants.d/*.md whose first cell is an id (A1, P3, ...) is an invariant:
#
#   | id | formula | `checker` ... | `test` ... |
#
# Names stand in backticks: in the last cell but one a function that is defined in the library, or a model or a source
# file of the tests that checks it, in the last cell a test
# (its name as in Test(suite, name), also as suite/name or suite::name, also with a * at its end), a test's source file, or a planted bug
# (STEAD_PLANT_...) that tests/crash must notice.  Every name that is given must exist;
# at least one must be given.  An id stands in one row only; an id that a checker reports (report_problem(..., "A1", ...))
# has a row.  The tests that docs/demands.md names must exist, too.
set -u
cd "$1" || exit 1
findings=$(mktemp) || exit 1
sources=$(mktemp) || exit 1
tests=$(mktemp) || exit 1
rows=$(mktemp) || exit 1
trap 'rm -f "$findings" "$sources" "$tests" "$rows"' EXIT

found() { echo "$*" >>"$findings"; }

find base alloc lock persist store -name '*.[ch]' -type f -exec cat {} + >"$sources" 2>/dev/null
# Names of tests, of their files, and of what CMake calls a test.
{
    find tests \( -name '*.c' -o -name '*.sh' -o -name '*.pml' \) -type f -exec cat {} + |
        sed -nE 's/^[[:space:]]*(Test|ParameterizedTest|Theory)\(([A-Za-z0-9_]+), *([A-Za-z0-9_]+).*/\3\n\2\/\3\n\2.\3/p; s/^([A-Z_]+TEST)\(([A-Za-z0-9_]+), *([A-Za-z0-9_]+).*/\3\n\2\/\3/p'
    find tests -type f | sed -E 'p; s#.*/##'
    find tests/model -name CMakeLists.txt -exec cat {} + 2>/dev/null | sed -nE 's/^stead_model\(([a-z0-9_]+) .*/model_\1/p'
    sed -nE 's/.*STEAD_PLANT_([A-Z_]+).*/\1/p' "$sources"
    find tests -name CMakeLists.txt -exec cat {} + | sed -nE 's/.*(add_test\(NAME|stead_test\() *([A-Za-z0-9_]+).*/\2/p'
} >"$tests"

for document in docs/invariants*.md docs/invariants.d/*.md; do
    [ -f "$document" ] || continue
    # id <tab> names in the last cell but one <tab> names in the last cell; a bar inside backticks is no border
    awk -v document="$document" '
        /^\|/ {
            line = $0
            out = ""
            code = 0
            for (i = 1; i <= length(line); i++) {
                c = substr(line, i, 1)
                if (c == "`") code = !code
                if (c == "|" && (code || substr(line, i - 1, 1) == "\\")) c = " "
                out = out c
            }
            n = split(out, cell, "|")
            id = cell[2]
            gsub(/[ \t*`]/, "", id)
            if (id !~ /^[A-Z]+[0-9]+[a-z]?$/) next
            print document "\t" id "\t" (n >= 6 ? names(cell[n - 2]) : "") "\t" (n >= 6 ? names(cell[n - 1]) : "")
        }
        function names(text,    list, word) {
            list = ""
            while (match(text, /`[^`]+`/)) {
                word = substr(text, RSTART + 1, RLENGTH - 2)
                text = substr(text, RSTART + RLENGTH)
                gsub(/[ \t]+/, "", word)
                gsub(/::/, "/", word)
                sub(/\(.*/, "", word)
                list = list " " word
            }
            return list == "" ? "-" : list
        }' "$document" >>"$rows"
done
[ -s "$rows" ] || found "no invariant was found in docs/: the check would prove nothing"

tab=$(printf '\t')
while IFS=$tab read -r document id checkers breakers; do
    case $checkers in
    '' | -) found "$document: $id names no checker" ;;
    *)
        for name in $checkers; do
            case $name in
            *.c | *.h) grep -Fxq -e "$name" "$tests" || [ -f "$name" ] || found "$document: $id: there is no file $name" ;;
            model_*) grep -Fxq -e "$name" "$tests" || found "$document: $id: no model $name in tests/model" ;;
            *) grep -Eq "(^|[^A-Za-z0-9_])$name\(" "$sources" || grep -Eq "define $name([^A-Za-z0-9_]|$)" "$sources" ||
                found "$document: $id: no function $name in the library" ;;
            esac
        done
        ;;
    esac
    case $breakers in
    '' | -) found "$document: $id names no test" ;;
    *)
        for name in $breakers; do
            case $name in
            *\**) pattern=$(printf '%s' "$name" | sed 's/[][\\.^$]/\\&/g; s/\*/.*/g') ;; # suite/name_*: at least one
            *) pattern=$(printf '%s' "$name" | sed 's/[][\\.^$]/\\&/g') ;;
            esac
            grep -xq -e "$pattern" "$tests" || found "$document: $id: no test $name under tests/"
        done
        ;;
    esac
done <"$rows"

cut -f 2 "$rows" | sort | uniq -d | while read -r id; do found "$id has more than one row"; done
sed -nE 's/.*report_problem\([^"]*"([A-Z]+[0-9]+[a-z]?)".*/\1/p' "$sources" | sort -u | while read -r id; do
    cut -f 2 "$rows" | grep -Fxq -e "$id" || found "a checker reports $id, which no document names"
done

# The list for those who choose names a test for each thing that it says.
if [ -f docs/demands.md ]; then
    grep -oE '`[a-z0-9_]+/[A-Za-z0-9_]+`' docs/demands.md | tr -d '`' | sort -u | while read -r name; do
        grep -Fxq -e "$name" "$tests" || found "docs/demands.md: no test $name under tests/"
    done
    grep -oEc '`[a-z0-9_]+/[A-Za-z0-9_]+`' docs/demands.md >/dev/null || found "docs/demands.md names no test"
fi

if [ -s "$findings" ]; then
    cat "$findings"
    exit 1
fi
echo "fine: $(wc -l <"$rows") invariants"
