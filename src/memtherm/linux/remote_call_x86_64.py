"""A system call in another thread's name on x86-64: registers, signal frame, and the code to run it with.

remote_call.py asks only for the names listed in its import; another architecture is a file like this beside it.
Layouts: <asm/ptrace.h>, <asm/sigcontext.h>, <asm/ucontext.h> of Linux.
"""

import ctypes
import errno
from collections.abc import Sequence
from dataclasses import dataclass

MACHINE = "x86_64"
MADVISE = 28
ELF_CLASS_64 = 2

GENERAL_REGISTERS = 1  # NT_PRSTATUS
EXTENDED_STATE = 0x202  # NT_X86_XSTATE
EXTENDED_STATE_ROOM_BYTES = 64 * 1024

_CODE_SEGMENT_64 = 0x33
_NO_SYSTEM_CALL = 2**64 - 1
_TRAP_FLAG = 0x100
_RED_ZONE_BYTES = 128
# Left free below the frame, for a handler that may run before the frame is used.
_SLACK_BYTES = 8192

_SYSTEM_CALL = b"\x0f\x05"
_SYSTEM_CALL_AND_RETURN = b"\x0f\x05\xc3"
# mov $15, %rax; syscall, long and short: what a signal handler returns to (__restore_rt).
_SIGNAL_RETURNS = (b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", b"\xb8\x0f\x00\x00\x00\x0f\x05")

# What a system call that was interrupted leaves for the kernel's signal code (never seen by a program).
_ERESTARTSYS, _ERESTARTNOINTR, _ERESTARTNOHAND, _ERESTART_RESTARTBLOCK = 512, 513, 514, 516

_EPOLL_WAIT, _EPOLL_PWAIT, _EPOLL_PWAIT2 = 232, 281, 441
_SEMOP, _SEMTIMEDOP, _SIGTIMEDWAIT, _IO_GETEVENTS, _IO_URING_ENTER = 65, 220, 128, 208, 426
_ACCEPT, _SENDTO, _RECVFROM, _SENDMSG, _RECVMSG, _ACCEPT4, _RECVMMSG = 43, 44, 45, 46, 47, 288, 299
# They answer EINTR to every interruption, even to one that no handler sees (signal(7), "Interruption of system
# calls ... by stop signals"), and have then done nothing, so that they can be made again.
_MADE_AGAIN = frozenset(
    {_EPOLL_WAIT, _EPOLL_PWAIT, _EPOLL_PWAIT2, _SEMOP, _SEMTIMEDOP, _SIGTIMEDWAIT, _IO_GETEVENTS, _IO_URING_ENTER}
    | {_ACCEPT, _SENDTO, _RECVFROM, _SENDMSG, _RECVMSG, _ACCEPT4, _RECVMMSG}
)
# An interruption makes them return with less than was asked: write, pwrite64, writev, sendfile, splice, tee,
# vmsplice, pwritev, pwritev2, copy_file_range, sendto, sendmsg, sendmmsg.
_CUT_SHORT = frozenset({1, 18, 20, 40, 275, 276, 278, 296, 328, 326, _SENDTO, _SENDMSG, 307})
_MSG_WAITALL = 0x100
_IO_URING_EXTENDED_ARGUMENT = 8
_LONGEST_WAIT_AGAIN_MS = 1000

_XSTATE_MAGIC_1 = 0x46505853
_XSTATE_MAGIC_2 = 0x46505845
_SOFTWARE_BYTES_OFFSET = 464
_XSTATE_HEADER_OFFSET = 512
_XSTATE_ALIGNMENT = 64
_KNOWN_FEATURES = sum(1 << bit for bit in (0, 1, 2, 3, 4, 5, 6, 7, 9, 17, 18, 19))
_TILE_FEATURES = 1 << 17 | 1 << 18
_PROTECTION_KEY_FEATURE = 1 << 9
# Where the tile registers exist, the state before them ends here, with and without protection keys.
_END_WITH_KEYS, _END_WITHOUT_KEYS = 2696, 2688

_UC_FP_XSTATE, _UC_SIGCONTEXT_SS, _UC_STRICT_RESTORE_SS = 1, 2, 4
# An alternate stack that sigaltstack refuses, which rt_sigreturn ignores: the thread's own stays as it is.
_REFUSED_STACK_FLAGS = 0x7F


def _words(*names: str) -> list[tuple[str, type[ctypes.c_uint64]]]:
    return [(name, ctypes.c_uint64) for name in names]


class Registers(ctypes.Structure):
    """`struct user_regs_struct`."""

    _fields_ = _words(
        *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
        *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
    )

    def copy(self) -> "Registers":
        return Registers.from_buffer_copy(self)


class _SignalFrame(ctypes.Structure):
    """`struct rt_sigframe` as far as rt_sigreturn reads it: return address, then `struct ucontext`."""

    _fields_ = [
        *_words("return_address", "flags", "link", "stack_address", "stack_flags", "stack_bytes"),
        *_words("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp", "rbx", "rdx", "rax"),
        *_words("rcx", "rsp", "rip", "eflags"),
        ("cs", ctypes.c_uint16),
        ("gs", ctypes.c_uint16),
        ("fs", ctypes.c_uint16),
        ("ss", ctypes.c_uint16),
        *_words("error", "trap", "old_mask", "fault_address", "fpstate"),
        ("reserved", ctypes.c_uint64 * 8),
        ("signal_mask", ctypes.c_uint64),
    ]


class _SoftwareBytes(ctypes.Structure):
    """`struct _fpx_sw_bytes`: how much state follows in the frame."""

    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("extended_size", ctypes.c_uint32),
        ("features", ctypes.c_uint64),
        ("state_size", ctypes.c_uint32),
        ("padding", ctypes.c_uint32 * 7),
    )


