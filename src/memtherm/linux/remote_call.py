"""Have another process advise its own memory: one of its threads, held by ptrace, executes madvise(2).

The advices for huge pages are not among those that process_madvise(2) takes for another process.

Safety.  The thread's stack first gets a signal frame with all its registers, below the red zone, as the kernel
writes one for a handler.  One PTRACE_SETREGSET then points the thread at `syscall; ret` in its own code, with
the frame as the place to return to.  From then on it needs us no more: where we die, at whatever moment, the
kernel lets go of it, and it executes the madvise, returns into its own rt_sigreturn, and is where it was.
While we live, the registers are put back by ptrace inside the kernel's signal code, which makes an interrupted
system call again with its remaining time: the program sees nothing.

What a program can notice: a thread of it pauses (the times are told at advise_by_ptrace); a wait that answers
EINTR to any interruption (epoll_wait, semtimedop, a socket with a time limit) begins anew, so that its time limit
is late by up to a second; if we are killed during the pause, nanosleep, poll and timed futex answer EINTR.
Threads in calls that would be cut short (a blocked write, say) are left alone.
"""

import errno
import functools
import os
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memtherm.errors import HostCannot, InvalidInput, NotPermitted, NotSupported
from memtherm.linux import remote_call_x86_64 as machine
from memtherm.linux.held_thread import (
    RETURN_S,
    HeldThread,
    NotNow,
    OtherProgram,
    read_task,
    status_field,
    thread_refusal,
)
from memtherm.linux.maps import MappingKind, Mappings, Permission, parse_maps
from memtherm.linux.process import Process, ProcessIdentity, parse_stat
from memtherm.units import PAGE_SIZE

_STOP_RANGES = 64
_STOP_S = 5e-3
_INTERRUPT_S = 50e-3
_STOP_TRIES = 4
_REST_S = 10e-3
# The thread runs at least this many times as long as it was held before it is held again.
_FREE_TIME = 3

_DEAD_STATES = "ZXx"
_UNINTERRUPTIBLE_STATE = "D"
_MAX_THREADS = 64
_SCAN_BYTES = 1 << 20
_MAX_SCAN_BYTES = 128 << 20
_REMEMBERED_PROCESSES = 256

Answer = TypeVar("Answer")


class PtraceAdvice(IntEnum):
    """What madvise(2) takes only from the process itself."""

    HUGEPAGE = 14
    NOHUGEPAGE = 15


_gadgets_of: OrderedDict[ProcessIdentity, machine.Gadgets] = OrderedDict()


def remote_call_refusal(process: Process, *, searches_code: bool = True) -> str:
    """Why advise_by_ptrace would refuse this process; empty if it would try.  Does not stop it.

    A reading of /proc, and once for each process a search of its code (about 1 ms).  Raises TargetGone.

    Args:
        searches_code: reading code brings pages of it into the target's memory; without it nothing is changed.
    """
    refusal = _refusal(process, searches_code=searches_code)
    return "" if refusal is None else str(refusal)


