"""Where the memory of an array lies, who keeps it, and what has none that can be watched."""

from __future__ import annotations

import array
import gc
import mmap
from typing import Any

import numpy as np
import pytest

from memtherm.arrays.memory import ArrayMemory, Owner, as_numpy
from memtherm.errors import InvalidInput

PAGE = 4096


def address(thing: np.ndarray[Any, Any]) -> int:
    return int(thing.ctypes.data)


class Column:
    """A column of a data frame, as pandas has it."""

    def __init__(self, values: np.ndarray[Any, Any], *, copies: bool = False) -> None:
        self._values = values
        self._copies = copies

    def to_numpy(self, copy: bool = False) -> np.ndarray[Any, Any]:
        return self._values.copy() if copy or self._copies else self._values


class Interface:
    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self._values = values

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._values.__array_interface__


class Described:
    def __init__(self, interface: Any) -> None:
        self.__array_interface__ = interface


class Tensor:
    """DLPack alone."""

    def __init__(self, values: np.ndarray[Any, Any], device: int = 1) -> None:
        self._values = values
        self._device = device

    def __dlpack__(self, **options: Any) -> Any:
        if self._device == 99:
            raise BufferError("it requires a gradient")
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1 if self._device == 99 else self._device), 0


@pytest.mark.parametrize("wrap", [Interface, Tensor, Column, memoryview, lambda values: values])
def test_the_memory_is_the_same_whatever_it_comes_in(wrap: Any) -> None:
    values = np.arange(4096.0)
    found = as_numpy(wrap(values))
    assert address(found) == address(values)
    assert ArrayMemory.of(found) == ArrayMemory.of(values)


def test_memory_without_numbers() -> None:
    with mmap.mmap(-1, 4 * PAGE) as mapping:
        assert as_numpy(mapping).nbytes == 4 * PAGE
    assert as_numpy(bytearray(3 * PAGE)).nbytes == 3 * PAGE
    assert as_numpy(array.array("d", [0.0]) * 2000).dtype == np.float64


def test_arrow_buffers_and_arrays() -> None:
    arrow = pytest.importorskip("pyarrow")
    numbers = arrow.array(np.arange(5000.0))
    buffer = numbers.buffers()[1]
    assert address(as_numpy(buffer)) == buffer.address
    assert address(as_numpy(numbers)) == buffer.address


def test_a_column_of_a_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    values = np.arange(5000.0)
    frame = pandas.DataFrame({"price": values}, copy=False)
    assert address(as_numpy(frame["price"])) == address(values)
    with pytest.raises(InvalidInput, match=r"copy|references"):
        ArrayMemory.of(as_numpy(pandas.Series(["a", "b"] * 5000)))


def test_a_column_that_arrow_keeps_lives_as_long_as_its_series() -> None:
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    series = pandas.Series(arrow.array(np.arange(5000.0)), dtype=pandas.ArrowDtype(arrow.float64()))
    owner = owner_of(series)
    gc.collect()
    assert owner.get() is series
    assert owner.why_gone(series) == ""
    assert owner._held is not None
    del series
    gc.collect()
    assert owner.get() is None
    assert owner._held is None


def test_views_offsets_and_strides() -> None:
    values = np.zeros((100, 1000))
    part = ArrayMemory.of(values[10:90:2, ::-1])
    assert part.start == address(values) + 10 * 8000
    assert part.end == address(values) + 88 * 8000 + 8000
    assert part.nr_rows == 40
    assert part.strides == (16000, -8)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.array([object()] * 5000), "holds references"),
        (np.zeros((0, 5)), "empty"),
        (np.broadcast_to(np.zeros(5000), (3, 5000)), "stride of 0"),
        (np.zeros(10), "fills no page"),
        (np.float64(3), "fills no page"),
        ([1, 2, 3], "a list has no memory"),
        ("text", "a str has no memory"),
        (None, "a NoneType has no memory"),
        (Tensor(np.zeros(5000), device=2), "a Tensor on device 2 is not in the memory of the CPU"),
        (Tensor(np.zeros(5000), device=99), "requires a gradient"),
        (Column(np.zeros(5000), copies=True), "gives a copy"),
        (Described({"version": 3}), "the memory of a Described cannot be had"),
        (Described(None), "the memory of a Described cannot be had"),
        (memoryview(b"").release, "has no memory"),
    ],
)
def test_what_cannot_be_watched_is_told_in_one_line(given: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as found:
        ArrayMemory.of(as_numpy(given))
    assert found.value.hint
    assert "\n" not in str(found.value)


def test_a_released_memoryview_is_told() -> None:
    view = memoryview(bytearray(5000))
    view.release()
    with pytest.raises(InvalidInput, match="released"):
        as_numpy(view)


def test_read_only_memory_is_memory() -> None:
    values = np.zeros(5000)
    values.flags.writeable = False
    assert ArrayMemory.of(as_numpy(values)).nr_rows == 5000
    assert as_numpy(bytes(5000)).nbytes == 5000


def owner_of(given: Any) -> Owner:
    return Owner(given, as_numpy(given))


def test_the_owner_is_told_when_it_dies_and_before_its_memory_goes() -> None:
    values = np.zeros(100_000)
    owner, told = owner_of(values[5:]), []
    owner.on_freed = lambda: told.append(True)
    gc.collect()
    assert owner.get() is values
    assert owner.why_gone(owner.get()) == ""
    del values
    assert told == [True]
    assert owner.why_gone(owner.get()) == "was freed"


def test_a_view_keeps_the_memory_of_the_array_that_it_came_from() -> None:
    values = np.zeros(100_000)
    owner = owner_of(values)
    view = values[10:20]
    del values
    assert owner.get() is not None
    del view
    assert owner.get() is None


@pytest.mark.parametrize("wrap", [Interface, Tensor])
def test_what_gives_its_memory_is_the_owner(wrap: Any) -> None:
    given = wrap(np.zeros(100_000))
    owner = owner_of(given)
    assert owner.get() is given
    del given
    assert owner.get() is None


@pytest.mark.parametrize("wrap", [Column, memoryview])
def test_an_array_is_the_owner_whatever_it_is_given_in(wrap: Any) -> None:
    values = np.zeros(100_000)
    owner = owner_of(wrap(values[100:]))
    assert owner.get() is values
    del values
    gc.collect()
    assert owner.get() is None


def test_a_mapping_is_kept_and_may_be_closed() -> None:
    mapping = mmap.mmap(-1, 10 * PAGE)
    owner = owner_of(memoryview(mapping))
    assert owner.get() is mapping
    assert owner.why_gone(mapping) == ""
    gc.collect()
    mapping.close()
    assert "given back" in owner.why_gone(owner.get())


def test_memory_that_cannot_be_held_weakly_is_held() -> None:
    given = bytearray(100_000)
    owner = owner_of(given)
    with pytest.raises(BufferError):
        given.extend(b"1")
    owner.let_go()
    given.extend(b"1")


def test_numpy_does_not_move_an_array_that_somebody_watches() -> None:
    values = np.zeros(1_000_000)
    owner = owner_of(values)
    with pytest.raises(ValueError, match="cannot resize"):
        values.resize(3_000_000, refcheck=False)
    assert owner.why_gone(owner.get()) == ""


def test_a_standard_array_may_grow() -> None:
    values = array.array("d", [0.0] * 10_000)
    owner = owner_of(values)
    values.extend([1.0] * 1_000_000)
    assert "resized" in owner.why_gone(owner.get())
