#!/bin/sh
# ls finds stores in directories, sections, semaphores and events in memory; rm takes the names that ls prints.
. "$1/setup.sh"
trap '"$stead" rm --force "shm:$SECTION" "semaphore:$SECTION" "event:$SECTION" >/dev/null 2>&1; test_end' EXIT

mkdir stores
run 0 "$holder" stores/a.stead sole alloc 2 10 commit close
run 137 sh -c '"$1" stores/b.stead live alloc 2 10 crash' sh "$holder"
echo "no store" >stores/c
mkfifo stores/pipe
mkdir stores/directory
ln -s a.stead stores/link
run 1 "$stead" ls stores # one is unclean
out_has '^store +clean +sole +0 .* stores/a\.stead$'
out_has '^store +unclean +live +0 .* stores/b\.stead$'
out_lacks 'stores/c$'
out_lacks 'stores/(pipe|directory|link)$'
run 1 "$stead" ls stores/
out_has ' stores/a\.stead$'
run 1 sh -c 'cd stores && "$1" ls' sh "$stead"
out_has ' a\.stead$'
run 1 "$stead" ls missing
err_has 'missing'

# Sections: one in use, then left by a crash.
hold "shm:$SECTION" live alloc 3 100 semaphore $SECTION 5 event $SECTION 1 wait crash
mkdir empty
"$stead" ls empty >out 2>err || [ $? = 1 ] || fail "ls of an empty directory" # 1: others' sections may be unclean
out_has "^section +in use +live +1 .* shm:$SECTION\$"
out_has "^semaphore +value 5 +semaphore:$SECTION\$"
out_has "^event +signaled +event:$SECTION\$"
run 1 "$stead" ls --json stores
json '' TYPE ARRAY
grep -q "\"shm:$SECTION\"" out || fail "the section is not in the JSON"

run 0 "$stead" sem
out_has "^semaphore +5  $SECTION\$"
out_has "^event +1  $SECTION\$"
run 0 "$stead" sem --json $SECTION
json '' LENGTH 2
json '0;value' IS 5
json '1;kind' IS event
run 1 "$stead" sem no-such-semaphore-$$
err_has 'no-such-semaphore'

# In use: neither rm nor rm --stale takes it.
run 1 "$stead" rm "shm:$SECTION"
err_has 'in use by 1 process'
run 0 "$stead" rm --stale "shm:$SECTION"
out_lacks "shm:$SECTION\$"
run 0 "$stead" info "shm:$SECTION"

# Its process is killed: what it leaves is stale.
release
run 0 "$stead" rm --stale --dry-run
out_has "^would remove shm:$SECTION\$"
run 1 "$stead" info "shm:$SECTION" # unclean, still there
run 0 "$stead" rm --stale "shm:$SECTION-other"
out_is ''
run 0 "$stead" rm --stale "shm:$SECTION" # named: a test removes nobody else's
out_has "^removed shm:$SECTION\$"
run 1 "$stead" info "shm:$SECTION"
run 0 "$stead" rm semaphore:$SECTION event:$SECTION
run 1 "$stead" rm semaphore:$SECTION

# Files: with the log; no store is kept unless forced.
run 137 sh -c '"$1" stores/a.stead sole alloc 5 100 commit crash' sh "$holder"
[ -e stores/a.stead-wal ] || fail "a crash left no log"
run 0 "$stead" rm --dry-run stores/a.stead
[ -e stores/a.stead ] || fail "--dry-run removed"
run 0 "$stead" rm stores/a.stead
[ ! -e stores/a.stead ] && [ ! -e stores/a.stead-wal ] || fail "store or log is still there"
run 1 "$stead" rm stores/c
[ -e stores/c ] || fail "removed what is no store"
run 1 "$stead" rm --force stores/c
[ -e stores/c ] || fail "--force removed what is no store"
run 1 "$stead" rm stores/a.stead

# In use: --force takes the name, the neighbour works on.
hold stores/d.stead sole alloc 1 10 commit wait alloc 1 10 commit close
run 1 "$stead" rm stores/d.stead
[ -e stores/d.stead ] || fail "removed what is in use"
run 0 "$stead" rm --force stores/d.stead
[ ! -e stores/d.stead ] || fail "--force did not remove"
release || fail "the neighbour was disturbed: $(cat hold.err)"
