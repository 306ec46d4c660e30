#!/bin/sh
# packages.sh FOLDER SOURCE -- what packages_need does for root, for a user with sudo, and for one without: on a PATH that
# has nothing but what it uses itself and stand-ins that write down what they were asked for.
here=$1
source=$2
. "$here/../shell/lib.sh"

mkdir bin
for program in sh env awk grep cat cp; do
    ln -s "$(command -v "$program")" bin/
done
stand_in() { # PROGRAM; its script is on standard input
    { echo "#!/bin/sh"; cat; } >"bin/$1"
    chmod +x "bin/$1"
}
user_is() { echo "echo $1" | stand_in id; }
need() { # CODE THING...
    code=$1
    shift
    : >"$TEST_DIR/asked"
    # shellcheck disable=SC2016 # expanded by that shell
    run "$code" env -i PATH="$TEST_DIR/bin" LOG="$TEST_DIR/asked" BIN="$TEST_DIR/bin" sh -c '
        cd "$0" && . scripts/packages.sh && packages_need "$@"' "$source" "$@"
}
asked() { grep -Eq -e "$1" "$TEST_DIR/asked" || fail "was not asked for: $1; but: $(cat "$TEST_DIR/asked")"; }
asked_nothing() { [ ! -s "$TEST_DIR/asked" ] || fail "was asked for: $(cat "$TEST_DIR/asked")"; }
without() { rm -f "bin/$1"; }

good_apt() { stand_in apt-get <<'END'
echo "apt-get $*" >>"$LOG"
case " $* " in *" ninja-build "*) cp "$BIN/id" "$BIN/ninja" ;; esac
END
}
echo 'exit 0' | stand_in cmake

# All is there: nothing happens, whoever asks.
user_is 1000
good_apt
need 0 cmake
out_is ""
asked_nothing

# Root: apt-get is called with the package, not the program.
user_is 0
need 0 cmake ninja
out_is "Installing what is missing, with apt-get: ninja-build"
asked '^apt-get install .*ninja-build$'
without ninja

# A user with sudo: through it; nobody is there to type a password.
user_is 1000
stand_in sudo <<'END'
echo "sudo $1" >>"$LOG"
shift
exec "$@"
END
need 0 cmake ninja
asked '^sudo -n$'
asked '^apt-get install .*ninja-build$'
without ninja

# Without sudo: nothing is tried; the sentence has a command that can be typed.
without sudo
need 1 ninja git
out_is ""
err_has '^Missing: ninja-build git\..* as root: apt-get install ninja-build git$'
asked_nothing

# apt-get fails, once (its lists are old: brought up to date), or for good (what to do is said).
user_is 0
stand_in apt-get <<'END'
echo "apt-get $*" >>"$LOG"
case $1 in
update) : >"$LOG.fresh" ;;
*) [ -e "$LOG.fresh" ] && cp "$BIN/id" "$BIN/ninja" ;;
esac
END
need 0 ninja
asked '^apt-get update'
without ninja
rm -f asked.fresh
stand_in apt-get <<'END'
echo "E: no such package" >&2
exit 100
END
need 1 ninja
err_has '^E: no such package$'
err_has 'could not install: ninja-build\..* apt-get install ninja-build$'

# It says that it did, and the program is still not there.
echo 'exit 0' | stand_in apt-get
need 1 ninja
err_has '^Still missing after the installation: ninja-build'

# No apt-get at all; a thing that no row names.
without apt-get
need 1 ninja
err_has 'has no apt-get .*: ninja-build$'
need 1 frobnicator
err_has 'no row for frobnicator'
