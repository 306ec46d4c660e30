# packages.sh -- what the commands in ./run need from the system, and how it gets there.  Sourced, not run.
#
# Looks first (a program on the PATH, a header that the compiler finds, a library for dlopen) and installs only what is missing, with apt-get,
# as root or through sudo, after saying so.  On a system without apt-get it says what to install and stops.
#
#   packages_need THING...     THING is a row of the table below
#
# The current directory is the repository's top.
packages_script=scripts/packages.sh

# thing         how to look for it            Debian's and Ubuntu's package
packages_table='
compiler        program  cc                   gcc
libc            header   stdio.h              libc6-dev
cmake           program  cmake                cmake
ninja           program  ninja                ninja-build
git             program  git                  git
xxhash          header   xxhash.h             libxxhash-dev
criterion       header   criterion/criterion.h libcriterion-dev
lmdb            header   lmdb.h               liblmdb-dev
sqlite          header   sqlite3.h            libsqlite3-dev
pkg-config      program  pkg-config           pkg-config
c++             program  c++                  g++
clang           program  clang                clang
clang-format    program  clang-format         clang-format
valgrind        program  valgrind             valgrind
spin            program  spin                 spin
musl            program  musl-gcc             musl-tools
qemu            program  qemu-system-x86_64   qemu-system-x86
busybox         program  busybox              busybox-static
cpio            program  cpio                 cpio
kmod            program  /sbin/depmod         kmod
ext4            program  /sbin/mkfs.ext4      e2fsprogs
xfs             program  /sbin/mkfs.xfs       xfsprogs
btrfs           program  /sbin/mkfs.btrfs     btrfs-progs
mimalloc        library  libmimalloc.so       libmimalloc-dev
jemalloc        library  libjemalloc.so       libjemalloc-dev
'

packages_has() { # program|header|library NAME
    case $1 in
    program) command -v "$2" >/dev/null 2>&1 ;;
    header) printf '#include <stddef.h>\n#include <%s>\n' "$2" | cc -E -x c - >/dev/null 2>&1 ;;
    library) PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -qF "$2" ;;
    esac
}

# Prints the packages of the named things that are not there.
packages_missing() {
    for thing in "$@"; do
        row=$(printf '%s\n' "$packages_table" | awk -v thing="$thing" '$1 == thing { print $2, $3, $4 }')
        [ -n "$row" ] || { echo "packages.sh: no row for $thing" >&2; return 1; }
        # shellcheck disable=SC2086 # three words on purpose
        set -- $row
        packages_has "$1" "$2" || printf '%s ' "$3"
    done
}

packages_install() { # PACKAGE...; as root
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
}

# How this user becomes root: nothing to do (root), sudo, or not at all.
packages_sudo() {
    if [ "$(id -u)" = 0 ]; then
        echo env
    elif ! command -v sudo >/dev/null 2>&1; then
        return 1
    elif [ -t 0 ]; then
        echo sudo
    else
        echo "sudo -n" # nobody is there to type a password
    fi
}

packages_need() {
    missing=$(packages_missing "$@") || return 1
    missing=${missing% }
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "Missing, and this system has no apt-get to install it with (Debian's names): $missing" >&2
        return 1
    fi
    by_hand="as root: apt-get install $missing"
    if ! as_root=$(packages_sudo); then
        echo "Missing: $missing.  You are not root, and there is no sudo; install it $by_hand" >&2
        return 1
    fi
    echo "Installing what is missing, with apt-get: $missing"
    # shellcheck disable=SC2086 # lists of words
    $as_root sh -c '. "$0"; packages_install "$@"' "$packages_script" $missing || {
        echo "apt-get could not install: $missing.  To see why, run $by_hand" >&2
        return 1
    }
    missing=$(packages_missing "$@") || return 1
    [ -z "$missing" ] || { echo "Still missing after the installation: $missing" >&2; return 1; }
}
