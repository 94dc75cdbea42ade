"""Swap: text, and a real device that comes and goes."""

import pytest

from memtherm.linux.swap import parse_meminfo, parse_swaps, read_meminfo, read_swap
from support.requires import require
from support.swap import swap_on

MIB = 1 << 20
SWAPS = """\
Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/zram0                              partition\t1048572\t\t512\t\t-2
/swap\\040file                            file\t\t4\t\t0\t\t1000
"""


def test_text_of_swaps() -> None:
    zram, file = parse_swaps(SWAPS)
    assert (zram.path, zram.is_zram, zram.size_bytes, zram.used_bytes, zram.priority) == (
        *("/dev/zram0", True, 1048572 * 1024, 512 * 1024, -2),
    )
    assert (file.path, file.is_zram, file.priority) == ("/swap\\040file", False, 1000)
    assert parse_swaps(SWAPS.splitlines()[0]) == ()


def test_text_of_meminfo() -> None:
    text = "MemTotal:       25276502 kB\nHugePages_Total:       3\n"
    assert parse_meminfo(text) == {"MemTotal": 25276502 * 1024, "HugePages_Total": 3}
    host = read_meminfo()
    assert host["MemTotal"] > 64 * MIB
    for key in ("MemFree", "MemAvailable", "Active", "Inactive"):
        assert 0 < host[key] < host["MemTotal"]


def test_a_device_that_comes_and_goes() -> None:
    require("swap")
    with swap_on(16 * MIB) as device:
        state = read_swap()
        (ours,) = (known for known in state.devices if known.path == str(device.path))
        assert ours.is_zram == device.is_zram
        assert state.has_zram >= device.is_zram
        # The header takes a page.
        assert ours.size_bytes == 16 * MIB - 4096
        assert state.free_bytes >= ours.size_bytes - ours.used_bytes
        assert state.total_bytes == sum(known.size_bytes for known in state.devices)
    assert str(device.path) not in {known.path for known in read_swap().devices}


def test_hidden_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    require("swap")
    with swap_on(16 * MIB):
        monkeypatch.setenv("MEMTHERM_WITHOUT", "swap")
        state = read_swap()
        assert (state.total_bytes, state.free_bytes, state.devices, state.has_zram) == (0, 0, (), False)
