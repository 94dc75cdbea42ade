"""clear_refs; the witness is smaps."""

import errno
import os

import numpy as np
import pytest

from memtherm.errors import NotPermitted, NotSupported, TargetGone
from memtherm.linux.clear_refs import ClearKind, clear
from memtherm.linux.maps import read_smaps
from memtherm.linux.pagemap import Pagemap, is_soft_dirty
from memtherm.linux.process import open_process
from support.children import SHARED, memory_child
from support.privileges import run_as_nobody
from support.requires import require

MIB = 1 << 20


@pytest.mark.parametrize(
    ("kind", "anonymous_left", "shared_left"),
    [(ClearKind.ALL, 0, 0), (ClearKind.ANONYMOUS, 0, MIB), (ClearKind.FILE, MIB, 0)],
)
def test_each_kind_clears_its_pages(kind: ClearKind, anonymous_left: int, shared_left: int) -> None:
    with memory_child() as child, open_process(child.pid) as process:
        addresses = [child.map_aligned(MIB), child.map(MIB, flags=SHARED)]
        for address in addresses:
            child.write(address, 256)
        clear(process, kind)
        details = read_smaps(process)
        rows = np.searchsorted(details.mappings.ends, np.array(addresses, np.uint64), side="right")
        assert details.rss_bytes[rows].tolist() == [MIB, MIB]
        assert details.referenced_bytes[rows].tolist() == [anonymous_left, shared_left]


def test_soft_dirty() -> None:
    require("soft_dirty")
    with memory_child() as child, open_process(child.pid) as process, Pagemap(process) as pagemap:
        address = child.map_aligned(MIB)
        child.write(address, 256)
        clear(process, ClearKind.SOFT_DIRTY)
        assert not is_soft_dirty(pagemap.read(address, address + MIB)).any()
        child.write(address, 256, step=2)
        assert is_soft_dirty(pagemap.read(address, address + MIB)).tolist() == [True, False] * 128


def test_a_kind_that_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_file: int, _data: bytes) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    with memory_child() as child, open_process(child.pid) as process:
        monkeypatch.setattr(os, "write", refuse)
        with pytest.raises(NotSupported, match="does not clear soft_dirty marks") as caught:
            clear(process, ClearKind.SOFT_DIRTY)
        monkeypatch.undo()
    assert "CONFIG_MEM_SOFT_DIRTY" in caught.value.hint


def test_an_ended_process_is_gone() -> None:
    with memory_child() as child, open_process(child.pid) as process:
        child.kill()
        with pytest.raises(TargetGone):
            clear(process, ClearKind.ALL)
        child.end()
        with pytest.raises(TargetGone):
            clear(process, ClearKind.ALL)


def test_nobody_may_clear_a_process_of_root() -> None:
    require("root")

    def ask() -> str:
        with pytest.raises(NotPermitted, match="clear_refs") as caught:
            clear(process, ClearKind.ALL)
        return caught.value.hint

    with memory_child() as child, open_process(child.pid) as process:
        assert run_as_nobody(ask)
