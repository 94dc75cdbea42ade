"""Memory of compressed swap."""

from pathlib import Path

import pytest

from memtherm.linux.advise import Advice, advise_process
from memtherm.linux.process import open_process
from memtherm.linux.zram import read_zram
from support.children import memory_child
from support.requires import require
from support.swap import swap_on

MIB = 1 << 20


def _devices(root: Path, *texts: str) -> Path:
    for number, text in enumerate(texts):
        folder = root / f"zram{number}"
        folder.mkdir()
        (folder / "mm_stat").write_text(text)
    (root / "sda").mkdir()
    return root


def test_the_third_number_of_each_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMTHERM_WITHOUT", raising=False)
    root = _devices(tmp_path, "8192 100 4096 0 4096 0 0 0 0\n", "       0        0   12288 0 0\n")
    (root / "zram7").mkdir()  # removed while we look
    assert read_zram(root) == 4096 + 12288
    monkeypatch.setenv("MEMTHERM_WITHOUT", "zram")
    assert read_zram(root) == 0


def test_no_device(tmp_path: Path) -> None:
    assert read_zram(tmp_path) == 0
    assert read_zram() >= 0


def test_memory_that_is_paged_out() -> None:
    require("root", "swap", "zram", "process_madvise")

    with swap_on(64 * MIB) as device, memory_child() as child:
        if not device.is_zram:
            pytest.skip("zram0 is in use by others")
        address = child.map_aligned(8 * MIB)
        child.fill(address, 8 * MIB)  # random: does not compress
        before = read_zram()
        with open_process(child.pid) as process:
            advise_process(process, address, address + 8 * MIB, Advice.PAGEOUT)
            swapped = process.swap_bytes()
        # Second witness: the process's own count of what is in swap.
        assert swapped > 7 * MIB
        assert read_zram() - before == pytest.approx(swapped, rel=0.05)
