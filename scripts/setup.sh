#!/usr/bin/env bash
# Make this clone ready: `scripts/setup.sh run|test|bpf|kernels`.
#   run   .venv with memtherm, and libbpf for the page-grained probe
#   test  that, with the test tools in .venv and a C compiler for the test workload
#   bpf   what builds the BPF object: clang, llvm-strip, libbpf's headers
#   kernels  test, and what boots other kernels: QEMU, virtme-ng in $MEMTHERM_KERNELS/venv
# Does only what is missing.  As root it installs Debian packages; else it says which command would.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
level=${1:-run}
venv=.venv

say() { printf 'setup: %s\n' "$*" >&2; }

# --- what is missing ---------------------------------------------------------------------------

python_is_usable() {
    "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if python_is_usable "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

has_libbpf() {
    # ldconfig is in /sbin, which a user's PATH may lack.
    PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null | grep 'libbpf\.so\.1 ' >/dev/null
}

can_compile() {
    cc -E - <<<'#include <stdio.h>' >/dev/null 2>&1
}

can_build_bpf() {
    command -v clang >/dev/null && command -v llvm-strip >/dev/null &&
        clang -target bpf -idirafter "/usr/include/$(uname -m)-linux-gnu" -E - >/dev/null 2>&1 \
            <<<$'#include <linux/types.h>\n#include <bpf/bpf_helpers.h>'
}

has_strace() {
    command -v strace
}

can_boot_kernels() {
    command -v qemu-system-x86_64 && command -v busybox && command -v cpio && command -v zstd && command -v depmod
}

has_chromium() {
    command -v chromium
}

has_file() { # damo asks it what a record is
    command -v file
}

is_required() {
    case ",${MEMTHERM_REQUIRE:-}," in *",$1,"* | *,all,*) return 0 ;; esac
    return 1
}

# --- Debian packages ---------------------------------------------------------------------------

apt_is_fresh=false

# install PACKAGE...: whether the packages are there now.  Says what to type where it may not or cannot.
install() {
    local reason=
    if ! command -v apt-get >/dev/null; then
        reason="there is no apt-get here"
    elif [ "$(id -u)" != 0 ]; then
        reason="only root may install packages"
    else
        say "installing $*"
        export DEBIAN_FRONTEND=noninteractive
        $apt_is_fresh || apt-get update -q >&2 || say "apt-get update failed; trying with the lists that are here"
        apt_is_fresh=true
        if apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" >&2; then
            return 0
        fi
        reason="apt-get failed, see above"
    fi
    say "missing: $* ($reason); to install: apt-get install --no-install-recommends $*"
    return 1
}

needs() { # needs CHECK WHAT_FOR PACKAGE...: ends the run without it
    local check=$1 purpose=$2
    shift 2
    if ! "$check" >/dev/null; then
        { install "$@" && "$check" >/dev/null; } || { say "cannot go on: no $purpose"; exit 1; }
    fi
}

wants() { # wants CHECK WHAT_IS_LOST PACKAGE...: goes on without it, and says so
    local check=$1 loss=$2
    shift 2
    if ! "$check" >/dev/null; then
        { install "$@" && "$check" >/dev/null; } || say "going on without: $loss"
    fi
}

# --- the virtual environment -------------------------------------------------------------------

# A stamp holds all that the environment was made from.  The folder belongs to it: scripts in .venv name it.
setup_key() { printf '%s\n' "$PWD" "$1" && cat pyproject.toml scripts/setup.sh; }

is_stamped() { [ -x $venv/bin/python ] && setup_key "$1" | cmp -s - "$venv/.setup-$1"; }

make_venv() { # make_venv STAMP PIP_ARGUMENT...
    local stamp=$1 python
    shift
    needs find_python "Python 3.11 or newer with venv" python3 python3-venv
    if ! $venv/bin/python -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        say "making $venv with $("$python" --version)"
        "$python" -m venv --clear $venv
    fi
    say "installing memtherm and what it needs into $venv"
    if ! PIP_DISABLE_PIP_VERSION_CHECK=1 $venv/bin/python -m pip install --quiet --no-input "$@" >&2; then
        say "pip failed, see above; it needs a package index: check the network and pip's configuration"
        exit 1
    fi
    setup_key "$stamp" >"$venv/.setup-$stamp"
}

# virtme-ng stands beside the kernels that it boots, outside of the repository.
make_virtme() {
    local folder=${MEMTHERM_KERNELS:-/var/cache/memtherm/kernels}/venv
    ! "$folder/bin/vng" --version >/dev/null 2>&1 || return 0
    say "installing virtme-ng into $folder"
    if ! { "$(find_python)" -m venv --clear "$folder" &&
        PIP_DISABLE_PIP_VERSION_CHECK=1 "$folder/bin/pip" install --quiet --no-input 'virtme-ng~=1.42' >&2; }; then
        say "cannot go on: no virtme-ng, see above"
        exit 1
    fi
}

# ------------------------------------------------------------------------------------------------

case $level in
run)
    wants has_libbpf "the bpf probe, which sees single pages" libbpf1
    is_stamped run || is_stamped test || make_venv run --editable .
    ;;
test)
    wants has_libbpf "the tests of the bpf probe" libbpf1
    wants can_compile "the tests that need the C workload" gcc libc6-dev
    # Half a gigabyte for one test: only where somebody insists on that test.
    ! is_required clang || wants can_build_bpf "the test that builds the BPF object" clang llvm libbpf-dev
    ! is_required strace || wants has_strace "the tests that watch each open()" strace
    ! is_required damo || wants has_file "the tests beside damo" file
    ! is_required chromium || wants has_chromium "the tests of the HTML page" chromium fonts-dejavu-core
    is_stamped test || make_venv test --editable '.[dev]'
    ;;
bpf)
    needs can_build_bpf "compiler for BPF" clang llvm libbpf-dev
    ;;
kernels)
    [ "$(id -u)" = 0 ] || { say "cannot go on: kernels are unpacked and booted as root"; exit 1; }
    scripts/setup.sh test
    needs can_boot_kernels "QEMU and what makes a first file system" \
        qemu-system-x86 kmod cpio zstd busybox-static
    wants has_strace "the test that counts damo's system calls" strace
    wants has_file "the test beside damo" file
    make_virtme
    ;;
*)
    say "unknown: $level (run, test, bpf or kernels)"
    exit 2
    ;;
esac