def advise_by_ptrace(
    process: Process, start: ArrayLike, end: ArrayLike, advice: PtraceAdvice, *, patience_s: float = 0.2
) -> NDArray[np.int64]:
    """Have `process` execute madvise(start, end - start, advice) for each range, in their order.

    Up to 64 ranges, or 5 ms, with one stop of one thread; the other threads run on.  Measured with the thread
    computing (6.18, a virtual machine of 2 processors, load 3 to 4): 0.23 ms at least for one range, median
    0.3 to 0.5 ms, 90 of 100 below 4 ms; 64 ranges 3.1 to 8 ms.  Both grow with the load, as each call of the
    thread waits twice for a processor.

    Args:
        start, end: uint64 or convertible, bytes, whole pages.
        patience_s: how long to look for a thread that can be used before giving up, for each stop.

    Returns:
        int64, one for each range: 0; or the negative errno of its madvise; -EINTR where it was not reached, as no
        thread could be used in time (try again later); -EINPROGRESS where the call had begun and did not return
        within 2 s, as the lock of the target's memory was held: the thread was let go, and will finish it.

    Raises TargetGone; NotPermitted (ptrace refused, or a debugger is there); NotSupported (seccomp, stopped, 32-bit,
    shadow stack, no code to use, no thread with a known stack, not x86-64); InvalidInput.
    """
    starts, lengths = _check_ranges(start, end)
    refusal = _refusal(process)
    if refusal is not None:
        raise refusal
    results = np.where(lengths > 0, -errno.EINTR, 0).astype(np.int64)
    todo = np.flatnonzero(lengths)
    position = 0
    deadline_s = time.monotonic() + patience_s
    while position < len(todo):
        batch = todo[position : position + _STOP_RANGES]
        ranges = [(int(starts[index]), int(lengths[index])) for index in batch]
        outcome = _one_stop(process, ranges, advice, timeout_s=patience_s / _STOP_TRIES)
        results[batch[: len(outcome.answers)]] = outcome.answers
        position += len(outcome.answers)
        if -errno.EINPROGRESS in outcome.answers:
            break
        if outcome.answers:
            deadline_s = time.monotonic() + patience_s
            time.sleep(_FREE_TIME * outcome.held_s if position < len(todo) else 0.0)
        elif time.monotonic() > deadline_s:
            if position == 0 and outcome.is_for_good:
                raise NotSupported(
                    f"process {process.pid}: no thread can be used for ptrace: {outcome.reason}",
                    hint="collapse works without ptrace",
                )
            break
        else:
            time.sleep(_REST_S)
    process.check_alive()
    return results


def _check_ranges(start: ArrayLike, end: ArrayLike) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    starts, ends = np.atleast_1d(np.asarray(start, np.uint64)), np.atleast_1d(np.asarray(end, np.uint64))
    if starts.shape != ends.shape or starts.ndim != 1:
        raise InvalidInput(f"{starts.shape} starts and {ends.shape} ends", hint="give one end for each start")
    if np.bitwise_or.reduce(starts | ends) & np.uint64(PAGE_SIZE - 1):
        raise InvalidInput("a range does not begin and end on a page border", hint="round to 4096 bytes")
    if (ends < starts).any():
        raise InvalidInput("a range ends before it starts", hint="give start < end")
    return starts, ends - starts


# What can be known without a stop.


def _refusal(process: Process, *, searches_code: bool = True) -> HostCannot | None:
    name = f"process {process.pid}"
    if platform.machine() != machine.MACHINE:
        return NotSupported(f"ptrace on {platform.machine()} is not supported", hint=f"only {machine.MACHINE} is")
    if process.pid == os.getpid():
        return NotSupported(f"{name} is this process, which cannot trace itself", hint="call madvise")
    threads = _live_threads(process, but_states=_DEAD_STATES)
    if not threads:
        process.check_alive()
        return NotSupported(f"{name}: no thread of it can be seen", hint="try again")
    first = threads[0]
    try:
        return (
            _status_refusal(process, name, first)
            or _program_refusal(process, name, first)
            or (_code_refusal(process, name, first) if searches_code else None)
        )
    except NotPermitted as error:
        return NotPermitted(
            f"{name} ({process.identity.name}): may not be traced",
            hint=f"needs CAP_SYS_PTRACE, or its user and no yama restriction ({error})",
        )


def _status_refusal(process: Process, name: str, thread_id: int) -> HostCannot | None:
    status = read_task(process, thread_id, "status")
    tracer = status_field(status, b"TracerPid:")
    if tracer not in (b"", b"0"):
        return NotPermitted(f"{name} is already traced, by {tracer.decode()}", hint="end the debugger or strace")
    if not status_field(status, b"VmSize:"):
        return NotSupported(f"{name} has no memory of its own", hint="a thread of the kernel?")
    if status_field(status, b"State:")[:1] == b"T":
        return NotSupported(f"{name} is stopped", hint="continue it (SIGCONT)")
    reason = thread_refusal(status)
    if reason:
        return NotSupported(f"{name}: {reason}", hint="collapse works without ptrace")
    return None


