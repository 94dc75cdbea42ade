#!/bin/sh
# Builds the BPF objects again and compares them with those that are shipped.
# Exit: 0 the same bytes; 1 they differ; 3 not comparable, for this clang is not the one that made them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# Another version generates other code from the same source.
made_by='Debian clang version 14.0.6'
shipped=$here/../src/memtherm/linux

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$here/build.sh" "$folder"
differing=
for built in "$folder"/*.bpf.o; do
    cmp "$built" "$shipped/${built##*/}" || differing="$differing ${built##*/}"
done
if [ -z "$differing" ]; then
    echo "each object is what its source gives"
    exit 0
fi
here_is=$("${CLANG:-clang}" --version | head -n 1)
if [ "$here_is" != "$made_by" ]; then
    echo "the source compiles, but the bytes cannot be compared: the objects were made by" >&2
    echo "  $made_by, this is" >&2
    echo "  $here_is" >&2
    exit 3
fi
echo "not what its source gives:$differing: run bpf/build.sh and commit it" >&2
exit 1
