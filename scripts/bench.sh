#!/usr/bin/env bash
# Run benchmarks/*.py, or the ones named, each after the command that repeats it; first the conditions.
# Options before the names, such as --quick, go to each of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
export PYTHONPATH=tests:. # for tests/support, such as the workload, and benchmarks/support

version_of() { $python -c "import importlib.metadata as m; print(m.version('$1'))"; }
field() { sed -n "s/^$1[[:space:]]*: *//p" "$2" | head -n 1; }

libbpf=$(PATH=$PATH:/usr/sbin:/sbin ldconfig -p | sed -n 's/.*libbpf\.so\.1 .*=> //p' | head -n 1)
printf 'machine   %s, %s CPUs, %s memory, %s swap\n' "$(field 'model name' /proc/cpuinfo)" "$(nproc)" \
    "$(field MemTotal /proc/meminfo)" "$(field SwapTotal /proc/meminfo)"
printf 'kernel    %s\n' "$(uname -srm)"
printf 'memtherm  %s, commit %s\n' "$(version_of memtherm)" "$(git describe --always --dirty 2>/dev/null || echo unknown)"
printf 'versions  %s, numpy %s, libbpf %s\n' "$($python --version)" "$(version_of numpy)" \
    "$([ -n "$libbpf" ] && basename "$(readlink -f "$libbpf")" || echo none)"

options=()
while [ $# -gt 0 ] && [ "${1#--}" != "$1" ]; do
    options+=("$1")
    shift
done
[ $# -gt 0 ] || set -- benchmarks/*.py
for benchmark in "$@"; do
    printf '\n$ PYTHONPATH=tests:. %s %s\n' $python "$benchmark ${options[*]}"
    $python "$benchmark" "${options[@]}"
done
