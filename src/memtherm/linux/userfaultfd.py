"""userfaultfd(2) of this process, for tracking its own accesses without privilege (damon-spec §5.7).

Only the asynchronous kinds are here: the kernel resolves each fault by itself, and nobody has to answer one.
Numbers and layouts are those of include/uapi/linux/userfaultfd.h of Linux 7.3.4.
"""

import ctypes
import errno
import fcntl
import os
import struct
from enum import IntFlag
from types import TracebackType
from typing import Self

from memtherm.errors import HostCannot, NotPermitted, NotSupported, TargetBusy, TargetGone
from memtherm.linux.hidden import is_hidden
from memtherm.units import format_size

_SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282, "riscv64": 282}.get(os.uname().machine, -1)
# Accesses by the kernel are not handed to us: only so may everybody have one (Linux 5.11).
_USER_MODE_ONLY = 1
_API = 0xAA
_API_REQUEST, _API_ARGUMENT = 0xC018AA3F, struct.Struct("=3Q")
_REGISTER_REQUEST, _REGISTER_ARGUMENT = 0xC020AA00, struct.Struct("=4Q")
_UNREGISTER_REQUEST, _RANGE = 0x8010AA01, struct.Struct("=2Q")
_PROTECT_ARGUMENT = struct.Struct("=3Q")

_LIBRARY = ctypes.CDLL(None, use_errno=True)
_syscall = _LIBRARY["syscall"]
_syscall.argtypes = (ctypes.c_long, ctypes.c_int)
_syscall.restype = ctypes.c_long


class Feature(IntFlag):
    """UFFD_FEATURE_* that tracking needs."""

    WRITE_ASYNC = 1 << 15  # Linux 6.7; also protects what is not populated
    ACCESS = 1 << 17  # Linux 7.3
    ACCESS_ASYNC = 1 << 18  # Linux 7.3


class Mode(IntFlag):
    """UFFDIO_REGISTER_MODE_*: what a range is registered for; the two exclude each other."""

    WRITES = 1 << 1
    ACCESSES = 1 << 3


_FEATURES = {Mode.WRITES: Feature.WRITE_ASYNC, Mode.ACCESSES: Feature.ACCESS | Feature.ACCESS_ASYNC}
# UFFDIO_WRITEPROTECT and UFFDIO_RWPROTECT: arguments and meaning of `mode` are alike.
_PROTECT_REQUESTS = {Mode.WRITES: 0xC018AA06, Mode.ACCESSES: 0xC018AA09}
_WORDS = {Mode.WRITES: "writes", Mode.ACCESSES: "reads and writes"}
_NEEDS = {Mode.WRITES: "Linux 6.7 or newer is needed", Mode.ACCESSES: "Linux 7.3 or newer is needed"}


def supported_features() -> Feature:
    """Which of the features this kernel has, asked with none wanted, as the kernel's documentation says.

    MEMTHERM_WITHOUT=userfaultfd hides them.  Raises NotPermitted, NotSupported where there is no userfaultfd at all.
    """
    descriptor = _open()
    try:
        return Feature(_agree(descriptor, Feature(0)) & sum(Feature))
    finally:
        os.close(descriptor)


