"""All processes of the host, read again and again at little cost.

Reading a process costs 10 to 40 µs, so that a pass over a thousand of them each second would take some percent
of a CPU.  Listing their pids takes 1 ms; so only what is new, and in turn a few of the old, are read.
"""

import os
import posixpath
import pwd
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from memtherm.errors import InvalidInput
from memtherm.linux.process import ProcessStat, parse_stat

_READ_BYTES = 64 * 1024
# A process is forked under the name and user of its parent, and becomes what it is a little later.
_YOUNG_ROUNDS = 5
_ROUNDS_OF_THE_OLD = 16


@dataclass(frozen=True)
class ProcessFacts:
    """One process that runs a program.

    Attributes:
        start_time_ticks: clock ticks from boot; with the pid it is unique.
        user_id: effective user; -1 where the table does not ask for users.
        names: /proc/PID/comm, which the kernel cuts to 15 bytes, and the last part of the first argument and of
            the executable's path, which it does not cut; empty where the table does not ask for names.
    """

    pid: int
    parent_pid: int
    start_time_ticks: int
    user_id: int
    names: tuple[str, ...]

    def is_called(self, pattern: str) -> bool:
        """Whether one of its names is `pattern`, or matches it as in a shell: `*`, `?`, `[...]`."""
        # A name that holds a bracket itself is meant as it stands.
        return any(name == pattern or fnmatchcase(name, pattern) for name in self.names)


class ProcessTable:
    """The processes as they are at each refresh, without kernel threads and zombies.

    What has changed its name or its user is noticed within 5 refreshes of its birth, or 16 later on.
    """

    def __init__(self, *, asks_names: bool, asks_users: bool) -> None:
        self._asks_names = asks_names
        self._asks_users = asks_users
        self._round = 0
        self._born: dict[int, int] = {}
        self._facts: dict[int, ProcessFacts] = {}

    @property
    def facts(self) -> Mapping[int, ProcessFacts]:
        """By pid."""
        return self._facts

    def refresh(self) -> None:
        """Look which processes there are, and read those that are due."""
        self._round += 1
        # Those of the first round are taken for old.
        birth = self._round if self._round > 1 else -_YOUNG_ROUNDS
        pids = sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208 - 10x as fast
        self._born = {pid: self._born.get(pid, birth) for pid in pids}
        facts: dict[int, ProcessFacts] = {}
        for pid, born in self._born.items():
            is_young = self._round == 1 or self._round - born < _YOUNG_ROUNDS
            is_due = is_young or (pid + self._round) % _ROUNDS_OF_THE_OLD == 0
            one = self._read(pid) if is_due else self._facts.get(pid)
            if one is not None:
                facts[pid] = one
        self._facts = facts

    def confirm(self, pids: Iterable[int]) -> bool:
        """Whether `pids` are still the processes whose facts are known; those that are not are read again.

        For what is about to be used: a pid may have been given away since its facts were read.
        """
        changed = False
        for pid in pids:
            known, now = self._facts.get(pid), _read_stat(pid)
            if known is None or now is None or now.start_time_ticks != known.start_time_ticks:
                one = self._read(pid)
                changed |= one != known
                self._facts.pop(pid, None)
                if one is not None:
                    self._facts[pid] = one
        return not changed

    def descendants(self, pids: Iterable[int], *, without: Iterable[int] = ()) -> set[int]:
        """All that descend from `pids`, themselves left out; `without`, and what descends through it, too.

        A process whose parent has ended descends from init, or from a subreaper.
        """
        children: dict[int, list[int]] = {}
        for one in self._facts.values():
            children.setdefault(one.parent_pid, []).append(one.pid)
        given, left_out = set(pids), set(without)
        found: set[int] = set()
        waiting = list(given)
        while waiting:
            # The facts were read one after another: a pid that was given away meanwhile must not make a circle.
            new = set(children.get(waiting.pop(), ())) - found - left_out
            found |= new
            waiting += new
        return found - given

    def _read(self, pid: int) -> ProcessFacts | None:
        stat = _read_stat(pid)
        if stat is None:
            return None
        return ProcessFacts(
            pid=pid,
            parent_pid=stat.parent_pid,
            start_time_ticks=stat.start_time_ticks,
            user_id=_read_user(pid) if self._asks_users else -1,
            names=_read_names(pid, stat.name) if self._asks_names else (),
        )


def programs_among(pids: Iterable[int]) -> list[int]:
    """Those of `pids` that run a program now, in their order: no kernel thread, no zombie, nothing that has gone."""
    return [pid for pid in pids if _read_stat(pid) is not None]


def user_id_of(user: str | int) -> int:
    """The number of a user, given by name or as a number.  Raises InvalidInput for a name that this host lacks."""
    if isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError) as error:
        if user.isascii() and user.isdigit():
            return int(user)
        raise InvalidInput(f"no user {user!r} on this host", hint="`getent passwd` lists users") from error


def _read_stat(pid: int) -> ProcessStat | None:
    """None for what runs no program: it is gone, a zombie, a kernel thread, or hidden from us."""
    text = _read(f"/proc/{pid}/stat")
    if not text:
        return None
    stat = parse_stat(text)
    return None if stat.is_dead or stat.is_kernel_thread else stat


def _read_user(pid: int) -> int:
    """The effective user; -1 for a process that ends meanwhile.

    Not the owner of /proc/PID: that is root for a program which may not be dumped.
    """
    line = _read(f"/proc/{pid}/status").partition(b"\nUid:")[2]
    return int(line.split(maxsplit=2)[1]) if line else -1


def _read_names(pid: int, comm: str) -> tuple[str, ...]:
    argument = _read(f"/proc/{pid}/cmdline").partition(b"\0")[0].decode(errors="surrogateescape")
    executable = ""
    with suppress(OSError):  # only its owner and root may read the link
        executable = Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")
    names = (comm, posixpath.basename(argument), executable)
    return tuple(dict.fromkeys(name for name in names if name))


def _read(path: str) -> bytes:
    """The text of a file of /proc; empty where the process has gone or is hidden.  10 µs; a Python file takes 17."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return b""
    try:
        return os.read(descriptor, _READ_BYTES)
    except (ProcessLookupError, PermissionError):
        return b""
    finally:
        os.close(descriptor)
