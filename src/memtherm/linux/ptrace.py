"""ptrace(2) on one thread: seize, stop, read and set its state, let go.

All requests for a thread must come from the OS thread that seized it; the end of that OS thread lets go of it,
in whatever state it is.  Nothing here leaves the traced thread dependent on us (no PTRACE_O_EXITKILL).
"""

import ctypes
import errno
import os
import signal
import time
from dataclasses import dataclass

from memtherm.linux import libc

_CONT = 7
_DETACH = 17
_SYSCALL = 24
_GETREGSET = 0x4204
_SETREGSET = 0x4205
_SEIZE = 0x4206
_INTERRUPT = 0x4207
_GETSIGMASK = 0x420A
_SETSIGMASK = 0x420B
_GET_RSEQ_CONFIGURATION = 0x420F
_GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211

_OPTION_TRACESYSGOOD = 1
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_EVENT_STOP = 128

_WAIT_FOR_THIS_ID = 1
# Stops only: the end of the thread is never taken from whom it belongs to.  __WALL, and __WNOTHREAD.
_WAIT_OPTIONS = os.WNOHANG | os.WSTOPPED | 0x40000000 | 0x20000000

_SPIN_S = 20e-6
_NAP_S = 20e-6

_MASK_BYTES = 8
ALL_SIGNALS = 2**64 - 1


class _IoVector(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _SignalInformation(ctypes.Structure):
    """The part of siginfo_t that waitid fills, on 64 bits."""

    _fields_ = (
        ("signal", ctypes.c_int),
        ("error", ctypes.c_int),
        ("code", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("thread_id", ctypes.c_int),
        ("user_id", ctypes.c_uint),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 100),
    )


@dataclass(frozen=True)
class Stop:
    """Why a traced thread stands still.

    Attributes:
        signal: the signal to be delivered, or what marks the kind of stop.
        event: PTRACE_EVENT_*; 0 for none.
    """

    signal: int
    event: int

    @property
    def is_trap(self) -> bool:
        """From interrupt(), or because the whole process is being stopped: no signal waits in it."""
        return self.event == _EVENT_STOP

    @property
    def is_group_stop(self) -> bool:
        """The whole process is stopped (SIGSTOP and the like)."""
        return self.is_trap and self.signal != signal.SIGTRAP

    @property
    def is_system_call(self) -> bool:
        """At the entry or the exit of a system call."""
        return self.signal == _SYSCALL_STOP

    @property
    def signal_to_deliver(self) -> int:
        """The signal that the thread was about to take, 0 for none: resume with it, or it is lost."""
        return 0 if self.is_trap or self.is_system_call or self.event else self.signal


class Tracee:
    """A thread that this OS thread traces.  A request to a thread that has ended raises ProcessLookupError.

    Raises PermissionError where the kernel does not let us, or another tracer is there.

    Attributes:
        thread_id: of the thread.
        is_stopped: whether its last stop has been seen and not been ended; only then its state can be asked for.
    """

    def __init__(self, thread_id: int) -> None:
        self.thread_id = thread_id
        self.is_stopped = False
        self._information = _SignalInformation()
        libc.ptrace(_SEIZE, thread_id, 0, _OPTION_TRACESYSGOOD)

    def interrupt(self) -> None:
        """Have it stop before it next returns to its program, or at once where it waits."""
        libc.ptrace(_INTERRUPT, self.thread_id, 0, 0)

    def wait(self, timeout_s: float) -> Stop | None:
        """Its next stop; None when there is none in time.

        Spins for 20 µs, the time of a stop on a free processor, then naps: where processors are scarce, spinning
        or yielding keeps the thread from stopping (median of a whole hold 2 ms, with naps 0.3 ms; 6.18).
        """
        begin_s = time.monotonic()
        while True:
            if (stop := self._poll()) is not None:
                return stop
            waited_s = time.monotonic() - begin_s
            if waited_s > timeout_s:
                return None
            if waited_s > _SPIN_S:
                time.sleep(_NAP_S)

    def _poll(self) -> Stop | None:
        information = self._information
        try:
            libc.waitid(_WAIT_FOR_THIS_ID, self.thread_id, ctypes.addressof(information), _WAIT_OPTIONS)
        except ChildProcessError as error:
            raise ProcessLookupError(errno.ESRCH, f"thread {self.thread_id} has ended") from error
        if not information.thread_id:
            return None
        self.is_stopped = True
        return Stop(signal=information.status & 0xFF, event=information.status >> 8)

    def resume(self, deliver: int = 0) -> None:
        """Let it run, with signal `deliver` where it is not 0."""
        self.is_stopped = False
        libc.ptrace(_CONT, self.thread_id, 0, deliver)

    def resume_to_system_call(self, deliver: int = 0) -> None:
        """As resume; it stops again at the next entry into, or exit of, a system call."""
        self.is_stopped = False
        libc.ptrace(_SYSCALL, self.thread_id, 0, deliver)

    def detach(self, deliver: int = 0) -> None:
        """Let go of the stopped thread."""
        self.is_stopped = False
        libc.ptrace(_DETACH, self.thread_id, 0, deliver)

    def register_set(self, kind: int, room_bytes: int) -> bytes:
        """Its registers of that kind (NT_* of elf.h), up to `room_bytes`."""
        buffer = ctypes.create_string_buffer(room_bytes)
        vector = _IoVector(ctypes.addressof(buffer), room_bytes)
        libc.ptrace(_GETREGSET, self.thread_id, kind, ctypes.addressof(vector))
        return buffer.raw[: vector.length]

    def set_register_set(self, kind: int, data: bytes) -> None:
        """Set all of them at once."""
        buffer = ctypes.create_string_buffer(data, len(data))
        vector = _IoVector(ctypes.addressof(buffer), len(data))
        libc.ptrace(_SETREGSET, self.thread_id, kind, ctypes.addressof(vector))

    def signal_mask(self) -> int:
        """Its blocked signals, bit n-1 for signal n; in ppoll and the like, those from before the call."""
        mask = ctypes.c_uint64()
        libc.ptrace(_GETSIGMASK, self.thread_id, _MASK_BYTES, ctypes.addressof(mask))
        return mask.value

    def set_signal_mask(self, mask: int) -> None:
        """Block these signals.  The kernel leaves out SIGKILL and SIGSTOP."""
        value = ctypes.c_uint64(mask)
        libc.ptrace(_SETSIGMASK, self.thread_id, _MASK_BYTES, ctypes.addressof(value))

    def restartable_sequence_address(self) -> int:
        """Address of its `struct rseq`, 0 for none (also where the kernel knows no rseq)."""
        configuration = (ctypes.c_uint64 * 3)()
        return int(configuration[0]) if self._configuration(_GET_RSEQ_CONFIGURATION, configuration) else 0

    def dispatches_system_calls(self) -> bool:
        """Whether its program catches its own system calls (Syscall User Dispatch).  Linux before 6.4 does not say."""
        configuration = (ctypes.c_uint64 * 4)()
        return self._configuration(_GET_SYSCALL_USER_DISPATCH_CONFIG, configuration) and configuration[0] != 0

    def _configuration(self, request: int, room: "ctypes.Array[ctypes.c_uint64]") -> bool:
        try:
            libc.ptrace(request, self.thread_id, ctypes.sizeof(room), ctypes.addressof(room))
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EINVAL):
                raise
            return False
        return True
