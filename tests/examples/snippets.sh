#!/bin/sh
# snippets.sh FOLDER DOCUMENT CC INCLUDE LIBRARY FLAGS -- compiles and runs the programs that stand in a document, so
# that they cannot drift.
#
# A program is a block fenced by ```c that has a main().  The lines before its fence say how it is run and what it must
# print, up to white space: <!-- run ARGUMENT...: text -->, a line for each run, all runs in one directory.  Blocks without
# main() are compiled too, as the body of a function, if they are marked <!-- compile -->.
. "$1/../shell/lib.sh"
document=$2
cc=$3
include=$4
library=$5
flags=$6

awk '
    /^<!-- run[^:]*: .* -->$/ { sub(/^<!-- run/, ""); sub(/ -->$/, ""); want[++wants] = $0; next }
    /^<!-- compile -->$/ { compile = 1; next }
    /^```c$/ { code = 1; n++; file = "block" n ".c"; printf "" >file; next }
    /^```/ && code {
        code = 0
        close(file)
        print compile ? "fragment" : "block" >("block" n ".kind")
        for (i = 1; i <= wants; i++) print want[i] >("block" n ".want")
        wants = compile = 0
        next
    }
    code { print >file }
    !code && NF { wants = compile = 0 }
' "$document"

programs=0
for block in block*.c; do
    [ -e "$block" ] || fail "$document has no block of C"
    name=${block%.c}
    if [ "$(cat "$name.kind")" = fragment ]; then
        {
            printf '#include <stead.h>\n#include <errno.h>\n#include <stdio.h>\n#include <string.h>\n'
            printf 'int fragment(stead *s, int rc, const char *path);\nint fragment(stead *s, int rc, const char *path)\n{\n'
            cat "$block"
            printf '    (void)path;\n    (void)s;\n    return rc;\n}\n'
        } >fragment.c
        run 0 "$cc" -std=gnu11 -Wall -Wextra -Werror -I"$include" -c fragment.c -o fragment.o
        continue
    fi
    grep -q 'main(' "$block" || continue
    programs=$((programs + 1))
    # shellcheck disable=SC2086 # flags are words
    run 0 "$cc" -std=gnu11 -Wall -Wextra -Werror -O1 $flags -I"$include" "$block" "$library" -lxxhash -lpthread -o "$name"
    [ -e "$name.want" ] || fail "$document: the program $block does not say what it prints"
    mkdir "$name.run"
    while IFS= read -r want <&3; do
        # shellcheck disable=SC2086 # arguments are words
        run 0 sh -c 'cd "$1" && shift && exec "$@"' sh "$name.run" "../$name" ${want%%:*}
        # shellcheck disable=SC2046 # so that white space does not count
        [ "$(echo $(cat out))" = "${want#*: }" ] || fail "$document: $block does not print: ${want#*: }"
    done 3<"$name.want"
done
[ "$programs" -gt 0 ] || fail "$document has no program"
