#!/bin/sh
# Builds the BPF objects, one for each architecture: bpf/build.sh [FOLDER], by default where they are shipped.
# The same clang gives the same bytes, wherever the tree stands: names are made
# relative, and the debug sections (not BTF) are stripped.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "${1:-$here/../src/memtherm/linux}" && pwd)
clang=${CLANG:-clang}
strip=${LLVM_STRIP:-llvm-strip}

cd "$here"
build() { # build OBJECT [OPTION]...
    output=$folder/$1
    shift
    "$clang" -O2 -g -mcpu=v3 -target bpf -Wall -Wextra -Werror -Wno-unused-parameter \
        -fno-ident -fdebug-compilation-dir=. -ffile-prefix-map="$here"=. \
        -idirafter /usr/include/"$(uname -m)"-linux-gnu \
        "$@" -c walk.bpf.c -o "$output"
    "$strip" -g "$output"
}
build walk.bpf.o
build walk_arm64.bpf.o -DWALK_ARM64
