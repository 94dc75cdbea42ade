#!/bin/bash
# arm64_fetch.sh KERNEL...: Debian's arm64 kernels (6.1 6.12 7.3 7.3-16k) and a root file system with Python for a guest.
# As root, without installing anything: all goes into the cache, ${MEMTHERM_KERNELS:-/var/cache/memtherm/kernels}/arm64.
set -euo pipefail
top=${MEMTHERM_KERNELS:-/var/cache/memtherm/kernels}/arm64
python=3.13
packages=(libc6 libgcc-s1 libstdc++6 zlib1g libzstd1 liblzma5 libbz2-1.0 libelf1t64 libbpf1 libexpat1 libffi8 libssl3t64
    "libpython$python-minimal" "libpython$python-stdlib" "python$python-minimal" busybox-static
    coreutils libacl1 libattr1 libselinux1 libpcre2-8-0 libgmp10
    mount util-linux libblkid1 libmount1 libsmartcols1 libuuid1)
wheels=(numpy click pydantic nanoarrow backports.zstd pytest hypothesis)

mkdir -p "$top"/apt/lists/partial "$top"/apt/cache/archives/partial "$top"/deb "$top"/wheel
: >"$top/apt/status"
# This machine's own source of packages, with other suites and another architecture.
awk '/^URIs:/ && !u { u = $0 }
    /^Signed-By:/ { print "Types: deb\n" u "\nSuites: trixie trixie-backports bookworm bookworm-updates\nComponents: main\nArchitectures: arm64\n" $0; exit }' \
    /etc/apt/sources.list.d/debian.sources >"$top/apt/arm64.sources"
options=(-qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State::status="$top/apt/status"
    -o Dir::Etc::sourcelist="$top/apt/arm64.sources" -o Dir::Etc::sourceparts=-
    -o Dir::State::lists="$top/apt/lists" -o Dir::Cache="$top/apt/cache" -o APT::Sandbox::User=root)

download() { # download FOLDER PACKAGE...: unpacks each below FOLDER
    local folder=$1 package
    shift
    (cd "$top/deb" && apt-get "${options[@]}" download "$@")
    for package; do
        dpkg-deb -x "$(ls -t "$top/deb/$package"_*.deb | head -n 1)" "$folder"
    done
}

fetch_root() {
    [ ! -e "$top/system/.done" ] || return 0
    rm -rf "$top/system"
    # Merged /usr, as the packages expect it.
    mkdir -p "$top"/system/usr/{bin,sbin,lib} "$top"/system/{proc,sys,dev,tmp,run,root,etc,site}
    ln -s usr/bin usr/sbin usr/lib "$top/system/"
    download "$top/system" "${packages[@]}"
    rm -rf "$top"/system/usr/share/{doc,man,locale,lintian,bash-completion}
    ln -s "python$python" "$top/system/usr/bin/python3"
    "${PYTHON:-python3}" -m pip download --quiet --dest "$top/wheel" --only-binary=:all: --python-version "$python" \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 "${wheels[@]}"
    for wheel in "$top"/wheel/*.whl; do
        "${PYTHON:-python3}" -m zipfile -e "$wheel" "$top/system/site"
    done
    rm -rf "$top"/system/site/numpy/{tests,*/tests}
    touch "$top/system/.done"
}

fetch_kernel() {
    local want=$1 flavour=arm64 series release
    series=${want%-16k}
    [ "$series" = "$want" ] || flavour=arm64-16k
    release=$(apt-cache "${options[@]}" pkgnames "linux-image-$series." | sed -n 's/^linux-image-//p' |
        grep -E "^${series//./\\.}\.[0-9]+(-[0-9]+|\+deb[0-9]+)-$flavour\$" | sort -V | tail -n 1)
    [ -n "$release" ] || { echo "$want: no package" >&2; exit 1; }
    if [ ! -e "$top/$release/vmlinuz" ]; then
        rm -rf "$top/$release.new"
        case $series in
        6.*) download "$top/$release.new" "linux-image-$release" ;;
        *) download "$top/$release.new" "linux-binary-$release" "linux-modules-$release" "linux-base-$release" ;;
        esac
        find "$top/$release.new" -name "vmlinuz*" -type f -exec cp {} "$top/$release.new/vmlinuz" \;
        [ -e "$top/$release.new/lib" ] || ln -s usr/lib "$top/$release.new/lib"
        depmod -b "$top/$release.new" "$release"
        rm -rf "${top:?}/$release"
        mv "$top/$release.new" "$top/$release"
    fi
    ln -sfn "$release" "$top/$want"
    echo "$want: $release"
}

apt-get "${options[@]}" update
fetch_root
for kernel; do fetch_kernel "$kernel"; done
