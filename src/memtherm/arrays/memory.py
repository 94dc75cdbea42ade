"""The memory behind an array: where it lies, which bytes are its elements, and who keeps it alive."""

from __future__ import annotations

import array as standard_array
import mmap
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtherm.arrays.allocate import Block
from memtherm.errors import InvalidInput
from memtherm.units import PAGE_SIZE, format_size

_CPU = 1  # kDLCPU of DLPack
_HINT = "watch a numpy array, or what gives its memory by the buffer protocol, __array_interface__ or DLPack"


@dataclass(frozen=True)
class ArrayMemory:
    """Which bytes are the elements of an array.

    Attributes:
        address: of the element whose indices are all 0.
        shape, strides: as numpy has them, strides in bytes; a single element has one row.
        itemsize: bytes of one element.
        free_end: end of the memory that follows the last byte and belongs to nobody else; else the end of the array.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    free_end: int = 0

    @classmethod
    def of(cls, array: NDArray[Any]) -> ArrayMemory:
        """Of a numpy array.

        Raises:
            InvalidInput: objects, no element, elements that share their bytes, or no page of its own.
        """
        _refuse_unwatchable(array)
        memory = cls(
            address=int(array.__array_interface__["data"][0]),
            shape=array.shape or (1,),
            strides=array.strides or (array.itemsize,),
            itemsize=array.itemsize,
        )
        block = _block_of(array)
        if block is not None and memory.end == block.end:
            memory = cls(memory.address, memory.shape, memory.strides, memory.itemsize, block.free_end)
        if memory.first_page >= memory.end_page:
            raise InvalidInput(
                f"an array of {format_size(memory.end - memory.start)} that fills no page of memory",
                hint=f"pages are {format_size(PAGE_SIZE)}; memtherm.allocate gives an array pages of its own",
            )
        return memory

    @property
    def nr_rows(self) -> int:
        return self.shape[0]

    @property
    def start(self) -> int:
        """The lowest address of a byte of the array."""
        return self.address + sum(min(0, step) * (count - 1) for count, step in self._dimensions)

    @property
    def end(self) -> int:
        """One beyond the highest."""
        return self.address + sum(max(0, step) * (count - 1) for count, step in self._dimensions) + self.itemsize

    @property
    def first_page(self) -> int:
        """Number of the first page that lies wholly inside."""
        return -(-self.start // PAGE_SIZE)

    @property
    def end_page(self) -> int:
        """One beyond the number of the last such page."""
        return max(self.end, self.free_end) // PAGE_SIZE

    @property
    def _dimensions(self) -> list[tuple[int, int]]:
        return list(zip(self.shape, self.strides, strict=True))


class Owner:
    """Who keeps the memory of an array alive: held weakly, so that watching keeps no array.

    Views die early, and their memory lives on; so it is the array that they are views of that counts.  Where nobody
    could be told in time, it is held as long as it is watched: a mmap, which gives its memory back before it tells,
    and what cannot be held weakly, such as bytes and bytearray; the latter cannot be resized meanwhile.  So is a column
    that Arrow keeps.

    Args:
        given: what the user gave.
        array: its memory as a numpy array of our own.

    Attributes:
        on_freed: called while the memory is still there, by the thread that frees it.
    """

    def __init__(self, given: object, array: NDArray[Any]) -> None:
        owner = _owner_of(given, array)
        self._held: object | None = None
        self._weak: weakref.ref[Any] | None = None
        self._place = _place_of(owner)
        if isinstance(owner, mmap.mmap):
            self._held = owner
        else:
            if hasattr(owner, "to_numpy") and not any(owner is one for one in _chain(array)):
                # It may change what it keeps its numbers in, and nobody would tell: this array keeps the memory.
                self._held = array
            try:
                self._weak = weakref.ref(owner, self._note_freed)
            except TypeError:
                self._held = memoryview(owner)  # type: ignore[arg-type]
                self._place = ()
        self.on_freed: Callable[[], None] = lambda: None

    def get(self) -> object | None:
        """The owner, which lives as long as the caller has it; None once it is gone."""
        return self._held if self._weak is None else self._weak()

    def why_gone(self, owner: object | None) -> str:
        """Why the memory is not what it was, or an empty text."""
        if owner is None:
            return "was freed"
        if self._place and _place_of(owner) != self._place:
            return "was resized or given back: its memory is not where it was"
        return ""

    def let_go(self) -> None:
        """Hold nothing more; nobody is told any more."""
        self.on_freed = lambda: None
        held, self._held = self._held, None
        if isinstance(held, memoryview):
            held.release()

    def _note_freed(self, _: object) -> None:
        self.on_freed()
        self._held = None


def as_numpy(array: object) -> NDArray[Any]:
    """The same memory as a numpy array; nothing is copied.

    Raises:
        InvalidInput: it has no memory of its own on the CPU, or gives a copy.
    """
    if isinstance(array, np.ndarray):
        return array.view(np.ndarray)
    try:
        return np.asarray(memoryview(array))  # type: ignore[arg-type]
    except TypeError:
        pass  # it has no buffer; there are other ways
    except (BufferError, ValueError) as problem:
        raise InvalidInput(f"the memory of a {_kind(array)} cannot be had: {problem}", hint=_HINT) from None
    if hasattr(array, "__array_interface__"):
        return _by_array_interface(array)
    if hasattr(array, "__dlpack__"):
        return _by_dlpack(array)
    if hasattr(array, "to_numpy"):
        return _by_to_numpy(array)
    raise InvalidInput(f"a {_kind(array)} has no memory that can be watched", hint=_HINT)


def _by_array_interface(array: Any) -> NDArray[Any]:
    try:
        return np.asarray(array)
    except (AttributeError, TypeError, ValueError) as problem:
        raise InvalidInput(f"the memory of a {_kind(array)} cannot be had: {problem}", hint=_HINT) from None


def _by_dlpack(array: Any) -> NDArray[Any]:
    device = array.__dlpack_device__()[0]
    if device != _CPU:
        raise InvalidInput(
            f"a {_kind(array)} on device {int(device)} is not in the memory of the CPU",
            hint="watch its copy on the CPU",
        )
    try:
        return np.from_dlpack(array)
    except (BufferError, TypeError, ValueError, RuntimeError) as problem:
        raise InvalidInput(f"the memory of a {_kind(array)} cannot be had: {problem}", hint=_HINT) from None


def _by_to_numpy(array: Any) -> NDArray[Any]:
    """A column of a data frame; two copies have two addresses."""
    try:
        first, second = array.to_numpy(copy=False), array.to_numpy(copy=False)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise InvalidInput(f"the memory of a {_kind(array)} cannot be had: {problem}", hint=_HINT) from None
    if not isinstance(first, np.ndarray) or _place_of(first) != _place_of(second):
        raise InvalidInput(
            f"a {_kind(array)} gives a copy of its memory", hint="watch the array that holds its numbers"
        )
    return first.view()


def _kind(array: object) -> str:
    return type(array).__name__


def _refuse_unwatchable(array: NDArray[Any]) -> None:
    if array.dtype.hasobject:
        raise InvalidInput(
            f"an array of {array.dtype} holds references, and its objects lie elsewhere", hint="watch arrays of numbers"
        )
    if not array.size or not array.itemsize:
        raise InvalidInput("an empty array has no memory", hint="watch one that has elements")
    if any(step == 0 and count > 1 for count, step in zip(array.shape, array.strides, strict=True)):
        raise InvalidInput(
            "an array with a stride of 0: many of its elements are the same memory", hint="watch what it is a view of"
        )


def _chain(thing: object) -> list[object]:
    """An array, what it is a view of, and so on to what has the memory."""
    found: list[object] = []
    while thing is not None and not any(thing is one for one in found):
        found.append(thing)
        if isinstance(thing, np.ndarray):
            thing = thing.base
        elif isinstance(thing, memoryview):
            thing = thing.obj
        else:
            thing = None
    return found


def _owner_of(given: object, array: NDArray[Any]) -> object:
    """The last array that the memory is a view of; else who has it, and whom we can hold weakly."""
    behind = _chain(array)[1:]
    arrays = [one for one in behind if isinstance(one, np.ndarray)]
    if arrays and not _is_made_anew(arrays[-1], given):
        return arrays[-1]
    # A memoryview gives its buffer back before it tells; whose buffer it is, is behind it.
    others = [one for one in [*behind, given] if not isinstance(one, memoryview) and _is_kept_by(one)]
    return others[-1] if others else given


def _is_made_anew(owner: object, given: Any) -> bool:
    """Whether a column makes this whenever it is asked for its numbers, as one that Arrow keeps: nobody else has it."""
    if isinstance(given, np.ndarray) or not hasattr(given, "to_numpy") or hasattr(given, "__dlpack__"):
        return False
    return not any(owner is one for one in _chain(given.to_numpy(copy=False)))


def _is_kept_by(one: object) -> bool:
    try:
        weakref.ref(one)
    except TypeError:
        return False
    return True


def _block_of(array: NDArray[Any]) -> Block | None:
    return next((one for one in _chain(array) if isinstance(one, Block)), None)


def _place_of(owner: Any) -> tuple[int, ...]:
    """Where the memory is and how long, for owners whose memory can move."""
    if isinstance(owner, np.ndarray):
        return int(owner.__array_interface__["data"][0]), owner.nbytes
    if isinstance(owner, standard_array.array):
        return owner.buffer_info()
    if isinstance(owner, mmap.mmap):
        return (0,) if owner.closed else (1, len(owner))
    if callable(where := getattr(owner, "data_ptr", None)):
        return (int(where()),)
    return ()
