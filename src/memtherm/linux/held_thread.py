"""One thread of another process, held by ptrace so that it makes a system call of ours and comes back unharmed.

remote_call.py says why that is safe; here are the steps, each of which leaves the thread able to go on without us.
"""

import errno
import os
import signal
import time

import numpy as np

from memtherm.errors import NotSupported, TargetGone
from memtherm.linux import remote_call_x86_64 as machine
from memtherm.linux.maps import MappingKind, Mappings, Permission
from memtherm.linux.process import Process
from memtherm.linux.ptrace import ALL_SIGNALS, Tracee

# A thread that returns from madvise late waits for the lock of its memory, held or not: waiting for it costs
# nothing, letting go costs an EINTR.
RETURN_S = 2.0
_REGISTERS_BYTES = 27 * 8
_OUR_FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS, signal.SIGFPE})


class NotNow(Exception):
    """This thread cannot be used at present; the text says why.

    Attributes:
        is_lasting: the same is to be expected at the next try.
    """

    def __init__(self, reason: str, *, is_lasting: bool = False) -> None:
        super().__init__(reason)
        self.is_lasting = is_lasting


class OtherProgram(NotNow):
    """The process has executed another program, so that what was read of its code and mappings is of the past."""


def read_task(process: Process, thread_id: int, name: str) -> bytes:
    """/proc/PID/task/TID/`name`; empty when the thread has ended."""
    try:
        return process.read_file(f"task/{thread_id}/{name}")
    except (NotSupported, TargetGone):
        process.check_alive()
        return b""


def thread_refusal(status: bytes) -> str:
    """Why a thread with this /proc status must not be made to call anything."""
    if status_field(status, b"Seccomp:") not in (b"", b"0"):
        return "it has a seccomp filter, which could kill it for a call that it does not make itself"
    if b"shstk" in status_field(status, b"x86_Thread_features:").split():
        return "it has a shadow stack, where a made-up return would kill it"
    return ""


def status_field(status: bytes, key: bytes) -> bytes:
    for line in status.splitlines():
        if line.startswith(key):
            return line[len(key) :].strip()
    return b""


