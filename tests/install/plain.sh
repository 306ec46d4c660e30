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

# As a part of another project: its own tests, warnings and installation are none of ours, and the targets are called as
# find_package calls them.
mkdir user
cp "$here/consumer.c" user
cat >user/CMakeLists.txt <<END
cmake_minimum_required(VERSION 3.18)
project(user C)
enable_testing()
set(CMAKE_C_FLAGS "-O0 -Wall -Wextra -Wpedantic -Werror")
add_subdirectory("$source" stead)
foreach(kind stead static shared)
  add_executable(user_\${kind} consumer.c)
  target_link_libraries(user_\${kind} PRIVATE stead::\${kind})
endforeach()
add_test(NAME mine COMMAND user_stead s)
install(TARGETS user_stead)
END
run 0 "$cmake" -S user -B user/build -DCMAKE_C_COMPILER="$cc"
run 0 "$cmake" --build user/build --parallel 2
for kind in stead static shared; do
    run 0 "user/build/user_$kind" "$kind.store"
    out_is "run 1"
done
run 0 sh -c "cd user/build && ctest -N"
out_has "Total Tests: 1"
run 0 "$cmake" --install user/build --prefix "$TEST_DIR/u"
[ "$(find "$TEST_DIR/u" -type f)" = "$TEST_DIR/u/bin/user_stead" ] || fail "installed: $(find "$TEST_DIR/u" -type f)"
