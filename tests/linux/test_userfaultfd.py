"""userfaultfd on own memory as an ordinary user, against pagemap and smaps."""

import ctypes
import errno
import os

import numpy as np
import pytest

from memtherm.errors import InvalidInput, NotPermitted, NotSupported, TargetBusy, TargetGone
from memtherm.linux import hidden
from memtherm.linux import userfaultfd as module
from memtherm.linux.pagemap import PageCategory, Pagemap
from memtherm.linux.process import open_process
from memtherm.linux.userfaultfd import Mode, UserFaultFd, supported_features
from support.own_memory import PAGE, OwnMemory, as_ordinary_user, flags_of, require_tracking
from support.requires import require

MODES = list(Mode)
FLAGS = {Mode.WRITES: "uw", Mode.ACCESSES: "ur"}
SEEN = {Mode.WRITES: PageCategory.WRITTEN, Mode.ACCESSES: PageCategory.ACCESSED}


@pytest.fixture(params=MODES, ids=lambda mode: mode.name.lower())
def mode(request: pytest.FixtureRequest) -> Mode:
    require_tracking(request.param)
    chosen: Mode = request.param
    return chosen


def own_pagemap() -> Pagemap:
    return Pagemap(open_process(os.getpid()))


def marked(memory: OwnMemory) -> list[int]:
    """The pages that carry userfaultfd's mark (bit 57 of pagemap): the second witness."""
    entries = own_pagemap().read(memory.start, memory.end)
    return np.flatnonzero((entries >> np.uint64(57)) & np.uint64(1)).tolist()


def seen(memory: OwnMemory, mode: Mode) -> list[int]:
    runs = own_pagemap().scan([memory.start], [memory.end], any_of=PageCategory.PRESENT, report=SEEN[mode])
    found = runs.categories != 0
    first = (runs.starts[found] - np.uint64(memory.start)) // np.uint64(PAGE)
    last = (runs.ends[found] - np.uint64(memory.start)) // np.uint64(PAGE)
    return [page for begin, end in zip(first.tolist(), last.tolist(), strict=True) for page in range(begin, end)]


@as_ordinary_user
def test_a_protected_page_shows_its_next_access(mode: Mode) -> None:
    memory = OwnMemory(16 * PAGE)
    with UserFaultFd(mode) as descriptor:
        descriptor.register(memory.start, memory.end)
        assert FLAGS[mode] in flags_of(memory.start)
        assert seen(memory, mode) == list(range(16))
        assert descriptor.protect(memory.start, memory.end)
        assert seen(memory, mode) == []
        assert marked(memory) == list(range(16))
        assert memory.read([3]) == 3
        memory.write([7])
        touched = [7] if mode == Mode.WRITES else [3, 7]
        assert seen(memory, mode) == touched
        assert marked(memory) == [page for page in range(16) if page not in touched]


@as_ordinary_user
def test_protection_can_be_taken_off(mode: Mode) -> None:
    memory = OwnMemory(16 * PAGE)
    with UserFaultFd(mode) as descriptor:
        descriptor.register(memory.start, memory.end)
        descriptor.protect(memory.start, memory.end)
        descriptor.protect(memory.start, memory.start + 4 * PAGE, is_on=False)
        assert marked(memory) == list(range(4, 16))
        assert descriptor.unregister(memory.start, memory.end)
        assert marked(memory) == []
        assert FLAGS[mode] not in flags_of(memory.start)


@as_ordinary_user
def test_closing_ends_tracking(mode: Mode) -> None:
    memory = OwnMemory(4 * PAGE)
    descriptor = UserFaultFd(mode)
    descriptor.register(memory.start, memory.end)
    descriptor.protect(memory.start, memory.end)
    descriptor.close()
    descriptor.close()
    assert FLAGS[mode] not in flags_of(memory.start)
    memory.write([1])
    with pytest.raises(TargetGone, match="closed"):
        descriptor.protect(memory.start, memory.end)


@as_ordinary_user
def test_memory_that_another_userfaultfd_has_is_refused_whole(mode: Mode) -> None:
    memory = OwnMemory(16 * PAGE)
    with UserFaultFd(mode) as first, UserFaultFd(mode) as second:
        first.register(memory.start + 8 * PAGE, memory.end)
        with pytest.raises(TargetBusy, match="another userfaultfd"):
            second.register(memory.start, memory.end)
        assert FLAGS[mode] not in flags_of(memory.start)
        assert not second.protect(memory.start, memory.start + PAGE)


