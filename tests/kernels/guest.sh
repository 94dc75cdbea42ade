#!/usr/bin/env bash
# In a guest, as root: `guest.sh OUT` runs the tests that OUT/orders names; matrix.py has written that.
# The guest sees the host's files, and may write OUT only; what is written elsewhere is lost with the guest.
set -u
main() { # a function, so that the script may be edited while a guest runs it
    repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    . "$1/orders"
    : >"$OUT/started"
    uname -r >"$OUT/release"
    scratch=$(mktemp -d)
    # virtme-ng's mounts ask the host again for each file, which took an import of numpy three times as long.
    mkdir "$scratch/cached" &&
        mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 cached "$scratch/cached" &&
        while read -r folder; do
            mount --bind "$scratch/cached$folder" "$folder"
        done <<<"$CACHED"
    modprobe zram || true
    # The guest's own file systems are in memory: a disk for /var/tmp, and on it what was mounted there.
    mkdir "$scratch/old" && mount --rbind /var/tmp "$scratch/old" &&
        modprobe brd rd_nr=1 rd_size=$((512 * 1024)) && mkfs.ext4 -q /dev/ram0 && mount /dev/ram0 /var/tmp &&
        for folder in "$scratch"/old/*/; do
            [ -d "$folder" ] || continue
            mkdir "/var/tmp/$(basename "$folder")" && mount --rbind "$folder" "/var/tmp/$(basename "$folder")"
        done
    # Linux 7.3 starts its DAMON with its own statistics, which hold the tree.
    statistics=/sys/module/damon_stat/parameters/enabled
    if [ -e $statistics ] && [ "$(cat $statistics)" = Y ]; then
        echo N >$statistics
    fi
    cd "$repository" || return
    # To look for plugins is to read what each installed package says of itself.
    export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
    export CI=true PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=$scratch/hypothesis
    # In a guest, and nowhere else, the kernel's DAMON is ours alone.
    export MEMTHERM_MAY_WRITE_DAMON=1
    export PYTHONPATH=$PWD/tests
    timeout --kill-after=10 "$LIMIT_S" "$PYTHON" -m pytest -p no:cacheprovider -p kernels.progress --tb=short \
        "$@" </dev/null >"$OUT/log" 2>&1
    echo $? >"$OUT/exit"
    sync
}

main "$@"
exit