class UserFaultFd:
    """Tracks writes, or all accesses, of ranges of this process.  A context manager.

    A child made by fork has the same descriptor, which still means the parent's memory: so everything but `close`
    raises TargetGone there, and `close` changes nothing of the parent's.  The child's own memory is not tracked.
    """

    def __init__(self, mode: Mode) -> None:
        """Raises NotSupported where the kernel lacks what `mode` needs, NotPermitted where it lets nobody have one."""
        wanted = _FEATURES[mode]
        if wanted & ~supported_features():
            raise NotSupported(f"this kernel's userfaultfd cannot track {_WORDS[mode]}", hint=_NEEDS[mode])
        self._mode = mode
        self._pid = os.getpid()
        self._descriptor = _open()
        try:
            _agree(self._descriptor, wanted)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_ours(self) -> bool:
        """Whether this is the process that opened it, and it is open."""
        return self._descriptor >= 0 and self._pid == os.getpid()

    def register(self, start: int, end: int) -> None:
        """Track the range, which is whole pages; nothing is protected yet.  All of it or, with an error, nothing.

        Raises TargetBusy where another userfaultfd tracks a part, NotSupported where nothing is mapped, or memory of a
        kind that cannot be tracked.
        """
        argument = bytearray(_REGISTER_ARGUMENT.pack(start, end - start, self._mode, 0))
        try:
            self._call(_REGISTER_REQUEST, argument)
        except OSError as error:
            raise _registration_error(error, start, end) from error

    def unregister(self, start: int, end: int) -> bool:
        """Track it no more, and make protected pages accessible.  False where nothing of it can be tracked by now."""
        try:
            self._call(_UNREGISTER_REQUEST, bytearray(_RANGE.pack(start, end - start)))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOMEM):
                return False
            raise
        return True

    def protect(self, start: int, end: int, *, is_on: bool = True) -> bool:
        """The next write, or access, of each page of the range is a fault which the kernel resolves; or not any more.

        Of WRITES also where nothing is populated, for which the kernel then keeps a mark that pagemap shows as a
        swapped page; Pagemap.write_protect leaves those out.

        Returns whether all of the range is mapped and tracked by this descriptor; else a first part may be done.
        """
        try:
            self._call(_PROTECT_REQUESTS[self._mode], bytearray(_PROTECT_ARGUMENT.pack(start, end - start, is_on)))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def close(self) -> None:
        """Release the descriptor.  May be called again.  With the last copy of it all tracking ends."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _call(self, request: int, argument: bytearray) -> None:
        if not self.is_ours:
            raise TargetGone(
                "the userfaultfd is closed, or was opened by the parent of this process",
                hint="tracking does not go on in a child made by fork: begin anew there",
            )
        fcntl.ioctl(self._descriptor, request, argument)


def _open() -> int:
    if is_hidden("userfaultfd"):
        raise NotSupported("userfaultfd is hidden by MEMTHERM_WITHOUT", hint="take it out there")
    descriptor = int(_syscall(_SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY))
    if descriptor >= 0:
        return descriptor
    number = ctypes.get_errno()
    if number in (errno.EPERM, errno.EACCES):
        raise NotPermitted(
            "userfaultfd is not permitted here",
            hint="a seccomp filter forbids it, as those of containers do: allow the system call userfaultfd there",
        )
    if number in (errno.ENOSYS, errno.EINVAL):
        raise NotSupported(
            "this kernel has no userfaultfd for user mode", hint="see CONFIG_USERFAULTFD; Linux 5.11 or newer is needed"
        )
    raise OSError(number, f"userfaultfd: {os.strerror(number)}")


def _agree(descriptor: int, features: Feature) -> int:
    """Switch the descriptor on with these features; returns all that the kernel has."""
    argument = bytearray(_API_ARGUMENT.pack(_API, features, 0))
    fcntl.ioctl(descriptor, _API_REQUEST, argument)
    return int(_API_ARGUMENT.unpack(argument)[1])


def _registration_error(error: OSError, start: int, end: int) -> HostCannot | OSError:
    where = f"{format_size(end - start)} at {start:#x}"
    if error.errno == errno.EBUSY:
        return TargetBusy(
            f"{where}: another userfaultfd of this program watches this memory",
            hint="end the other watch, or see VmFlags um, uw, ui, ur in /proc/self/smaps",
        )
    if error.errno in (errno.EINVAL, errno.EPERM, errno.ENOMEM):
        return NotSupported(
            f"{where}: nothing is mapped there, or memory of a kind that the kernel cannot track",
            hint="anonymous and shared memory can be tracked; mappings of files only for writes, and where writable",
        )
    return error