@as_ordinary_user
def test_what_is_not_mapped_cannot_be_tracked(mode: Mode) -> None:
    with UserFaultFd(mode) as descriptor:
        with pytest.raises(NotSupported, match=r"16.0 KiB at 0x10000: nothing is mapped"):
            descriptor.register(0x10000, 0x14000)
        assert not descriptor.unregister(0x10000, 0x14000)


@as_ordinary_user
def test_a_child_made_by_fork_cannot_touch_the_parents_tracking(mode: Mode) -> None:
    memory = OwnMemory(4 * PAGE)
    with UserFaultFd(mode) as descriptor:
        descriptor.register(memory.start, memory.end)
        descriptor.protect(memory.start, memory.end)
        pid = os.fork()
        if pid == 0:
            try:
                descriptor.unregister(memory.start, memory.end)
            except TargetGone:
                descriptor.close()
                memory.write([0, 1])
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert FLAGS[mode] in flags_of(memory.start)
        assert marked(memory) == [0, 1, 2, 3]


@as_ordinary_user
def test_pagemap_protects_what_was_written_and_tells_what(mode: Mode) -> None:
    memory = OwnMemory(64 * PAGE, is_present=False)
    memory.write(range(32))
    with UserFaultFd(mode) as descriptor:
        descriptor.register(memory.start, memory.end)
        pagemap = own_pagemap()
        found = pagemap.write_protect([memory.start], [memory.end])
        if mode != Mode.WRITES:
            assert len(found.starts) == 0
            assert marked(memory) == []
            return
        assert (found.starts.tolist(), found.ends.tolist()) == ([memory.start], [memory.start + 32 * PAGE])
        # Pages that are not there got no mark, which would look like swap.
        assert marked(memory) == list(range(32))
        memory.write([5, 40])
        found = pagemap.write_protect([memory.start, memory.start + 8 * PAGE], [memory.start + 4 * PAGE, memory.end])
        assert found.starts.tolist() == [memory.start + 40 * PAGE]
        assert seen(memory, mode) == [5]


def test_pagemap_protects_many_pieces_over_full_buffers() -> None:
    require_tracking(Mode.WRITES)
    memory = OwnMemory(40_000 * PAGE, is_present=False)
    memory.write(range(0, 40_000, 2))
    with UserFaultFd(Mode.WRITES) as descriptor:
        descriptor.register(memory.start, memory.end)
        found = own_pagemap().write_protect([memory.start], [memory.end])
        assert len(found.starts) == 20_000
        assert int((found.ends - found.starts).sum()) == 20_000 * PAGE
        assert seen(memory, Mode.WRITES) == []


def test_write_protection_needs_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "pagemap_scan")
    with pytest.raises(NotSupported, match="PAGEMAP_SCAN"):
        own_pagemap().write_protect([0], [PAGE])


def test_ranges_of_write_protection_are_checked() -> None:
    require("pagemap_scan")
    with pytest.raises(InvalidInput, match="page border"):
        own_pagemap().write_protect([1], [PAGE])


def test_a_kernel_without_a_feature_says_which_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "supported_features", lambda: module.Feature.WRITE_ASYNC)
    with pytest.raises(NotSupported, match="cannot track reads and writes") as caught:
        UserFaultFd(Mode.ACCESSES)
    assert "7.3" in caught.value.hint


def test_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "FEATURES", hidden.FEATURES | {"userfaultfd"})
    monkeypatch.setenv("MEMTHERM_WITHOUT", "userfaultfd")
    with pytest.raises(NotSupported, match="MEMTHERM_WITHOUT"):
        supported_features()


@pytest.mark.parametrize(
    ("number", "error"), [(errno.EPERM, NotPermitted), (errno.ENOSYS, NotSupported), (errno.EMFILE, OSError)]
)
def test_why_there_is_no_userfaultfd(number: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(module, "_syscall", refuse)
    with pytest.raises(error, match="userfaultfd"):
        supported_features()
