"""How many mappings a process may have: vm.max_map_count (Documentation/admin-guide/sysctl/vm.rst)."""

from pathlib import Path

_SETTING = Path("/proc/sys/vm/max_map_count")


def read_max_map_count() -> int:
    """The host's limit for each process; beyond it mmap and munmap fail with ENOMEM."""
    return int(_SETTING.read_text(encoding="ascii"))