def _program_refusal(process: Process, name: str, thread_id: int) -> HostCannot | None:
    # The only file that asks for just the right of ptrace attach, so that yama and the like answer here.
    read_task(process, thread_id, "syscall")
    try:
        descriptor = process.open_file(f"task/{thread_id}/exe")
    except NotSupported:  # the program lies where we cannot reach it; its registers will tell
        return None
    try:
        head = os.read(descriptor, 5)
    finally:
        os.close(descriptor)
    if head[:4] == b"\x7fELF" and head[4] != machine.ELF_CLASS_64:
        return NotSupported(f"{name} is a 32-bit program", hint="collapse works without ptrace")
    return None


def _code_refusal(process: Process, name: str, thread_id: int) -> HostCannot | None:
    if _find_gadgets(process, thread_id) is None:
        return NotSupported(f"{name} has no code that calls the kernel for it", hint="collapse works without ptrace")
    return None


def _find_gadgets(process: Process, thread_id: int) -> machine.Gadgets | None:
    """From what the process executes now, not from a file; remembered for each process."""
    identity = process.identity
    if identity in _gadgets_of:
        _gadgets_of.move_to_end(identity)
        return _gadgets_of[identity]
    mappings = parse_maps(read_task(process, thread_id, "maps"))
    # The C library first: it has both, is small, and is not unloaded.
    rows = np.flatnonzero(mappings.has_permission(Permission.EXECUTE) & (mappings.kinds != MappingKind.SPECIAL))
    order = sorted(rows.tolist(), key=lambda row: (not _is_c_library(mappings.names[row]), row))
    found = None
    left_bytes = _MAX_SCAN_BYTES
    try:
        descriptor = process.open_file(f"task/{thread_id}/mem")
    except NotSupported:  # the thread has ended
        return None
    try:
        for row in order:
            start, end = int(mappings.starts[row]), int(mappings.ends[row])
            code = _read_memory(descriptor, start, min(end - start, left_bytes))
            left_bytes -= len(code)
            found = machine.find_gadgets(code, start)
            if found is not None:
                break
    finally:
        os.close(descriptor)
    if found is not None:  # else it may be in the middle of exec
        _gadgets_of[identity] = found
        while len(_gadgets_of) > _REMEMBERED_PROCESSES:
            _gadgets_of.popitem(last=False)
    return found


def _is_c_library(name: str) -> bool:
    return os.path.basename(name).startswith(("libc.", "libc-", "ld-musl"))  # noqa: PTH119 - no Path for each mapping


def _read_memory(descriptor: int, start: int, length: int) -> bytes:
    """What can be read of it, from its start."""
    parts: list[bytes] = []
    done = 0
    while done < length:
        try:
            part = os.pread(descriptor, min(_SCAN_BYTES, length - done), start + done)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EFAULT, errno.EINVAL):
                raise
            break
        if not part:
            break
        parts.append(part)
        done += len(part)
    return b"".join(parts)


