#!/usr/bin/env bash
# Run benchmarks/schemes: real programs with and without memtherm, with zram as swap; then write docs/schemes.md.
# Arguments go to `python -m benchmarks.schemes.run`; --help lists them.  Installs the programs that are missing,
# as Debian packages, as root, and starts no service.  What cannot be had ends the run, unless --only leaves it out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=.
policy=/usr/sbin/policy-rc.d

say() { printf 'bench-schemes: %s\n' "$*" >&2; }

is_wanted() { # is_wanted PROGRAM: whether --only names it, or nothing is said
    local name
    [ -n "$only" ] || return 0
    for name in ${only//,/ }; do
        [ "$name" != "$1" ] || return 0
    done
    return 1
}

# apt must not start what it installs.  Where there is a policy already, it is the owner's to decide;
# what it lets start is stopped below.
install() {
    local own_policy=false failed=false
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    if [ ! -e $policy ]; then
        own_policy=true
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        trap 'rm -f $policy' EXIT
    fi
    apt-get update -q >&2 || say "apt-get update failed; trying with the lists that are here"
    apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" >&2 || failed=true
    if $own_policy; then
        rm -f $policy
        trap - EXIT
    fi
    if [ -d /run/systemd/system ]; then # now, and after the next start of the machine
        for service in ${services[*]}; do
            systemctl disable --now "$service" >&2 || say "could not stop $service"
        done
    fi
    ! $failed
}

only= previous=
for argument in "$@"; do
    case $previous in --only) only=$argument ;; esac
    case $argument in
    --only=*) only=${argument#--only=} ;;
    -h | --help) exec "$python" -m benchmarks.schemes.run --help ;;
    esac
    previous=$argument
done

packages=() services=()
needs() { # needs PROGRAM COMMAND PACKAGE [SERVICE]
    if is_wanted "$1" && ! compgen -G "$2" >/dev/null && ! command -v "$2" >/dev/null; then
        packages+=("$3")
        [ -z "${4:-}" ] || services+=("$4")
    fi
}
needs redis redis-server redis-server redis-server
needs postgres '/usr/lib/postgresql/*/bin/postgres' postgresql postgresql
needs node node nodejs
needs small sqlite3 sqlite3
for program in gcc redis node gather cold_start scattered; do
    needs $program cc gcc
    needs $program gcc gcc
    needs $program /usr/include/stdio.h libc6-dev
done

if [ ${#packages[@]} -gt 0 ]; then
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "missing: ${packages[*]}; as root: apt-get install --no-install-recommends ${packages[*]}"
        exit 1
    fi
    if ! install "${packages[@]}"; then
        say "could not install ${packages[*]}; see above, or leave programs out by --only"
        exit 1
    fi
fi
if [ ! -e /sys/block/zram0 ]; then
    modprobe zram 2>/dev/null || say "there is no zram, and modprobe zram failed"
fi

"$python" -m benchmarks.schemes.run "$@"
"$python" -m benchmarks.schemes.page