class HeldThread:
    """One thread of the target and the steps of a hold, in their order: stop, prepare, arm, call …, restore.

    To be used by one OS thread, whose end, or death, lets go of the target's thread: until arm() it then goes on
    where it was, and after arm() by its parachute.  A step raises ProcessLookupError when the thread has ended.

    Attributes:
        tracee: the thread.
        is_inside: a call was begun and has not been seen to return.
    """

    def __init__(self, process: Process, thread_id: int) -> None:
        self._process = process
        self._memory = -1
        self.is_inside = False
        self._registers = machine.Registers()
        self._signal_mask = 0
        self._stack_pointer = 0
        self._gadgets = machine.Gadgets(0, 0, b"")
        try:
            self._memory = process.open_file(f"task/{thread_id}/mem", os.O_RDWR)
        except NotSupported as error:
            raise ProcessLookupError(errno.ESRCH, f"thread {thread_id} has ended") from error
        try:
            self.tracee = Tracee(thread_id)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give back the descriptor.  May be called again."""
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def stop(self, timeout_s: float) -> None:
        """Stop it.  Raises NotNow when it does not stop in time, or the process is stopped by a signal."""
        tracee = self.tracee
        tracee.interrupt()
        deadline_s = time.monotonic() + timeout_s
        while (stop := tracee.wait(deadline_s - time.monotonic())) is not None:
            if stop.is_group_stop:
                tracee.detach()
                raise NotNow("it is stopped", is_lasting=True)
            if stop.is_trap:
                return
            # It was about to take a signal: that comes first, and our stop after it.
            tracee.resume(stop.signal_to_deliver)
        raise NotNow("it does not stop")

    def prepare(self, mappings: Mappings, gadgets: machine.Gadgets) -> None:
        """Read its state and write the parachute.  Raises NotNow where it cannot be used; it is then as before."""
        tracee = self.tracee
        registers = machine.Registers.from_buffer_copy(self._read_registers())
        hidden = machine.hide_interruption(registers, self._read(registers.rip - 2, 2))
        if hidden.rax != registers.rax:
            tracee.set_register_set(machine.GENERAL_REGISTERS, bytes(hidden))
        state = tracee.register_set(machine.EXTENDED_STATE, machine.EXTENDED_STATE_ROOM_BYTES)
        reason = (
            machine.registers_refusal(registers, state)
            or thread_refusal(read_task(self._process, tracee.thread_id, "status"))
            or ("it catches its own system calls" if tracee.dispatches_system_calls() else "")
        )
        if reason:
            raise NotNow(reason, is_lasting=True)
        if self._code_differs(gadgets):
            raise OtherProgram("it has become another program")
        if self._has_restartable_sequence(registers.rip):
            raise NotNow("it is in a restartable sequence")
        signal_mask = tracee.signal_mask()
        parachute = machine.build_parachute(hidden, state, signal_mask, gadgets)
        is_main = tracee.thread_id == self._process.pid
        if machine.lowest_address(parachute) < _stack_start(mappings, registers, is_main=is_main):
            raise NotNow("its stack is not known, or too small", is_lasting=True)
        if not self._write(parachute.address, parachute.data):
            raise NotNow("its stack cannot be written", is_lasting=True)
        self._registers, self._signal_mask, self._gadgets = hidden, signal_mask, gadgets
        self._stack_pointer = parachute.address

    def arm(self, start: int, length: int, advice: int) -> None:
        """Make the call its next instruction and the parachute what comes after; from here on it needs us no more.

        Then hold its signals back.  In that order: a mask without the parachute would outlive us.
        """
        self._set_call(start, length, advice)
        self.tracee.set_signal_mask(ALL_SIGNALS)

    def call(self, start: int, length: int, advice: int) -> int | None:
        """What its madvise answered; None when it did not return (or not begin) in time."""
        self._set_call(start, length, advice)
        if not self._run_to_system_call():
            return None
        self.is_inside = True
        if not self._run_to_system_call():
            return None
        self.is_inside = False
        registers = machine.Registers.from_buffer_copy(self._read_registers())
        return machine.call_result(registers) if machine.is_at_call(registers, self._gadgets, machine.MADVISE) else None

    def restore(self, timeout_s: float) -> bool:
        """Put it back to where it was, inside the kernel's signal code, which then restarts an interrupted call.

        False when it cannot be stopped in time: end this OS thread, and its parachute will do it.
        """
        tracee = self.tracee
        tracee.interrupt()
        if tracee.is_stopped:
            tracee.resume()
        deadline_s = time.monotonic() + timeout_s
        while (stop := tracee.wait(deadline_s - time.monotonic())) is not None:
            if stop.is_trap:
                # The mask first: where we die in between, the parachute is still open.
                tracee.set_signal_mask(self._signal_mask)
                tracee.set_register_set(machine.GENERAL_REGISTERS, bytes(self._registers))
                return True
            if stop.is_system_call:
                self.is_inside = False
            # All that can be held back is.  A fault can only come of our call, and is none of the program's.
            tracee.resume(0 if stop.signal_to_deliver in _OUR_FAULTS else stop.signal_to_deliver)
        return False

    def _set_call(self, start: int, length: int, advice: int) -> None:
        registers = machine.call_registers(
            self._registers,
            gadgets=self._gadgets,
            stack_pointer=self._stack_pointer,
            number=machine.MADVISE,
            arguments=(start, length, advice),
        )
        self.tracee.set_register_set(machine.GENERAL_REGISTERS, bytes(registers))

    def _run_to_system_call(self) -> bool:
        deliver = 0
        deadline_s = time.monotonic() + RETURN_S
        while True:
            self.tracee.resume_to_system_call(deliver)
            stop = self.tracee.wait(deadline_s - time.monotonic())
            if stop is None:
                return False
            if stop.is_system_call:
                return True
            if stop.signal_to_deliver in _OUR_FAULTS:
                return False
            deliver = stop.signal_to_deliver

    def _read_registers(self) -> bytes:
        return self.tracee.register_set(machine.GENERAL_REGISTERS, _REGISTERS_BYTES).ljust(_REGISTERS_BYTES, b"\0")

    def _read(self, address: int, length: int) -> bytes:
        try:
            return os.pread(self._memory, length, address)
        except (OSError, OverflowError):
            return b""

    def _write(self, address: int, data: bytes) -> bool:
        try:
            return os.pwrite(self._memory, data, address) == len(data)
        except (OSError, OverflowError):
            return False

    def _code_differs(self, gadgets: machine.Gadgets) -> bool:
        return any(self._read(address, len(code)) != code for address, code in gadgets.expected())

    def _has_restartable_sequence(self, instruction: int) -> bool:
        """Whether it stands in a sequence that must not be left and entered again (rseq(2)).

        The kernel would forget the sequence while we run elsewhere, and not abort it when we come back.
        """
        address = self.tracee.restartable_sequence_address()
        descriptor = int.from_bytes(self._read(address + 8, 8), "little") if address else 0
        if not descriptor:
            return False
        sequence = self._read(descriptor, 32)
        start, length = int.from_bytes(sequence[8:16], "little"), int.from_bytes(sequence[16:24], "little")
        return start <= instruction <= start + length


def _stack_start(mappings: Mappings, registers: machine.Registers, *, is_main: bool) -> int:
    """Lowest address of the stack that the thread is on; above everything where that is not known for sure.

    Known are the stack that the kernel made for the main thread, and a mapping of its own for another thread, with
    the thread's control block at its top and nothing that can be written right below it.  A stack that the program
    made itself (coroutines, goroutines) may be small, with other data right below it.
    """
    unknown = 2**64
    row = int(np.searchsorted(mappings.ends, np.uint64(registers.rsp), side="right"))
    if row == len(mappings) or registers.rsp < int(mappings.starts[row]):
        return unknown
    wanted = Permission.READ | Permission.WRITE
    permissions = int(mappings.permissions[row])
    if permissions & (wanted | Permission.SHARED) != wanted or mappings.kinds[row] != MappingKind.PRIVATE_ANONYMOUS:
        return unknown
    if mappings.names[row] == "[stack]":
        return int(mappings.starts[row]) if is_main else unknown
    has_control_block = registers.rsp < registers.fs_base < int(mappings.ends[row])
    is_open_below = (
        row > 0
        and mappings.ends[row - 1] == mappings.starts[row]
        and bool(mappings.permissions[row - 1] & Permission.WRITE)
    )
    return int(mappings.starts[row]) if has_control_block and not is_open_below else unknown
