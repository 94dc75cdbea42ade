"""Which processes there are: by name, by user, by descent; never kernel threads, zombies, or what ends meanwhile."""

import os
import pwd
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from memtherm.errors import InvalidInput
from memtherm.linux.process import ProcessStat, parse_stat


def list_pids() -> list[int]:
    """Pids of all processes (not of their threads), ascending."""
    return [pid for pid, _ in _programs(_all_pids())]


def programs_among(pids: Iterable[int]) -> list[int]:
    """Those of `pids` that run a program now, in their order."""
    return [pid for pid, _ in _programs(pids)]


def find_by_name(pattern: str) -> list[int]:
    """Pids of the processes called so, ascending; it may be empty.

    `pattern` is compared whole with /proc/PID/comm, which the kernel cuts to 15 bytes, and with the last part of
    the paths of the executable and of the first argument, which it does not cut.  `*`, `?` and `[...]` match as
    they do in a shell.
    """
    return [pid for pid, stat in _programs(_all_pids()) if _is_called(pid, stat.name, pattern)]


def find_by_user(user: str | int) -> list[int]:
    """Pids of the processes whose effective user is `user`, a name or a number, ascending; it may be empty.

    Raises InvalidInput for a name that this host does not know.
    """
    user_id = _user_id(user)
    return [pid for pid in _all_pids() if _effective_user_id(pid) == user_id]


def children_of(pids: Iterable[int]) -> list[int]:
    """Pids of all that descend from `pids`, ascending, without `pids` themselves.

    A process whose parent has ended descends from init, or from a subreaper: look while the parent lives.
    """
    children: dict[int, list[int]] = {}
    for pid, stat in _programs(_all_pids()):
        children.setdefault(stat.parent_pid, []).append(pid)
    given = set(pids)
    found: set[int] = set()
    waiting = list(given)
    while waiting:
        # The stats were read one after another: a pid that was given away meanwhile must not make a circle.
        new = set(children.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return sorted(found - given)


def _all_pids() -> list[int]:
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208 - 10x as fast


def _programs(pids: Iterable[int]) -> Iterator[tuple[int, ProcessStat]]:
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                stat = parse_stat(file.read())
        except (FileNotFoundError, ProcessLookupError):  # ended while we look
            continue
        if not stat.is_dead and not stat.is_kernel_thread:
            yield pid, stat


def _is_called(pid: int, comm: str, pattern: str) -> bool:
    if _matches(comm, pattern):
        return True
    with suppress(OSError):  # ended while we look
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            argument = file.read().partition(b"\0")[0].decode(errors="surrogateescape")
        if _matches(Path(argument).name, pattern):
            return True
        # Only the owner and root may read the link; the others have been asked what they tell everyone.
        executable = Path(f"/proc/{pid}/exe").readlink().name
        return _matches(executable.removesuffix(" (deleted)"), pattern)
    return False


def _matches(name: str, pattern: str) -> bool:
    # A name that holds a bracket itself is meant as it stands.
    return name == pattern or fnmatchcase(name, pattern)


def _user_id(user: str | int) -> int:
    if isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError) as error:
        if user.isascii() and user.isdigit():
            return int(user)
        raise InvalidInput(f"no user {user!r} on this host", hint="`getent passwd` lists users") from error


def _effective_user_id(pid: int) -> int | None:
    """None for what has no memory of its own: zombies and kernel threads."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Not the owner of /proc/PID: that is root for a program which may not be dumped.
    _, _, tail = text.partition(b"\nUid:")
    return int(tail.split(maxsplit=2)[1]) if b"\nVmSize:" in text else None
