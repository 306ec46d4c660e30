#!/bin/sh
# plain.sh FOLDER SOURCE CMAKE CC -- the commands of the README that need a compiler and xxHash, nothing else.
here=$1
. "$here/../shell/lib.sh"
source=$2
cmake=$3
cc=$4
command -v make >/dev/null || export CMAKE_GENERATOR=Ninja # after ./run test on a bare system there is no make

run 0 "$cmake" -S "$source" -B build -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DCMAKE_C_COMPILER="$cc"
grep -Eqi '^(CRITERION|LMDB|SQLITE)[A-Z_]*:' build/CMakeCache.txt && fail "a plain build looked for what only tests need"
run 0 "$cmake" --build build --parallel 4 # each target must name what it needs: one after the other hides it
run 0 "$cmake" --install build --prefix "$TEST_DIR/p"
run 0 "$TEST_DIR/p/bin/stead" --version
[ -e "$TEST_DIR/p/include/stead.h" ] || fail "no header was installed"
run 0 sh -c 'xargs rm <build/install_manifest.txt'
[ -z "$(find "$TEST_DIR/p" ! -type d)" ] || fail "left behind: $(find "$TEST_DIR/p" ! -type d)"
