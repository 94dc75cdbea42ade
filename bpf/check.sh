#!/bin/sh
# Builds the BPF object again and compares it with the one that is shipped.
# Exit: 0 the same bytes; 1 they differ; 3 not comparable, for this clang is not the one that made it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# Another version generates other code from the same source.
made_by='Debian clang version 14.0.6'
shipped=$here/../src/memtherm/linux/walk.bpf.o

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$here/build.sh" "$folder/walk.bpf.o"
if cmp "$folder/walk.bpf.o" "$shipped"; then
    echo "walk.bpf.o is what its source gives"
    exit 0
fi
here_is=$("${CLANG:-clang}" --version | head -n 1)
if [ "$here_is" != "$made_by" ]; then
    echo "the source compiles, but the bytes cannot be compared: walk.bpf.o was made by" >&2
    echo "  $made_by, this is" >&2
    echo "  $here_is" >&2
    exit 3
fi
echo "walk.bpf.o is not what its source gives: run bpf/build.sh and commit the object" >&2
exit 1
