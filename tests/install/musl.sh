#!/bin/sh
# musl.sh FOLDER SOURCE BUILD -- the library with another C library, musl, and processes of both at one store.
here=$1
. "$here/../shell/lib.sh"
source=$2
build=$3
if ! command -v musl-gcc >/dev/null 2>&1; then
    echo "no musl-gcc: not tried"
    exit 77
fi

# Headers of the kernel and of xxHash, which is compiled along, lie in the other library's folders.
folders="-idirafter /usr/include -idirafter /usr/include/$(cc -print-multiarch 2>/dev/null)"
flags="-std=gnu11 -O1 -D_GNU_SOURCE -DSTEAD_CHECKS=1 -ftls-model=initial-exec -I$source -I$source/include $folders"
printf '#define XXH_STATIC_LINKING_ONLY\n#define XXH_IMPLEMENTATION\n#include <xxhash.h>\n' >xxhash_whole.c
# shellcheck disable=SC2086 # words
run 0 musl-gcc $flags -c xxhash_whole.c
run 0 ar rcs libstead_musl.a xxhash_whole.o
for folder in base alloc lock persist store; do
    mkdir "$folder" && cd "$folder" || exit 1
    run 0 musl-gcc $flags -c "$source/$folder"/*.c
    ls ./*.o | while read -r object; do # files of one name in two folders
        mv "$object" "${folder}_${object#./}"
    done
    run 0 ar rcs ../libstead_musl.a ./*.o
    cd ..
done
run 0 musl-gcc -std=c11 -static -I"$source/include" "$here/consumer.c" libstead_musl.a -o with_musl
run 0 cc -std=c11 -I"$source/include" "$here/consumer.c" "$build/libstead.a" -lxxhash -lpthread -o with_other
for n in 1 3 5; do
    run 0 ./with_musl s.stead
    out_is "run $n"
    run 0 ./with_other s.stead
    out_is "run $((n + 1))"
done
