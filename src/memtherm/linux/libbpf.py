"""libbpf by ctypes: load a built BPF object, map its memory, attach task iterators.

Only what memtherm needs of libbpf 1.0 and newer.  Nothing is loaded at import.
"""

import collections
import ctypes
import errno
import functools
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from memtherm.errors import NotPermitted, NotSupported
from memtherm.linux.hidden import is_hidden

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")

_LIBRARY = "libbpf.so.1"
_LOG_LINES = 25
# The verifier's whole log comes as one message, and its end says why; unused pages of the buffer cost nothing.
_LOG_BYTES = 4 << 20
_LIBBPF_DEBUG = 2

_PRINT_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _TaskLinkInfo(ctypes.Structure):
    """union bpf_iter_link_info of linux/bpf.h, as a task iterator uses it."""

    _fields_ = (("tid", ctypes.c_uint32), ("pid", ctypes.c_uint32), ("pid_fd", ctypes.c_uint32))


class _IteratorOptions(ctypes.Structure):
    """struct bpf_iter_attach_opts of bpf/libbpf.h."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("link_info", ctypes.POINTER(_TaskLinkInfo)),
        ("link_info_len", ctypes.c_uint32),
    )


def _check_pointer(result: int | None, function: Any, _arguments: tuple[object, ...]) -> int:
    """libbpf ≥ 1.0: a null pointer means look at errno."""
    if not result:
        raise OSError(ctypes.get_errno(), f"{function.__name__}: {os.strerror(ctypes.get_errno())}")
    return result


def _check_number(result: int, function: Any, _arguments: tuple[object, ...]) -> int:
    """libbpf ≥ 1.0: a negative return is the error itself."""
    if result < 0:
        raise OSError(-result, f"{function.__name__}: {os.strerror(-result)}")
    return result


# name → (result, arguments, check).  tests/bpf/test_libbpf.py holds each to be whole.
DECLARATIONS: dict[str, tuple[Any, tuple[Any, ...], Callable[..., int] | None]] = {
    "libbpf_set_print": (ctypes.c_void_p, (ctypes.c_void_p,), None),
    "bpf_object__open_mem": (
        ctypes.c_void_p,
        (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p),
        _check_pointer,
    ),
    "bpf_object__load": (ctypes.c_int, (ctypes.c_void_p,), _check_number),
    "bpf_object__close": (None, (ctypes.c_void_p,), None),
    "bpf_object__find_map_by_name": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p), _check_pointer),
    "bpf_object__find_program_by_name": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p), _check_pointer),
    "bpf_map__fd": (ctypes.c_int, (ctypes.c_void_p,), _check_number),
    "bpf_map__value_size": (ctypes.c_uint32, (ctypes.c_void_p,), None),
    "bpf_program__attach_iter": (
        ctypes.c_void_p,
        (ctypes.c_void_p, ctypes.POINTER(_IteratorOptions)),
        _check_pointer,
    ),
    "bpf_link__fd": (ctypes.c_int, (ctypes.c_void_p,), _check_number),
    "bpf_link__destroy": (ctypes.c_int, (ctypes.c_void_p,), _check_number),
    "bpf_iter_create": (ctypes.c_int, (ctypes.c_int,), _check_number),
}


@functools.cache
def _libbpf() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY, use_errno=True)
        for name, (result, arguments, check) in DECLARATIONS.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
            if check:
                function.errcheck = check
    except (OSError, AttributeError) as error:
        raise NotSupported(
            f"cannot use {_LIBRARY}: {error}", hint="install libbpf 1.0 or newer: apt-get install libbpf1"
        ) from error
    return library


@functools.cache
def _vsnprintf() -> Any:
    function = ctypes.CDLL(None).vsnprintf
    function.restype = ctypes.c_int
    function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)
    return function


_log_lock = threading.Lock()


@contextmanager
def _captured_log() -> Iterator[collections.deque[str]]:
    """Collects what libbpf would print on stderr.  Its print function is one for the process: hence the lock."""
    lines: collections.deque[str] = collections.deque(maxlen=_LOG_LINES)
    # Of a mapping only what is written takes memory, and mostly nothing is.
    buffer = (ctypes.c_char * _LOG_BYTES).from_buffer(mmap.mmap(-1, _LOG_BYTES))
    format_text = _vsnprintf()

    def keep(level: int, template: bytes, arguments: int) -> int:
        if level < _LIBBPF_DEBUG:
            format_text(buffer, len(buffer), template, arguments)
            lines.extend(buffer.value.decode(errors="replace").splitlines())
        return 0

    callback = _PRINT_FUNCTION(keep)
    with _log_lock:
        previous = _libbpf().libbpf_set_print(ctypes.cast(callback, ctypes.c_void_p))
        try:
            yield lines
        finally:
            _libbpf().libbpf_set_print(previous)


def _raise_host_error(error: OSError, log: collections.deque[str]) -> NoReturn:
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error  # of the moment, not of the host
    tail = "".join(f"\n  {line}" for line in log)
    if error.errno in (errno.EPERM, errno.EACCES) and not _is_verifier_refusal(log):
        raise NotPermitted(
            f"the kernel does not let this process use BPF: {error.strerror}{tail}",
            hint="run as root, or with the capabilities CAP_BPF and CAP_PERFMON",
        ) from error
    raise NotSupported(
        f"the kernel does not take the BPF program: {error.strerror}{tail}",
        hint="Linux 6.1 or newer with CONFIG_DEBUG_INFO_BTF is needed",
    ) from error


def _is_verifier_refusal(log: collections.deque[str]) -> bool:
    """The verifier, too, answers EACCES; then the log ends with the program's own."""
    return any(line.startswith("processed ") and " insns " in line for line in log)


