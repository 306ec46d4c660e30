#!/bin/sh
# planted.sh FOLDER -- the checks find what they are there to find, and nothing in a clean file.
here=$(cd "$1" && pwd)
. "$here/../shell/lib.sh"

plant() { # CHECK FILE TEXT WANTED
    rm -rf tree
    mkdir -p "tree/$(dirname "$2")" tree/base
    printf 'int base_fine(void);\n' >tree/base/fine.h
    printf '%b' "$3" >"tree/$2"
    run 1 sh "$here/check.sh" "$here/$1.awk" tree
    out_has "$4"
}

plant arrows alloc/a.c '#include "persist/file.h"\n' 'alloc/ may not know persist/'
plant arrows lock/a.c '#include "store/store.h"\n' 'lock/ may not know store/'
plant arrows persist/a.c '#include "alloc/heap.h"\n' 'persist/ may not know alloc/'
plant arrows base/a.c '#include "lock/rwlock.h"\n' 'base/ may not know lock/'
plant arrows tools/a.c '#include "base/error.h"\n' 'tools/ may not know base/'
plant arrows examples/a.c '# include "base/error.h"\n' 'examples/ may not know base/'
plant arrows bench/a.c '#include "lock/rwlock.h"\n' 'bench/ may not know lock/'
plant arrows include/stead.h '#include "base/error.h"\n' 'include/ may not know base/'
plant arrows store/a.c '#include "store/b.c"\n' 'includes a source file'
plant arrows store/a.c '#include "../base/error.h"\n' 'a path upwards'
plant arrows store/a.c '#include <base/error.h>\n' 'in angle brackets'
plant arrows store/a.c '#include <criterion/criterion.h>\n' 'the test framework'
plant arrows store/a.c '/* _fine */ int\n_bad(void);\n' 'a.c:2: reserved identifier: _bad'
plant arrows store/a.c '#define __GUARD_H\n' 'reserved identifier: __GUARD_H'
plant sizes store/a.c "int f(void)\n{\n$(awk 'BEGIN { for (i = 0; i < 71; i++) printf "    g();\\n" }')}\n" 'a function of 71 lines'
plant sizes store/a.c "$(awk 'BEGIN { for (i = 0; i < 601; i++) printf "int g(void);\\n" }')" '601 lines'

rm -rf tree
mkdir -p tree/store tree/base
cat >tree/store/a.c <<'CLEAN'
/* _reserved words in prose, "quotes" and #include "alloc/b.c" in a comment
 * #include "tools/command.h" */
#include "base/error.h"
#include <stddef.h>
static const char *text = "_in_a_string \" /* no comment";
static _Bool flag __attribute__((unused)); // _line comment
CLEAN
for check in arrows sizes; do
    run 0 sh "$here/check.sh" "$here/$check.awk" tree
done
run 1 sh "$here/check.sh" "$here/arrows.awk" tree/base # nothing to look at proves nothing
