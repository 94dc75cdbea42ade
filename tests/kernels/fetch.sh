#!/usr/bin/env bash
# Debian's kernels for the matrix: `tests/kernels/fetch.sh 6.1 6.12 7.3`, as root.
# Unpacks each into $MEMTHERM_KERNELS (/var/cache/memtherm/kernels), unless it is there already, and links its modules
# into /lib/modules; installs nothing.  Of one that cannot be had it says why, goes on with the others, and ends with 1.
set -euo pipefail
top=${MEMTHERM_KERNELS:-/var/cache/memtherm/kernels}
machine_sources=/etc/apt/sources.list.d/debian.sources

say() { printf 'kernels: %s\n' "$*" >&2; }

apt() { # apt COMMAND...: an apt that knows of these suites only, and leaves the machine's lists alone
    local command=$1
    shift
    "apt-$command" -qq -o Dir::Etc::sourcelist="$top/apt/kernels.sources" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$top/apt/lists" -o Dir::Cache="$top/apt/cache" -o APT::Sandbox::User=root \
        -o Acquire::Retries=3 "$@"
}

# The machine's own mirror and keys, with the suites that have the kernels.
read_lists() {
    [ -r $machine_sources ] || { say "no $machine_sources to take a mirror from; this needs Debian"; return 1; }
    mkdir -p "$top"/apt/lists/partial "$top"/apt/cache/archives/partial "$top"/packages
    awk '/^URIs:/ && !uris { uris = $0 }
         /^Signed-By:/ { print "Types: deb\n" uris "\nSuites: bookworm bookworm-updates trixie trixie-backports\n" \
                               "Components: main\n" $0; exit }' $machine_sources >"$top/apt/kernels.sources"
    apt get update
}

newest_release() { # newest_release 6.1: such as 6.1.0-50-amd64, without the flavours cloud and rt
    apt cache pkgnames "linux-image-$1." | sed -n 's/^linux-image-//p' |
        grep -E "^${1//./\\.}\.[0-9]+(-[0-9]+|\+deb[0-9]+)-amd64$" | sort -V | tail -1
}

unpack() { # unpack RELEASE: vmlinuz and modules stand under these names in every package layout
    local release=$1 new=$top/$1.new package packages path
    # In newer packages linux-image is empty, and needs these two.
    if apt cache pkgnames "linux-binary-$release" | grep -qx "linux-binary-$release"; then
        packages="linux-binary-$release linux-modules-$release"
    else
        packages=linux-image-$release
    fi
    rm -rf "$new"
    for package in $packages; do
        (cd "$top/packages" && rm -f "$package"_*.deb && apt get download "$package") &&
            dpkg-deb -x "$top/packages/$package"_*.deb "$new" && rm -f "$top/packages/$package"_*.deb || return 1
    done
    for path in lib/modules usr/lib/modules; do
        [ ! -d "$new/$path/$release" ] || ln -sfn "$path/$release" "$new/modules"
    done
    for path in "boot/vmlinuz-$release" "usr/lib/modules/$release/vmlinuz"; do
        [ ! -e "$new/$path" ] || ln -sfn "$path" "$new/vmlinuz"
    done
    [ -e "$new/vmlinuz" ] && [ -d "$new/modules" ] || { say "$release: its packages hold no kernel"; return 1; }
    rm -rf "${top:?}/$release"
    mv "$new" "$top/$release"
}

has_lists=false
failed=0
for version; do
    if [ ! -e "$top/$version/vmlinuz" ]; then
        say "$version: downloading into $top"
        if ! { $has_lists || read_lists; }; then
            say "$version: cannot be had: apt-get update failed, see above"
            failed=1
            continue
        fi
        has_lists=true
        release=$(newest_release "$version") || true
        if [ -z "$release" ] || ! unpack "$release"; then
            say "$version: cannot be had: ${release:-no package of that version} (see above)"
            failed=1
            continue
        fi
        ln -sfn "$release" "$top/$version"
    fi
    release=$(basename "$(readlink -f "$top/$version")")
    # modprobe and virtme-ng look for modules there.
    if [ ! -e "/lib/modules/$release/modules.dep" ]; then
        mkdir -p /lib/modules
        ln -sfn "$(readlink -f "$top/$release/modules")" "/lib/modules/$release"
        depmod "$release"
    fi
    say "$version: $release"
done
exit $failed