class BpfLink:
    """A program attached to one process.  `run()` makes it go through that process's threads once."""

    def __init__(self, pointer: int) -> None:
        self._pointer: int | None = pointer
        self._fd: int = _libbpf().bpf_link__fd(pointer)
        self._create: Callable[[int], int] = _libbpf().bpf_iter_create

    def run(self) -> bytes:
        """Runs the iterator until it has written a byte, or has seen all threads (then b"")."""
        try:
            iterator = self._create(self._fd)
        except OSError as error:
            _raise_host_error(error, collections.deque())
        try:
            return os.read(iterator, 1)
        finally:
            os.close(iterator)

    def close(self) -> None:
        if self._pointer:
            pointer, self._pointer = self._pointer, None
            _libbpf().bpf_link__destroy(pointer)


class BpfObject:
    """A BPF object, loaded into the kernel until `close()`."""

    def __init__(self, elf: bytes) -> None:
        """Loads it.

        Raises:
            NotSupported: no libbpf, no kernel BTF, or a kernel that does not take the program.
            NotPermitted: CAP_BPF or CAP_PERFMON is missing.
        """
        if not KERNEL_BTF.exists() or is_hidden("btf"):
            raise NotSupported(
                f"the kernel does not describe its types: no {KERNEL_BTF}",
                hint="a kernel with CONFIG_DEBUG_INFO_BTF=y is needed, as Debian's are",
            )
        if is_hidden("bpf") or is_hidden("libbpf"):
            raise NotSupported("BPF is hidden from memtherm", hint="MEMTHERM_WITHOUT names it")
        library = _libbpf()
        self._pointer: int | None = None
        with _captured_log() as log:
            try:
                self._pointer = library.bpf_object__open_mem(elf, len(elf), None)
                library.bpf_object__load(self._pointer)
            except OSError as error:
                self.close()
                _raise_host_error(error, log)

    def map_memory(self, name: str) -> mmap.mmap:
        """The one value of an mmap-able array map, shared with the program."""
        library = _libbpf()
        found = library.bpf_object__find_map_by_name(self._pointer, name.encode())
        return mmap.mmap(library.bpf_map__fd(found), library.bpf_map__value_size(found), mmap.MAP_SHARED)

    def attach_task_iterator(self, program: str, *, pid: int) -> BpfLink:
        """Attaches an iter/task program to the threads of process `pid`.

        By `pid` and not by `tid`: a leader that has called pthread_exit() is a zombie without memory
        while other threads live on, and `tid` shows the leader alone.  A `pid_fd` is no safer, for the
        kernel turns it into a number when it attaches (Linux 6.1, bpf_iter_attach_task).
        """
        library = _libbpf()
        information = _TaskLinkInfo(pid=pid)
        options = _IteratorOptions(
            sz=ctypes.sizeof(_IteratorOptions),
            link_info=ctypes.pointer(information),
            link_info_len=ctypes.sizeof(information),
        )
        with _captured_log() as log:
            try:
                found = library.bpf_object__find_program_by_name(self._pointer, program.encode())
                return BpfLink(library.bpf_program__attach_iter(found, ctypes.byref(options)))
            except OSError as error:
                _raise_host_error(error, log)

    def close(self) -> None:
        if self._pointer:
            pointer, self._pointer = self._pointer, None
            _libbpf().bpf_object__close(pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
