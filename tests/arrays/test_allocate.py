"""Arrays on pages of their own."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memtherm.arrays.allocate import allocate
from memtherm.arrays.memory import ArrayMemory
from memtherm.arrays.rows import RowMap
from memtherm.errors import InvalidInput

PAGE, HUGE = 4096, 2 << 20


def vm_flags(address: int) -> set[str]:
    """Of the mapping of this process that holds the address."""
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            found = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif found and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError("not mapped")


def is_mapped(address: int) -> bool:
    try:
        return bool(vm_flags(address))
    except AssertionError:
        return False


@pytest.mark.parametrize("shape", [5000, (1000, 7), (3, 5, 7000), np.int64(9000)])
@pytest.mark.parametrize("dtype", ["float32", np.int8, "M8[s]", [("a", "f8"), ("b", "i4")]])
def test_an_array_as_asked_for_that_owns_all_its_pages(shape: Any, dtype: Any) -> None:
    values = allocate(shape, dtype)
    assert values.shape == np.empty(shape, "i1").shape
    assert values.dtype == np.dtype(dtype)
    assert not values.view("u1").any()
    values.view("u1")[:] = 1
    assert values.ctypes.data % HUGE == 0
    rows = RowMap(ArrayMemory.of(values))
    assert rows.nr_pages == -(-values.nbytes // PAGE)
    assert rows.own.all()
    assert len(rows.shared) == 0


def test_parts_of_it_share_pages_with_the_rest_only() -> None:
    values = allocate(10_000, "u1")
    rows = RowMap(ArrayMemory.of(values[5000:]))
    assert rows.pages.tolist() == [values.ctypes.data + 2 * PAGE]
    assert rows.own.all()
    assert rows.shared.tolist() == [values.ctypes.data + PAGE]


def test_huge_pages_are_advised_as_asked_for() -> None:
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel has no huge pages")
    wanted, unwanted, untouched = (allocate(HUGE + 1, "u1", huge_pages=choice) for choice in (True, False, None))
    assert "hg" in vm_flags(wanted.ctypes.data)
    assert "hg" in vm_flags(wanted.ctypes.data + 2 * HUGE - PAGE)
    assert "nh" in vm_flags(unwanted.ctypes.data)
    assert not vm_flags(untouched.ctypes.data) & {"hg", "nh"}
    assert RowMap(ArrayMemory.of(wanted)).nr_pages == 2 * HUGE // PAGE


def test_the_memory_is_given_back_with_the_last_view() -> None:
    values = allocate(64 << 20, "u1")
    address, view = values.ctypes.data, values[7:9].view("i1")
    del values
    gc.collect()
    assert is_mapped(address)
    del view
    gc.collect()
    assert not is_mapped(address + (32 << 20))


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        (0, "f8", "is empty"),
        ((3, 0), "f8", "is empty"),
        ((3, -1), "f8", "negative size"),
        ("many", "f8", "is no shape"),
        (3.5, "f8", "is no shape"),
        (5, object, "holds references"),
    ],
)
def test_bad_input_is_one_clear_line(shape: Any, dtype: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as found:
        allocate(shape, dtype)
    assert found.value.hint


@pytest.mark.parametrize("size", [1 << 55, 1 << 62, 1 << 63])
def test_more_than_there_is(size: int) -> None:
    with pytest.raises((MemoryError, InvalidInput)):
        allocate(size, "f8")
