#!/bin/sh
# consumer.sh FOLDER BUILD CMAKE CC -- installs the build into a fresh prefix and uses it from there, by each road.
here=$1
. "$here/../shell/lib.sh"
build=$2
cmake=$3
cc=$4

run 0 "$cmake" --install "$build" --prefix "$TEST_DIR/p"
prefix=$TEST_DIR/p
pc=$(find "$prefix" -name stead.pc)
[ -n "$pc" ] || fail "no stead.pc was installed"
lib=$(dirname "$(dirname "$pc")")
for file in include/stead.h bin/stead share/man/man1/stead.1 share/man/man3/stead.3; do
    [ -e "$prefix/$file" ] || fail "$file was not installed"
done
grep -rlF -e "$build" "$prefix/include" "$lib/pkgconfig" "$lib/cmake" && fail "a path of the build was installed"

export PKG_CONFIG_PATH="$(dirname "$pc")"
uses() { # PROGRAM: three runs on one store of its own
    for n in 1 2 3; do
        run 0 env LD_LIBRARY_PATH="$lib" "$1" "$1.store"
        out_is "run $n"
    done
    run 0 "$prefix/bin/stead" check "$1.store"
}

warnings="-Wall -Wextra -Werror"
# shellcheck disable=SC2086,SC2046 # words
if command -v pkg-config >/dev/null 2>&1; then
    for standard in c99 c11 c17 gnu17 c2x; do
        run 0 "$cc" -std=$standard $warnings -Wpedantic -Wconversion -Wshadow -Wcast-qual -Wundef -I"$prefix/include" -fsyntax-only "$here/consumer.c"
    done
    run 0 "$cc" -std=c11 $warnings $(pkg-config --cflags stead) "$here/consumer.c" $(pkg-config --libs stead) -o c_shared
    uses ./c_shared
    for example in "$here"/../../examples/*.c; do # as somebody builds them who has the installed library only
        run 0 "$cc" -std=c11 $warnings -Wpedantic $(pkg-config --cflags stead) "$example" -pthread $(pkg-config --libs stead) -o example
    done
    ldd ./c_shared | grep -q libstead && run 0 env LD_LIBRARY_PATH="$lib" ./c_shared ./c_shared.store
    static="$(pkg-config --cflags stead) $here/consumer.c $lib/libstead.a $(pkg-config --libs --static stead | sed 's/-lstead//')"
    run 0 "$cc" -std=c11 $warnings $static -o c_static
    ldd ./c_static | grep -q libstead && fail "the static consumer wants the shared library"
    uses ./c_static
    if echo 'int main(void) { return 0; }' | "$cc" -static -x c - -Wl,--whole-archive -lxxhash -Wl,--no-whole-archive -o nothing 2>/dev/null; then
        run 0 "$cc" -std=c11 -static $static -o c_all_static # libxxhash.a may lack what libxxhash.so has
        uses ./c_all_static
    else
        echo "no static C library or libxxhash.a: not tried with -static"
    fi
    if command -v c++ >/dev/null 2>&1; then
        run 0 c++ -std=c++17 $warnings -x c++ $(pkg-config --cflags stead) "$here/consumer.c" -x none $(pkg-config --libs stead) -o cxx
        uses ./cxx
        strict="-Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wundef -Wcast-qual -Wold-style-cast -Wzero-as-null-pointer-constant"
        for compiler in c++ clang++; do
            command -v $compiler >/dev/null 2>&1 || continue
            for program in containers shmem; do
                for standard in c++20 c++11; do # -I: what pkg-config says may be a system's folder, and those hide warnings
                    run 0 $compiler -std=$standard $warnings $strict -I"$prefix/include" -fsyntax-only "$here/$program.cpp"
                done
                run 0 $compiler -std=c++17 -pthread -I"$prefix/include" "$here/$program.cpp" $(pkg-config --libs stead) -o $program
                uses ./$program
                rm ./$program.store
            done
        done
    else
        echo "no C++ compiler: not tried from C++"
    fi
else
    echo "no pkg-config: not tried"
fi

mkdir consumer
cp "$here/consumer.c" consumer
cp "$here/consumer.cmake.txt" consumer/CMakeLists.txt
command -v make >/dev/null || export CMAKE_GENERATOR=Ninja
run 0 "$cmake" -S consumer -B consumer/build -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" -DCMAKE_BUILD_TYPE=Release
run 0 "$cmake" --build consumer/build
for kind in stead shared static; do
    uses "./consumer/build/consumer_$kind"
done

# Only the public face is exported.
if command -v nm >/dev/null 2>&1; then
    nm -D --defined-only "$lib/libstead.so" | awk '$3 !~ /^stead_/ && $3 !~ /^(_init|_fini)$/ { print $3 }' >"$TEST_DIR/out"
    [ ! -s "$TEST_DIR/out" ] || fail "the shared library exports more than stead_*"
    nm -g --defined-only "$lib/libstead.a" | awk 'NF == 3 && $3 !~ /^stead_/ { print $3 }' >"$TEST_DIR/out"
    [ ! -s "$TEST_DIR/out" ] || fail "the static library has names that a program may want for itself"
fi
