"""Memory that compressed swap (zram) takes: /sys/block/zram*/mm_stat."""

from contextlib import suppress
from pathlib import Path

from memtherm.linux.hidden import is_hidden

_ROOT = Path("/sys/block")
_MEM_USED_TOTAL = 2


def read_zram(root: Path = _ROOT) -> int:
    """Bytes of memory that all zram devices use, with their own overhead (Documentation/admin-guide/blockdev/zram.rst).

    0 without zram, or where MEMTHERM_WITHOUT=zram hides it.
    """
    if is_hidden("zram"):
        return 0
    used_bytes = 0
    for file in root.glob("zram*/mm_stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # removed while we look
            used_bytes += int(file.read_text(encoding="ascii").split()[_MEM_USED_TOTAL])
    return used_bytes
