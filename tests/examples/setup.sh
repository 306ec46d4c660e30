# setup.sh -- sourced by every test of an example: $1 is this folder, $2 the program; STEAD_EMULATOR, if set, is the
# command that programs are run by (valgrind and its options).
. "$1/../shell/lib.sh"
example=$2
if [ -n "${STEAD_EMULATOR:-}" ]; then
    example=$TEST_DIR/$(basename "$2").sh
    printf '#!/bin/sh\nexec %s "%s" "$@"\n' "$STEAD_EMULATOR" "$2" >"$example"
    chmod +x "$example"
fi
