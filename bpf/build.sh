#!/bin/sh
# Builds the BPF object: bpf/build.sh [OUTPUT], by default the one that is shipped.
# The same clang gives the same bytes, wherever the tree stands: names are made
# relative, and the debug sections (not BTF) are stripped.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
output=${1:-$here/../src/memtherm/linux/walk.bpf.o}
case $output in /*) ;; *) output=$PWD/$output ;; esac
clang=${CLANG:-clang}
strip=${LLVM_STRIP:-llvm-strip}

cd "$here"
"$clang" -O2 -g -mcpu=v3 -target bpf -Wall -Wextra -Werror -Wno-unused-parameter \
    -fno-ident -fdebug-compilation-dir=. -ffile-prefix-map="$here"=. \
    -idirafter /usr/include/"$(uname -m)"-linux-gnu \
    -c walk.bpf.c -o "$output"
"$strip" -g "$output"
