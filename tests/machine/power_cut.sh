#!/bin/sh
# power_cut.sh BANK [CUTS [FILE-SYSTEM...]] -- real power cuts: of a virtual machine with a kernel and a file system of its own.
#
# tests/crash makes every state that its rules call legal; this asks a kernel and its file systems whether the rules are right.
# BANK (bank.c) works in the machine on a disk; at random instants the machine is stopped whole and its disk copied: what a power
# cut leaves, at the moment at which a known number of durable commits had been told of on the console.  A second machine
# then mounts each copy, as after a power cut, opens and verifies.
#
# CUTS (default 10) for each of sole and turns on each FILE-SYSTEM (default ext4 xfs btrfs).  About four minutes for each ten.
# STEAD_VM_KERNEL names a Debian package of a kernel (default linux-image-cloud-amd64's own) or a folder with boot/vmlinuz-VERSION
# and lib/modules/VERSION; STEAD_VM_ACCEL=kvm uses the processor's help (default tcg: works everywhere).  Needs no root but for
# installing (./run power installs).
set -eu
PATH=$PATH:/sbin:/usr/sbin
bank=$(realpath "$1")
cuts=${2:-10}
[ $# -lt 2 ] || shift
shift
[ $# -gt 0 ] || set -- ext4 xfs btrfs

work=$(mktemp -d "${TMPDIR:-/var/tmp}/stead-power.XXXXXX")
machine=
end() {
    [ -z "$machine" ] || kill -KILL "$machine" 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT
trap 'exit 1' INT TERM

# The kernel, and a first file system in memory with just what the machine needs.
make_machine() {
    kernel=${STEAD_VM_KERNEL:-$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)/\1/p' | head -n 1)}
    if [ -d "$kernel" ]; then
        ln -s "$(realpath "$kernel")" "$work/kernel"
    else
        (cd "$work" && apt-get download -qq "$kernel" >/dev/null 2>&1) || { echo "power_cut: cannot download $kernel" >&2; exit 1; }
        dpkg-deb -x "$work"/linux-image-*.deb "$work/kernel"
    fi
    cp "$work"/kernel/boot/vmlinuz-* "$work/vmlinuz"
    version=$(basename "$work"/kernel/boot/vmlinuz-* | sed 's/^vmlinuz-//')
    modules=$(dirname "$(find "$work/kernel/" -type d -path "*/modules/$version/kernel")")
    root=$work/root
    mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/disk" "$root/lib/modules/$version"
    for part in fs/ext4 fs/xfs fs/btrfs fs/jbd2 fs/mbcache lib crypto arch/x86/crypto drivers/virtio drivers/block; do
        find "$modules/kernel/$part"* -name '*.ko*' 2>/dev/null || true # some are in the kernel itself
    done | sed "s,^$modules/,," | (cd "$modules" && cpio -pdm --quiet "$root/lib/modules/$version")
    cp "$modules"/modules.order "$modules"/modules.builtin* "$root/lib/modules/$version"
    depmod -b "$root" "$version"
    cp "$bank" "$root/bin/bank"
    for library in $(ldd "$bank" | grep -o '/[^ ]*'); do # the dynamic linker among them
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
    done
    cp "$(command -v busybox)" "$root/bin/busybox"
    cat >"$root/init" <<'END'
#!/bin/busybox sh
export PATH=/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
echo /bin/modprobe >/proc/sys/kernel/modprobe # file systems ask for further ones
mount -t devtmpfs dev /dev
for module in virtio_pci virtio_blk loop ext4 xfs btrfs; do modprobe $module 2>/dev/null; done
tr -d '\0' </dev/vda >/job
echo # what the firmware wrote ends without a line's end
sh /job
echo JOB-OVER
poweroff -f
END
    chmod +x "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd"
}

# start JOB DISK: the machine begins to work through the shell commands in JOB, with DISK as /dev/vdb.
start() {
    truncate -s 256K "$1"
    : >"$work/console"
    qemu-system-x86_64 -accel "${STEAD_VM_ACCEL:-tcg}" -cpu max -smp 2 -m 1024 -nographic -no-reboot -net none \
        -kernel "$work/vmlinuz" -initrd "$work/initrd" -append "console=ttyS0 panic=-1 quiet" \
        -drive "file=$1,if=virtio,format=raw,readonly=on" -drive "file=$2,if=virtio,format=raw" \
        </dev/null >"$work/console" 2>&1 &
    machine=$!
}

# wait_for PATTERN: until the console shows it, at most ten minutes.
wait_for() {
    for second in $(seq 600); do
        ! grep -aq "$1" "$work/console" || return 0
        kill -0 "$machine" 2>/dev/null || break
        sleep 1
    done
    tail -n 20 "$work/console" >&2
    echo "power_cut: the machine never showed \"$1\" ($second s)" >&2
    exit 1
}

stop() {
    kill -KILL "$machine" 2>/dev/null || true
    wait "$machine" 2>/dev/null || true
    machine=
}

# One mode on one file system: cuts, then what each of them left.
campaign() { # MODE FILE-SYSTEM
    size=384 # MiB; xfs wants 300
    truncate -s "${size}M" "$work/disk"
    case $2 in
    ext4) mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$work/disk" ;;
    *) "mkfs.$2" -q -f "$work/disk" ;;
    esac
    echo "mount -t $2 /dev/vdb /disk && bank run $1 /disk/store" >"$work/job"
    start "$work/job" "$work/disk"
    wait_for '^durable'
    : >"$work/verify"
    for cut in $(seq "$cuts"); do
        sleep "$(awk -v seed="$cut$$" 'BEGIN { srand(seed); print 0.3 + 2.5 * rand() }')"
        kill -STOP "$machine"
        sleep 0.1
        told=$(grep -a '^durable' "$work/console" | tail -n 2 | head -n 1 | tr -dc 0-9) # the last line may be half there
        dd if="$work/disk" of="$work/copies" bs=1M seek=$(((cut - 1) * size)) conv=notrunc,sparse status=none
        kill -CONT "$machine"
        cat >>"$work/verify" <<END
losetup -o $(((cut - 1) * size * 1048576)) /dev/loop0 /dev/vdb
mount -t $2 /dev/loop0 /disk || echo BAD mount
echo "cut $cut: \$(bank verify $1 /disk/store $told | tr '\n' ' ')"
umount /disk
losetup -d /dev/loop0
END
    done
    stop
    ! grep -a '^BAD' "$work/console" || exit 1
    truncate -s "$((cuts * size))M" "$work/copies"
    start "$work/verify" "$work/copies"
    wait_for JOB-OVER
    stop
    grep -a '^cut' "$work/console" || true
    good=$(grep -ac '^cut [0-9]*: GOOD' "$work/console" || true)
    bad=$(grep -ac 'BAD' "$work/console" || true)
    echo "$1 on $2: $good of $cuts cuts left a whole store with every durable commit"
    rm -f "$work/copies" "$work/disk"
    [ "$good" = "$cuts" ] && [ "$bad" = 0 ]
}

make_machine
for file_system in "$@"; do
    for mode in sole turns; do
        campaign $mode "$file_system" || failed=yes
    done
done
[ -z "${failed:-}" ] || { echo "power_cut: FAILED" >&2; exit 1; }
