"""One process: which one it is, whether it lives, how much memory it has."""

import errno
import os
import select
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from memtherm.errors import InvalidInput, NotPermitted, NotSupported, TargetGone
from memtherm.linux import libc

_PF_KTHREAD = 0x00200000
_READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class ProcessIdentity:
    """What tells a process from every other one since boot.

    Attributes:
        pid: process id in our pid namespace.
        start_time_ticks: clock ticks from boot to its start; with the pid it is unique.
        name: as in /proc/PID/comm, at most 15 bytes; a process can change it.
        user_id: effective user when opened.
    """

    pid: int
    start_time_ticks: int
    name: str
    user_id: int

    @property
    def start_time_s(self) -> float:
        """Seconds from boot to its start."""
        return self.start_time_ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ProcessStat:
    """The fields of /proc/PID/stat that we use.

    Attributes:
        name: comm, between the first and the last parenthesis.
        state: one letter; `Z` and `X` are dead.
        parent_pid: 0 for none.
        flags: PF_* bits of the kernel.
        cpu_ticks: clock ticks of CPU time since its start, user and system, of all its threads.
        start_time_ticks: clock ticks from boot.
    """

    name: str
    state: str
    parent_pid: int
    flags: int
    cpu_ticks: int
    start_time_ticks: int

    @property
    def cpu_s(self) -> float:
        """CPU time since its start."""
        return self.cpu_ticks / os.sysconf("SC_CLK_TCK")

    @property
    def is_dead(self) -> bool:
        return self.state in ("Z", "X", "x")

    @property
    def is_kernel_thread(self) -> bool:
        return bool(self.flags & _PF_KTHREAD)


