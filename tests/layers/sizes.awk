# sizes.awk -- a file of more than 600 lines needs a comment "over 600 lines because ..."; a function has at most 70.
#
# The format of the tree (.clang-format) puts the braces of a function, and nothing else but a struct's closing one,
# alone into column 1.

function file_ends() {
    if (lines > 600 && !excused)
        print name ": " lines " lines, and no comment says \"over 600 lines because\""
}

FNR == 1 {
    if (NR > 1)
        file_ends()
    name = FILENAME
    excused = 0
    start = 0
}

{ lines = FNR }
/over 600 lines because/ { excused = 1 }
/^\{/ { start = FNR }
/^\}/ {
    if (start > 0 && FNR - start - 1 > 70)
        print FILENAME ":" start ": a function of " FNR - start - 1 " lines"
    start = 0
}
END { file_ends() }