def _live_threads(process: Process, *, but_states: str) -> list[int]:
    """Threads in other states than these, the main thread first; at most 64."""
    descriptor = process.open_file("task", os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = os.listdir(descriptor)  # noqa: PTH208 - of a descriptor, so that it is this process
    except FileNotFoundError:
        names = []
    finally:
        os.close(descriptor)
    thread_ids = sorted(map(int, names), key=lambda number: (number != process.pid, number))
    usable: list[int] = []
    for thread_id in thread_ids:
        text = read_task(process, thread_id, "stat")
        if text and parse_stat(text).state not in but_states:
            usable.append(thread_id)
        if len(usable) == _MAX_THREADS:
            break
    return usable


# One stop.


@dataclass
class _Outcome:
    """What one stop brought.

    Attributes:
        answers: of the first ranges, in their order.
        held_s: how long the thread stood still.
        reason: why there are no answers.
        is_for_good: no use in trying again: every thread was refused for what will hardly change.
    """

    answers: list[int] = field(default_factory=list)
    held_s: float = 0.0
    reason: str = "all its threads are in uninterruptible waits"
    is_for_good: bool = False


@dataclass(frozen=True)
class _Work:
    """What is to be done in one stop.

    Attributes:
        ranges: (start, length) in bytes.
        mappings, gadgets: of the target, read before the stop.
        timeout_s: how long the thread may take to stop.
    """

    ranges: Sequence[tuple[int, int]]
    advice: PtraceAdvice
    mappings: Mappings
    gadgets: machine.Gadgets
    timeout_s: float


def _one_stop(
    process: Process, ranges: Sequence[tuple[int, int]], advice: PtraceAdvice, *, timeout_s: float
) -> _Outcome:
    """Hold the first thread that can be held, and have it advise as many of `ranges` as fit."""
    outcome = _Outcome()
    refusals = 0
    work: _Work | None = None
    threads = _live_threads(process, but_states=_DEAD_STATES + _UNINTERRUPTIBLE_STATE)
    for thread_id in threads:
        if _waits_delicately(process, thread_id):
            outcome.reason = "its threads wait in system calls that a stop would disturb"
            continue
        work = work or _prepare_work(process, thread_id, ranges, advice, timeout_s)
        if work is None:
            continue
        try:
            return _in_thread_of_its_own(functools.partial(_hold, process, thread_id, work))
        except NotNow as reason:
            if isinstance(reason, OtherProgram):
                _gadgets_of.pop(process.identity, None)
            outcome.reason = str(reason)
            refusals += reason.is_lasting
        except ProcessLookupError:
            process.check_alive()
        except PermissionError as error:
            process.check_alive()
            raise _refusal(process) or NotPermitted(
                f"process {process.pid}: ptrace is refused ({error})", hint="needs CAP_SYS_PTRACE"
            ) from error
    process.check_alive()
    outcome.is_for_good = bool(threads) and refusals == len(threads)
    return outcome


def _prepare_work(
    process: Process, thread_id: int, ranges: Sequence[tuple[int, int]], advice: PtraceAdvice, timeout_s: float
) -> _Work | None:
    """What can be read before the stop; None when the thread has ended."""
    gadgets = _find_gadgets(process, thread_id)
    mappings = parse_maps(read_task(process, thread_id, "maps"))
    if gadgets is None or not len(mappings):
        return None
    return _Work(ranges=ranges, advice=advice, mappings=mappings, gadgets=gadgets, timeout_s=timeout_s)


def _in_thread_of_its_own(work: Callable[[], Answer]) -> Answer:
    """Run `work` in a fresh OS thread: at its end the kernel lets go of whatever it still traces."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="memtherm-ptrace") as pool:
        return pool.submit(work).result()


def _waits_delicately(process: Process, thread_id: int) -> bool:
    words = read_task(process, thread_id, "syscall").split()
    if len(words) < 9:  # it runs, or waits outside a system call
        return False
    return machine.disturbs(int(words[0]), [int(word, 16) for word in words[1:7]])


def _hold(process: Process, thread_id: int, work: _Work) -> _Outcome:
    """Everything between the stop and the letting go.  Raises NotNow, ProcessLookupError, PermissionError."""
    outcome = _Outcome()
    thread = HeldThread(process, thread_id)
    try:
        thread.stop(work.timeout_s)
        begin_s = time.monotonic()
        try:
            thread.prepare(work.mappings, work.gadgets)
        except NotNow:
            thread.tracee.detach()
            raise
        thread.arm(*work.ranges[0], work.advice)
        answer: int | None = None
        for start, length in work.ranges:
            answer = thread.call(start, length, work.advice)
            if answer is None:
                break
            outcome.answers.append(answer)
            if time.monotonic() - begin_s > _STOP_S:
                break
        is_back = thread.restore(_INTERRUPT_S if answer is None else RETURN_S)
        if answer is None and (thread.is_inside or not is_back):
            outcome.answers.append(-errno.EINPROGRESS)
        if is_back:
            thread.tracee.detach()
        outcome.held_s = time.monotonic() - begin_s
    finally:
        thread.close()
    return outcome
