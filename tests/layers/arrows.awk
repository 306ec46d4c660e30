# arrows.awk -- who may include whom (docs/architecture.md), no .c inside a .c, no reserved identifier.
#
# Comments and strings are taken out first, so that prose may say what it likes.

BEGIN {
    # folder -> the folders of the library that it may know
    knows["include"] = ""
    knows["base"] = "base"
    knows["alloc"] = "base alloc"
    knows["lock"] = "base lock"
    knows["persist"] = "base persist"
    knows["store"] = "base alloc lock persist store"
    knows["tools"] = knows["examples"] = knows["bench"] = "" # <stead.h> only
    knows["tests"] = "base alloc lock persist store tools bench tests"
    # Two benchmarks also measure a module alone, without a store around it.
    excused["bench/alloc_peers.c"] = "base alloc"
    excused["bench/lock.c"] = "base lock"
    split("base alloc lock persist store tests", list, " ")
    for (i in list)
        is_module[list[i]] = 1

    # Names that belong to the compiler, the C library or the kernel and are theirs to define.
    reserved_fine = "^(__attribute__|__typeof__|__extension__|__asm__|__volatile__|__builtin_[a-z0-9_]+|__atomic_[a-z0-9_]+|" \
        "__sync_[a-z0-9_]+|__(LINE|FILE|COUNTER|VA_ARGS|BYTE_ORDER|ORDER_LITTLE_ENDIAN|ORDER_BIG_ENDIAN|cplusplus|GNUC|" \
        "GNUC_MINOR|clang|linux|x86_64|i386|aarch64|GLIBC|SSE2|SSE4_2|AVX2|NR_[a-z0-9_]+)(__)?|__(SIZEOF|STDC|SANITIZE|INT|UINTPTR|ATOMIC|GLIBC)_?[A-Z0-9_]+|" \
        "__has_[a-z]+|__[us](8|16|32|64)|__func__|__environ|__real_[a-z0-9_]+|__wrap_[a-z0-9_]+|__(asan|tsan|lsan|msan|ubsan|sanitizer)_[a-z0-9_]+|__libc_[a-z0-9_]+|" \
        "_Static_assert|_Alignas|_Alignof|_Atomic|_Bool|_Generic|_Noreturn|_Thread_local|_Exit|_exit|" \
        "_(GNU|DEFAULT)_SOURCE|__user_cap_[a-z]+_struct|_LINUX_CAPABILITY_[A-Z0-9_]+|_POSIX_[A-Z0-9_]+|_SC_[A-Z0-9_]+|_PC_[A-Z0-9_]+|_IO[RW]*|_SYS_[A-Z0-9_]+|_MM_[A-Z0-9_]+|_mm[0-9]*_[a-z0-9_]+|__m128i?|__m256i?|_)$"
}

function finding(text) {
    print FILENAME ":" FNR ": " text
}

# The line without comments, strings and character constants; in_comment lasts across lines.
function code_of(line,    out, i, c, two, quote) {
    out = ""
    quote = ""
    for (i = 1; i <= length(line); i++) {
        c = substr(line, i, 1)
        two = substr(line, i, 2)
        if (in_comment) {
            if (two == "*/") {
                in_comment = 0
                i++
            }
        } else if (quote != "") {
            if (c == "\\")
                i++
            else if (c == quote)
                quote = ""
        } else if (two == "/*") {
            in_comment = 1
            i++
        } else if (two == "//") {
            break
        } else if (c == "\"" || c == "'") {
            quote = c
            out = out " "
        } else {
            out = out c
        }
    }
    return out
}

function check_include(    name, first, quoted, slash) {
    if (!match($0, /["<][^">]+[">]/))
        return
    name = substr($0, RSTART + 1, RLENGTH - 2)
    quoted = substr($0, RSTART, 1) == "\""
    if (name ~ /\.(c|cc)$/)
        finding("includes a source file: " name)
    if (name ~ /(^|\/)\.\.(\/|$)/)
        finding("includes by a path upwards: " name)
    slash = index(name, "/")
    first = slash > 0 ? substr(name, 1, slash - 1) : ""
    if (first in is_module && index(" " knows[folder] " " excused[FILENAME] " ", " " first " ") == 0)
        finding(folder "/ may not know " first "/: " name)
    if (folder != "tests" && name ~ /^criterion\//)
        finding(folder "/ includes the test framework")
    if (!quoted && first in is_module)
        finding("a header of ours in angle brackets: " name)
}

FNR == 1 {
    in_comment = 0
    folder = FILENAME
    sub(/^\.\//, "", folder)
    sub(/\/.*/, "", folder)
}

{
    if (!in_comment && $0 ~ /^[ \t]*#[ \t]*include/)
        check_include()
    code = code_of($0)
    if (code ~ /^[ \t]*#[ \t]*include/)
        next
    gsub(/##[ \t]*[A-Za-z0-9_]+/, " ", code) # the second half of a name
    while (match(code, /[A-Za-z0-9_]+/)) {
        word = substr(code, RSTART, RLENGTH)
        code = substr(code, RSTART + RLENGTH)
        if (word ~ /^_/ && word !~ reserved_fine)
            finding("reserved identifier: " word)
    }
}
