"""How much of a mapped file is in memory; the witness is what the test itself read and dropped."""

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtherm.errors import TargetGone
from memtherm.linux.page_cache import cached_pages
from memtherm.linux.process import Process, open_process
from support.children import SHARED, Child, memory_child
from support.requires import require

PAGE = 4096
SIZE = 64 * PAGE


@pytest.fixture
def child() -> Iterator[Child]:
    require("root")
    with memory_child() as fresh:
        yield fresh


@pytest.fixture
def process(child: Child) -> Iterator[Process]:
    with open_process(child.pid) as opened:
        yield opened


@pytest.fixture
def file() -> Iterator[Path]:
    """Of 63 pages and a half, none of them cached."""
    with tempfile.NamedTemporaryFile(prefix="memtherm-cache-", dir="/var/tmp") as opened:
        opened.write(os.urandom(SIZE - PAGE // 2))
        opened.flush()
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        # One page, and not those around it.
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(opened.fileno(), 1, 10 * PAGE)
        os.pread(opened.fileno(), 1, 63 * PAGE)
        yield Path(opened.name)


def look(process: Process, address: int, length: int, start: int, end: int) -> int:
    """Bytes in memory of the pages [start, end) of a mapping of the whole file."""
    part = (address + start * PAGE, address + end * PAGE)
    pages = cached_pages(process, mapping=(address, address + length), file_offset=0, start=part[0], end=part[1])
    return int(pages.sum()) * PAGE


@pytest.mark.parametrize("flags", [mmap.MAP_PRIVATE, mmap.MAP_SHARED])
def test_counts_the_pages_in_memory(child: Child, process: Process, file: Path, flags: int) -> None:
    address = child.map(SIZE, flags=flags, path=str(file))
    assert look(process, address, SIZE, 0, 64) == 2 * PAGE
    assert look(process, address, SIZE, 0, 10) == 0
    assert look(process, address, SIZE, 10, 11) == PAGE
    assert look(process, address, SIZE, 63, 64) == PAGE


def test_beyond_the_end_of_the_file_there_is_nothing(child: Child, process: Process, file: Path) -> None:
    address = child.map(2 * SIZE, flags=mmap.MAP_PRIVATE, path=str(file))
    assert look(process, address, 2 * SIZE, 32, 128) == PAGE
    assert look(process, address, 2 * SIZE, 64, 128) == 0


def test_a_file_that_is_deleted(child: Child, process: Process, file: Path) -> None:
    address = child.map(SIZE, flags=mmap.MAP_SHARED, path=str(file))
    kept = file.with_suffix(".kept")
    file.rename(kept)
    try:
        kept.unlink()
        file.touch()  # for the fixture to remove; another file
        assert look(process, address, SIZE, 0, 64) == 2 * PAGE
    finally:
        kept.unlink(missing_ok=True)


def test_shared_memory(child: Child, process: Process) -> None:
    address = child.map(SIZE, flags=SHARED)
    child.write(address, 5)
    assert look(process, address, SIZE, 0, 64) == 5 * PAGE


def test_a_mapping_that_is_gone(child: Child, process: Process, file: Path) -> None:
    address = child.map(SIZE, flags=mmap.MAP_SHARED, path=str(file))
    child.unmap(address, SIZE)
    assert look(process, address, SIZE, 0, 64) == 0


def test_what_is_no_regular_file_is_not_opened(child: Child, process: Process) -> None:
    # /dev/zero stays the device when it is mapped privately.
    address = child.map(SIZE, flags=mmap.MAP_PRIVATE, path="/dev/zero")
    child.write(address, 5)
    assert look(process, address, SIZE, 0, 64) == 0


def test_a_process_that_is_gone(child: Child, process: Process) -> None:
    address = child.map(SIZE, flags=SHARED)
    child.end()
    with pytest.raises(TargetGone):
        look(process, address, SIZE, 0, 64)