@dataclass(frozen=True)
class Gadgets:
    """Code in the target that we use.

    Attributes:
        call: address of `syscall; ret`.
        signal_return: address of `mov $15, %rax; syscall`.
        signal_return_code: the bytes there.
    """

    call: int
    signal_return: int
    signal_return_code: bytes

    def expected(self) -> list[tuple[int, bytes]]:
        """(address, bytes) that must be there for a call to be safe."""
        return [(self.call, _SYSTEM_CALL_AND_RETURN), (self.signal_return, self.signal_return_code)]


@dataclass(frozen=True)
class Parachute:
    """What brings a thread back to where it was without us, once its registers are those of call_registers().

    Attributes:
        address: where `data` must lie; the stack pointer of the call.
        data: a signal frame whose return address is the target's own signal return.
    """

    address: int
    data: bytes


def find_gadgets(code: bytes, base: int) -> Gadgets | None:
    """What `code`, which lies at `base`, has of them; None unless it has both."""
    call = code.find(_SYSTEM_CALL_AND_RETURN)
    found = [(offset, pattern) for pattern in _SIGNAL_RETURNS if (offset := code.find(pattern)) >= 0]
    if call < 0 or not found:
        return None
    offset, pattern = found[0]
    return Gadgets(call=base + call, signal_return=base + offset, signal_return_code=pattern)


def registers_refusal(registers: Registers, state: bytes) -> str:
    """Why a thread in this state cannot be used; empty if it can."""
    if registers.cs != _CODE_SEGMENT_64:
        return "it runs 32-bit code"
    if len(state) < _XSTATE_HEADER_OFFSET + 64:
        return "the processor has no xsave"
    if _enabled_features(state) & ~_KNOWN_FEATURES:
        return f"processor state unknown to us: features {_enabled_features(state):#x}"
    return ""


def disturbs(number: int, arguments: Sequence[int]) -> bool:
    """Whether a thread that waits in this system call would notice that it was stopped.

    These calls return with less done, or their time limit begins anew, which we allow up to a second.
    """
    if number in _CUT_SHORT:
        return True
    if number == _RECVFROM:
        return bool(arguments[3] & _MSG_WAITALL)
    if number == _RECVMSG:
        return bool(arguments[2] & _MSG_WAITALL)
    if number in (_EPOLL_WAIT, _EPOLL_PWAIT):
        limit_ms = ctypes.c_int32(arguments[3] & 0xFFFFFFFF).value
        return limit_ms > _LONGEST_WAIT_AGAIN_MS
    if number == _IO_URING_ENTER:
        return bool(arguments[3] & _IO_URING_EXTENDED_ARGUMENT)
    limit_argument = {_EPOLL_PWAIT2: 3, _SEMTIMEDOP: 3, _SIGTIMEDWAIT: 2, _IO_GETEVENTS: 4}.get(number)
    return limit_argument is not None and arguments[limit_argument] != 0


def _answer(registers: Registers) -> int:
    """The negative result of the system call that the thread has just left; 0 for none."""
    value = ctypes.c_int64(registers.rax).value
    in_call = ctypes.c_int32(registers.orig_rax & 0xFFFFFFFF).value >= 0
    return value if in_call and -4095 <= value < 0 else 0


def hide_interruption(registers: Registers, code_before: bytes) -> Registers:
    """These registers, where an EINTR that only our stop can have caused is left to the kernel.

    The kernel then makes the call again, or answers EINTR after all when a handler is to run.  `code_before` is
    the two bytes before the instruction pointer.
    """
    hidden = registers.copy()
    if _answer(registers) == -errno.EINTR and registers.orig_rax in _MADE_AGAIN and code_before == _SYSTEM_CALL:
        hidden.rax = -_ERESTARTNOHAND % 2**64
    return hidden


