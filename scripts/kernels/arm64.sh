#!/bin/bash
# arm64.sh KERNEL CPU [COMMAND]: boots Debian's arm64 kernel (6.1, 6.12, 7.3; 7.3-16k has other pages) under QEMU, without KVM,
# and runs COMMAND (a shell command; by default the tests of the page-table walk and of the probes) in it as root.
# Prints what it prints and exits with its code.  CPU is QEMU's: cortex-a57 has no hardware access flag and 48-bit
# addresses, max has both and, with kernels that are made for it, 52-bit addresses in 5 levels of tables.
# Nothing of this machine is changed; needs qemu-system-arm, cpio, kmod and scripts/kernels/arm64_fetch.sh KERNEL before.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
top=${MEMTHERM_KERNELS:-/var/cache/memtherm/kernels}/arm64
kernel=${1:?usage: arm64.sh KERNEL CPU [COMMAND]}
cpu=${2:?usage: arm64.sh KERNEL CPU [COMMAND]}
# Hypothesis' profile for CI: an emulated machine is slow, and two threads in a hurry take longer there than their test
# waits for them.  Nor is there a disk, whose files would be kept in large folios.
tests="python3 -m pytest -q --color=no --hypothesis-profile=ci -k 'not two_targets_in_two_threads and not kept_together' \
    tests/bpf/test_calibration.py tests/bpf/test_contiguous.py tests/bpf/test_layout.py tests/bpf/test_targets.py \
    tests/bpf/test_walk.py tests/probe"
command=${3:-$tests}
seconds=${MEMTHERM_GUEST_SECONDS:-1500}

for tool in qemu-system-aarch64 cpio modprobe; do
    command -v "$tool" >/dev/null || { echo "$tool is not installed (apt-get install qemu-system-arm cpio kmod)" >&2; exit 2; }
done
[ -e "$top/$kernel/vmlinuz" ] || { echo "no kernel $kernel: run $here/arm64_fetch.sh $kernel" >&2; exit 2; }
release=$(readlink "$top/$kernel")

# Emulated, the real algorithm of pointer authentication takes half of the time.
[ "$cpu" != max ] || cpu=max,pauth-impdef=on
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The kernel unpacks one archive over the other: the cached root, then what is of this run.
if [ "$top/system.cpio" -ot "$top/system/.done" ]; then
    (cd "$top/system" && find . | cpio --quiet -o -H newc) >"$top/system.cpio"
fi
mkdir -p "$work/over/memtherm" "$work/over/modules"
cp "$here/arm64_init.sh" "$work/over/init"
cp -r "$repository"/{src,tests,bpf,pyproject.toml} "$work/over/memtherm/"
find "$work/over/memtherm" -name __pycache__ -prune -exec rm -rf {} +
for module in zram brd; do
    modprobe -d "$top/$kernel" -S "$release" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | awk '!seen[$0]++' | while read -r path; do
    name=$(basename "$path")
    case $name in
    *.xz) xz -dc "$path" >"$work/over/modules/${name%.xz}" ;;
    *) cp "$path" "$work/over/modules/" ;;
    esac
    echo "${name%.xz}" >>"$work/over/modules/order"
done
printf '%s\n' "$command" >"$work/over/command"
(cd "$work/over" && find . | cpio --quiet -o -H newc) >"$work/over.cpio"
cat "$top/system.cpio" "$work/over.cpio" >"$work/initrd"

timeout "$seconds" qemu-system-aarch64 -M virt,gic-version=3 -cpu "$cpu" -smp 2 -m 3G -nographic -no-reboot -nic none \
    -kernel "$top/$kernel/vmlinuz" -initrd "$work/initrd" \
    -append "console=ttyAMA0 panic=-1 loglevel=5 ${MEMTHERM_GUEST_APPEND:-}" </dev/null >"$work/console" 2>&1 ||
    echo "the guest did not end by itself within $seconds s" >&2
sed -i 's/\r$//' "$work/console"
code=$(sed -n 's/^guest-exit \([0-9]*\)$/\1/p' "$work/console" | tail -n 1)
if grep -q '^guest-begin' "$work/console"; then
    sed -e '1,/^guest-begin/d' -e '/^guest-exit/,$d' "$work/console"
else
    tail -n 100 "$work/console" >&2
fi
exit "${code:-3}"
