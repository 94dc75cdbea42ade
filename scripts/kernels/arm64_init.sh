#!/bin/busybox sh
# The first process of arm64.sh's guest: prepares it, runs /command, says how that ended and powers off.
# Busybox stands in for what the packages of the root do not bring.
/bin/busybox mkdir -p /busybox
/bin/busybox --install -s /busybox
/bin/busybox ln -sf busybox /bin/sh
export PATH=/usr/sbin:/usr/bin:/busybox HOME=/root TMPDIR=/tmp
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
mkdir -p /dev/shm /sys/fs/cgroup /var/tmp
mount -t tmpfs none /dev/shm
mount -t cgroup2 none /sys/fs/cgroup
mount -t debugfs none /sys/kernel/debug
printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >/etc/passwd
printf 'root:x:0:\nnogroup:x:65534:\n' >/etc/group
while read -r module; do insmod "/modules/$module"; done </modules/order
[ ! -e /sys/module/damon_stat/parameters/enabled ] || echo N >/sys/module/damon_stat/parameters/enabled
ip link set lo up
export PYTHONPATH=/site:/memtherm/src PYTHONDONTWRITEBYTECODE=1
cd /memtherm || exit 1
echo guest-begin
sh /command
echo "guest-exit $?"
poweroff -f