def _as_resumed(registers: Registers) -> Registers:
    """These registers after what the kernel does about an interrupted system call where no handler runs.

    A call with a remaining time in the kernel (ERESTART_RESTARTBLOCK: nanosleep, poll, timed futex) answers EINTR,
    as rt_sigreturn makes the kernel forget that time; begun anew it would wait too long.
    """
    resumed = registers.copy()
    answer = _answer(registers)
    if answer in (-_ERESTARTSYS, -_ERESTARTNOINTR, -_ERESTARTNOHAND):
        resumed.rax = registers.orig_rax
        resumed.rip = registers.rip - 2
    elif answer == -_ERESTART_RESTARTBLOCK:
        resumed.rax = -errno.EINTR % 2**64
    return resumed


def build_parachute(registers: Registers, state: bytes, signal_mask: int, gadgets: Gadgets) -> Parachute:
    """The frame that restores all registers, the extended state and the signal mask; below the red zone."""
    area = _frame_state(state)
    state_address = (registers.rsp - _RED_ZONE_BYTES - len(area)) // _XSTATE_ALIGNMENT * _XSTATE_ALIGNMENT
    address = (state_address - ctypes.sizeof(_SignalFrame)) // 16 * 16 - 8
    resumed = _as_resumed(registers)
    frame = _SignalFrame(
        return_address=gadgets.signal_return,
        flags=_UC_FP_XSTATE | _UC_SIGCONTEXT_SS | _UC_STRICT_RESTORE_SS,
        stack_flags=_REFUSED_STACK_FLAGS,
        fpstate=state_address,
        signal_mask=signal_mask,
    )
    for name in ("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp", "rbx"):
        setattr(frame, name, getattr(resumed, name))
    for name in ("rdx", "rax", "rcx", "rsp", "rip", "eflags", "cs", "gs", "fs", "ss"):
        setattr(frame, name, getattr(resumed, name))
    head = bytes(frame)
    return Parachute(address=address, data=head + bytes(state_address - address - len(head)) + area)


def _enabled_features(state: bytes) -> int:
    return int.from_bytes(state[_SOFTWARE_BYTES_OFFSET : _SOFTWARE_BYTES_OFFSET + 8], "little")


def _frame_state(state: bytes) -> bytes:
    """The state as a signal frame carries it.

    The kernel looks for the second mark behind what the thread has room for: without the tile registers (AMX)
    until it first uses them.  ptrace always gives all, so that the mark is put at both places; the first lies in
    a gap of the layout.
    """
    features = _enabled_features(state)
    area = bytearray(state) + _XSTATE_MAGIC_2.to_bytes(4, "little")
    size = len(state)
    if features & _TILE_FEATURES:
        in_use = int.from_bytes(state[_XSTATE_HEADER_OFFSET : _XSTATE_HEADER_OFFSET + 8], "little")
        end = _END_WITH_KEYS if features & _PROTECTION_KEY_FEATURE else _END_WITHOUT_KEYS
        area[end : end + 4] = _XSTATE_MAGIC_2.to_bytes(4, "little")
        if not in_use & _TILE_FEATURES:
            size, features = end, features & ~_TILE_FEATURES
    software = _SoftwareBytes(
        magic=_XSTATE_MAGIC_1,
        extended_size=size + 4,
        features=features,
        state_size=size,
    )
    area[_SOFTWARE_BYTES_OFFSET : _SOFTWARE_BYTES_OFFSET + ctypes.sizeof(software)] = bytes(software)
    return bytes(area)


def lowest_address(parachute: Parachute) -> int:
    """How far down the stack must reach for it."""
    return parachute.address - _SLACK_BYTES


def call_registers(
    registers: Registers, *, gadgets: Gadgets, stack_pointer: int, number: int, arguments: Sequence[int]
) -> Registers:
    """These registers, about to make a system call with three arguments, and to return to the parachute."""
    call = registers.copy()
    call.rip = gadgets.call
    call.rsp = stack_pointer
    call.rax = number
    call.rdi, call.rsi, call.rdx = arguments
    # The thread leaves no system call with these registers: nothing of the interrupted one is to be applied to them.
    call.orig_rax = _NO_SYSTEM_CALL
    call.eflags = registers.eflags & ~_TRAP_FLAG
    return call


def is_at_call(registers: Registers, gadgets: Gadgets, number: int) -> bool:
    """Whether the thread is inside, or just behind, the system call of call_registers()."""
    at_gadget: bool = registers.rip == gadgets.call + len(_SYSTEM_CALL) and registers.orig_rax == number
    return at_gadget


def call_result(registers: Registers) -> int:
    """What the system call answered: 0 or more, or a negative errno."""
    return ctypes.c_int64(registers.rax).value
