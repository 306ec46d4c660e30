#!/bin/sh
# plain.sh FOLDER SOURCE CMAKE CC -- the three commands of the README that need a compiler and xxHash, nothing else.
here=$1
. "$here/../shell/lib.sh"
source=$2
cmake=$3
cc=$4

run 0 "$cmake" -S "$source" -B build -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DCMAKE_C_COMPILER="$cc"
grep -Eqi '^(CRITERION|LMDB|SQLITE)[A-Z_]*:' build/CMakeCache.txt && fail "a plain build looked for what only tests need"
run 0 "$cmake" --build build
run 0 "$cmake" --install build --prefix "$TEST_DIR/p"
run 0 "$TEST_DIR/p/bin/stead" --version
[ -e "$TEST_DIR/p/include/stead.h" ] || fail "no header was installed"
