"""The C library's functions that Python lacks, each declared in full; all of them in `FUNCTIONS`."""

import ctypes
import gc
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_LIBRARY = ctypes.CDLL(None, use_errno=True)
# Calls through this one keep the interpreter's lock: for short ones made while another program is held, where a
# busy thread of ours that takes the lock would keep it for 5 ms.
_LOCKED_LIBRARY = ctypes.PyDLL(None, use_errno=True)

# The same on every architecture but alpha.
_SYS_PIDFD_OPEN = 434
_SYS_PROCESS_MADVISE = 440
# Older calls have a number for each architecture; -1 answers ENOSYS.
_SYS_MOVE_PAGES = {"x86_64": 279, "aarch64": 239, "riscv64": 239}.get(os.uname().machine, -1)
_SYS_MBIND = {"x86_64": 237, "aarch64": 235, "riscv64": 235}.get(os.uname().machine, -1)
_SYS_GET_MEMPOLICY = {"x86_64": 239, "aarch64": 236, "riscv64": 236}.get(os.uname().machine, -1)

#: name → function, for the test that walks them
FUNCTIONS: dict[str, Any] = {}


def _check(result: int, function: Any, _arguments: tuple[Any, ...]) -> int:
    """ctypes errcheck: a call that answers -1 raises OSError, naming the call."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")
    return result


def _declare_syscall(name: str, number: int, *argument_types: Any) -> Callable[..., int]:
    """A system call that libc does not wrap (2.36 does not), through its `syscall` function."""
    # Item access makes a new function object each time, so that every system call has its own declaration.
    function: Any = _LIBRARY["syscall"]
    function.__name__ = name
    function.argtypes = (ctypes.c_long, *argument_types)
    function.restype = ctypes.c_long
    function.errcheck = _check
    FUNCTIONS[name] = function

    def call(*arguments: int) -> int:
        return int(function(number, *arguments))

    return call


def _declare_function(name: str, *argument_types: Any) -> Any:
    function: Any = _LIBRARY[name]
    function.argtypes = argument_types
    function.restype = ctypes.c_int
    function.errcheck = _check
    FUNCTIONS[name] = function
    return function


_mprotect = _declare_function("mprotect", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_madvise = _declare_function("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_mincore = _declare_function("mincore", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_pidfd_open = _declare_syscall("pidfd_open", _SYS_PIDFD_OPEN, ctypes.c_int, ctypes.c_uint)
_process_madvise = _declare_syscall(
    "process_madvise",
    _SYS_PROCESS_MADVISE,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_uint,
)
_move_pages = _declare_syscall(
    "move_pages",
    _SYS_MOVE_PAGES,
    ctypes.c_int,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
)
_mbind = _declare_syscall(
    "mbind",
    _SYS_MBIND,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_uint,
)
_get_mempolicy = _declare_syscall(
    "get_mempolicy",
    _SYS_GET_MEMPOLICY,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
)
_prctl = _declare_function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def _declare_locked_function(name: str, result_type: Any, *argument_types: Any) -> Any:
    function: Any = _LOCKED_LIBRARY[name]
    function.argtypes = argument_types
    function.restype = result_type
    function.errcheck = _check
    FUNCTIONS[name] = function
    return function


_ptrace = _declare_locked_function(
    "ptrace", ctypes.c_long, ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p
)
_waitid = _declare_locked_function("waitid", ctypes.c_int, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p, ctypes.c_int)


def pidfd_open(pid: int) -> int:
    """A file descriptor that stands for this process and for no later one of that pid.  Raises OSError."""
    return _pidfd_open(pid, 0)


def process_madvise(pidfd: int, vectors_address: int, vector_count: int, advice: int) -> int:
    """Bytes of the `struct iovec` array at `vectors_address` that were completely processed.  Raises OSError."""
    return _process_madvise(pidfd, vectors_address, vector_count, advice, 0)


def move_pages(pid: int, *, count: int, pages_address: int, nodes_address: int, status_address: int, flags: int) -> int:
    """How many pages were not moved; `nodes_address` 0 only asks where they are.  Raises OSError."""
    return _move_pages(pid, count, pages_address, nodes_address, status_address, flags)


def madvise(address: int, length: int, advice: int) -> None:
    """Advice (MADV_*) for own memory.  Raises OSError."""
    _madvise(address, length, advice)


def mbind(address: int, length: int, mode: int, nodes_address: int, nodes_bits: int) -> None:
    """Give own memory a policy (MPOL_*) over the nodes of a bit mask; no page moves.  Raises OSError."""
    _mbind(address, length, mode, nodes_address, nodes_bits, 0)


def get_mempolicy(mode_address: int, address: int, flags: int) -> None:
    """Write the policy that holds at an own address, as an int.  Raises OSError."""
    _get_mempolicy(mode_address, 0, 0, address, flags)


def prctl(option: int, second: int, third: int, fourth: int, fifth: int) -> int:
    """prctl(2) of this process; the answer is that of the option.  Raises OSError."""
    return int(_prctl(option, second, third, fourth, fifth))


def mincore(address: int, length: int, residency_address: int) -> None:
    """Write, for each page of the own mapping, a byte whose lowest bit says if it is in memory.  Raises OSError."""
    _mincore(address, length, residency_address)


def mprotect(address: int, length: int, protection: int) -> None:
    """Change the protection of own memory (mmap.PROT_*; 0 is none).  Raises OSError."""
    _mprotect(address, length, protection)


def give_back_memory() -> None:
    """Give memory that is not needed any more back to the system: after work that is done once.

    About 15 ms.  Without glibc only Python's own part of it.
    """
    gc.collect()
    with suppress(AttributeError):
        _LIBRARY.malloc_trim(0)


def ptrace(request: int, thread_id: int, address: int, data: int) -> int:
    """ptrace(2) without the PEEK requests, whose answer may be -1.  Never releases the interpreter's lock."""
    return int(_ptrace(request, thread_id, address, data))


def waitid(id_type: int, identifier: int, information_address: int, options: int) -> None:
    """waitid(2) into the `siginfo_t` at that address; only with WNOHANG: it keeps the interpreter's lock."""
    _waitid(id_type, identifier, information_address, options)
