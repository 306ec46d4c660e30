#!/bin/sh
# planted.sh FOLDER -- the check finds a missing checker, a missing test, a stale name, a second row and a lost id.
here=$(cd "$1" && pwd)
. "$here/../shell/lib.sh"

plant() { # ROW WANTED ["" or an id that the checker reports]
    rm -rf tree
    mkdir -p tree/docs/invariants.d tree/tests/unit tree/base tree/alloc tree/lock tree/persist tree/store
    printf '| id | formula | checker | test |\n|---|---|---|---|\n| A1 | `a|b` \\| c | `heap_check` | `test_heap.c`, `heap/breaks_a1` |\n%b' \
        "$1" >tree/docs/invariants.d/alloc.md
    printf 'void heap_check(void)\n{\n    report_problem(report, "%s", 0, "text");\n}\n#ifdef STEAD_PLANT_NO_CHECK\n#endif\n' "${3:-A1}" >tree/alloc/heap.c
    printf 'Test(heap, breaks_a1)\n{\n}\n' >tree/tests/unit/test_heap.c
    if [ -z "$2" ]; then
        run 0 sh "$here/check.sh" tree
    else
        run 1 sh "$here/check.sh" tree
        out_has "$2"
    fi
}

plant '' ''
plant '| A2 | x | `heap_check()` | `breaks_a1` |\n' ''
plant '| A2 | x | `heap_check` | `heap/breaks_*`, `NO_CHECK` |\n' ''
plant '| A2 | x | `heap_check`, `test_heap.c` | `heap::breaks_a1` |\n' ''
plant '| A2 | x | `model_of_nothing` | `breaks_a1` |\n' 'no model model_of_nothing'
plant '| A2 | x | `heap_check` | `heap/mends_*` |\n' 'no test heap/mends_'
plant '| A2 | x | in the code | `breaks_a1` |\n' 'A2 names no checker'
plant '| A2 | x | `heap_checks` | `breaks_a1` |\n' 'no function heap_checks'
plant '| A2 | x | `heap_check` | by hand |\n' 'A2 names no test'
plant '| A2 | x | `heap_check` | `breaks_a2` |\n' 'no test breaks_a2'
plant '| A1 | x | `heap_check` | `breaks_a1` |\n' 'A1 has more than one row'
plant '| A2 | x |\n' 'A2 names no checker'
plant '' 'a checker reports A7' A7
plant '' ''
printf '| no hang | never | `heap/breaks_a1` |\n' >tree/docs/demands.md
run 0 sh "$here/check.sh" tree
printf '| no crash | never | `heap/never_crashes` |\n' >>tree/docs/demands.md
run 1 sh "$here/check.sh" tree
out_has 'demands.md: no test heap/never_crashes'
printf 'nothing\n' >tree/docs/demands.md
run 1 sh "$here/check.sh" tree
out_has 'demands.md names no test'
rm tree/docs/demands.md
rm tree/docs/invariants.d/alloc.md
run 1 sh "$here/check.sh" tree
out_has 'no invariant was found'