def parse_stat(text: bytes) -> ProcessStat:
    """The text of /proc/PID/stat (proc_pid_stat(5)).  A name may hold spaces and parentheses."""
    head, _, tail = text.rpartition(b")")
    fields = tail.split()  # fields[0] is field 3 of the manual
    return ProcessStat(
        name=head.partition(b"(")[2].decode(errors="surrogateescape"),
        state=fields[0].decode(),
        parent_pid=int(fields[1]),
        flags=int(fields[6]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        start_time_ticks=int(fields[19]),
    )


class Process:
    """An open process: every question goes to this one, never to a later process with its pid.

    It holds a pidfd and its /proc directory: reads below that directory fail once the process
    has been reaped, even when the pid is in use again.  A context manager.

    Attributes:
        identity: which process it is.
        pidfd: for system calls; belongs to this object.
    """

    def __init__(self, *, identity: ProcessIdentity, pidfd: int, directory: int) -> None:
        self.identity = identity
        self.pidfd = pidfd
        self._directory = directory
        self._poll = select.poll()
        self._poll.register(pidfd, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Process({self.pid}, {self.identity.name!r})"

    def close(self) -> None:
        """Release both descriptors.  May be called again."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            os.close(self._directory)
            self.pidfd = self._directory = -1

    @property
    def pid(self) -> int:
        return self.identity.pid

    def is_alive(self) -> bool:
        """Whether it still runs.  A zombie does not.  About 1 µs."""
        return not self._poll.poll(0)

    def check_alive(self) -> None:
        """Raises TargetGone unless it still runs."""
        if not self.is_alive():
            raise _gone(self.pid)

    def open_file(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A new descriptor of /proc/PID/`name`.  Raises TargetGone, NotPermitted, NotSupported (no such file)."""
        try:
            return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._directory)
        except OSError as error:
            raise self.translate(error, name) from error

    def read_file(self, name: str) -> bytes:
        """The whole of /proc/PID/`name`.  Raises as open_file does."""
        descriptor = self.open_file(name)
        parts: list[bytes] = []
        try:
            while part := os.read(descriptor, _READ_BYTES):
                parts.append(part)
        except OSError as error:
            raise self.translate(error, name) from error
        finally:
            os.close(descriptor)
        return b"".join(parts)

    def translate(self, error: OSError, what: str) -> Exception:
        """The error of memtherm that stands for an OSError met at /proc/PID/`what`; others come back as they are."""
        # The files of a zombie belong to root, so that its own user meets EACCES.
        # A process on its way out gives up its namespaces a little before its pidfd tells of its end.
        has_left_namespaces = error.errno == errno.EINVAL and what == "mountinfo"
        if error.errno == errno.ESRCH or has_left_namespaces or not self.is_alive():
            return _gone(self.pid)
        if error.errno in (errno.EACCES, errno.EPERM):
            return NotPermitted(
                f"process {self.pid} ({self.identity.name}): may not use its {what}",
                hint="run as root or as its user, or with CAP_SYS_PTRACE",
            )
        if error.errno == errno.ENOENT:
            return NotSupported(f"this kernel has no /proc/PID/{what}", hint="it is an option of the kernel's build")
        return error

    def stat(self) -> ProcessStat:
        """/proc/PID/stat of now.  Raises TargetGone, for a zombie too."""
        stat = parse_stat(self.read_file("stat"))
        if stat.is_dead:
            raise _gone(self.pid)
        return stat

    def is_kernel_thread(self) -> bool:
        """Whether it is a thread of the kernel, with no memory of its own.  Raises TargetGone."""
        return self.stat().is_kernel_thread

    def rss_bytes(self) -> int:
        """Resident memory (VmRSS).

        Since 6.2 the kernel counts it per processor and reads it roughly: it may be some pages for
        each processor off.  Exact is the sum of smaps.  Raises TargetGone.
        """
        return self._status_bytes(b"VmRSS:")

    def swap_bytes(self) -> int:
        """Anonymous memory in swap (VmSwap); swapped shared memory is not in it.  Raises TargetGone."""
        return self._status_bytes(b"VmSwap:")

    def resident_file_bytes(self) -> int:
        """Resident memory of files (RssFile), read as roughly as rss_bytes.  Raises TargetGone."""
        return self._status_bytes(b"RssFile:")

    def proportional_bytes(self) -> int:
        """Pss: resident memory, of shared pages each sharer's part.  About 40 ms per GiB.  Raises TargetGone."""
        return self._status_bytes(b"Pss:", name="smaps_rollup")

    def _status_bytes(self, key: bytes, *, name: str = "status") -> int:
        text = self.read_file(name)
        for line in text.splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
        # A zombie has no such line, and neither has a kernel thread.
        self.check_alive()
        return 0


def open_process(pid: int) -> Process:
    """The process that has `pid` now.

    Raises TargetGone (no such process, or a zombie), InvalidInput (not a process id), NotSupported
    (no pidfd_open, new in 5.3).
    """
    if not 0 < pid < 2**31:
        raise InvalidInput(f"{pid} is not a process id", hint="give the number that ps or pgrep shows")
    try:
        directory = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise _gone(pid) from error
    pidfd = -1
    try:
        # The directory stands for one process.  If it still answers after pidfd_open, the pid had not
        # been given away in between, so that both descriptors mean the same one.
        before = _read_stat(directory, pid)
        user_id = os.stat("stat", dir_fd=directory).st_uid
        pidfd = _open_pidfd(pid)
        after = _read_stat(directory, pid)
        if before.start_time_ticks != after.start_time_ticks:
            raise _gone(pid)
        identity = ProcessIdentity(pid=pid, start_time_ticks=after.start_time_ticks, name=after.name, user_id=user_id)
        return Process(identity=identity, pidfd=pidfd, directory=directory)
    except BaseException as error:
        os.close(directory)
        if pidfd >= 0:
            os.close(pidfd)
        if isinstance(error, ProcessLookupError | FileNotFoundError) and not isinstance(error, TargetGone):
            raise _gone(pid) from error
        raise


def _read_stat(directory: int, pid: int) -> ProcessStat:
    descriptor = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        stat = parse_stat(os.read(descriptor, _READ_BYTES))
    finally:
        os.close(descriptor)
    if stat.is_dead:
        raise _gone(pid)
    return stat


def _open_pidfd(pid: int) -> int:
    try:
        return libc.pidfd_open(pid)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise NotSupported("this kernel has no pidfd_open", hint="Linux 5.10 or newer is needed") from error
        # EINVAL, and ENOENT in newer kernels: the number is a thread's, which has a /proc directory but no pidfd.
        if error.errno in (errno.EINVAL, errno.ENOENT):
            raise InvalidInput(
                f"{pid} is a thread of a process, not a process", hint=f"its process is Tgid in /proc/{pid}/status"
            ) from error
        raise


def _gone(pid: int) -> TargetGone:
    return TargetGone(f"process {pid} is gone", hint="it exited, or the pid is wrong; see ps or pgrep")
