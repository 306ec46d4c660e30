# setup.sh -- sourced by every test of an example: $1 is this folder, $2 the program.
. "$1/../shell/lib.sh"
example=$2
