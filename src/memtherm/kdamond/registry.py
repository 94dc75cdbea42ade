"""Which kdamonds are ours, written down for all memtherm processes of this host.

It holds for one boot only, is changed under a lock, and replaced whole, so that it is never read half-written.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memtherm.errors import NotPermitted
from memtherm.linux.process import parse_stat

DEFAULT_FOLDER = Path("/run/memtherm/kdamond")
_VERSION = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Owner:
    """A memtherm process.

    Attributes:
        start_time_ticks: clock ticks from boot; with the pid it is unique.
        pid_namespace: where the pid counts.
        name: as in /proc/PID/comm.
    """

    pid: int
    start_time_ticks: int
    pid_namespace: int
    name: str

    @property
    def is_alive(self) -> bool:
        """False only where it is known to have ended: of another pid namespace nothing is known."""
        if self.pid_namespace != _pid_namespace():
            return True
        try:
            stat = parse_stat(Path(f"/proc/{self.pid}/stat").read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            return False
        return not stat.is_dead and stat.start_time_ticks == self.start_time_ticks


@dataclass(frozen=True)
class Slot:
    """One kdamond directory of ours.

    Attributes:
        inode: of the directory; the kernel never gives the number to another one.
        owner: who uses it; None: it is free.
    """

    index: int
    inode: int
    owner: Owner | None


@dataclass(frozen=True)
class Record:
    """What the registry says.

    Attributes:
        claimant: who was about to make `wanted` directories; None once that was done.
        slots: the directories that we have made; none while a claimant makes them.
    """

    claimant: Owner | None = None
    wanted: int = 0
    slots: tuple[Slot, ...] = ()


class Registry:
    """The file `registry.json` in a folder that belongs to root alone."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self.folder = folder
        self._file = folder / "registry.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other memtherm changes the registry, or the number of kdamonds, meanwhile.

        Raises NotPermitted where the folder cannot be made, or may be written by others.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise NotPermitted(
                f"may not write {self.folder}, where memtherm notes which kdamonds are its own", hint="run as root"
            ) from error
        try:
            self._check_folder()
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def read(self) -> Record:
        """What was written in this boot; empty where nothing was, it is damaged, or may not be read."""
        try:
            values = json.loads(self._file.read_text(encoding="utf-8"))
            if values["version"] == _VERSION and values["boot_id"] == _boot_id():
                return _record(values)
        except (OSError, ValueError, KeyError, TypeError):
            # Nothing is lost but what could be called ours: the tree then counts as another owner's.
            pass
        return Record()

    def save(self, record: Record) -> None:
        """Replace it.  Only while locked."""
        if record == Record():
            with suppress(FileNotFoundError):
                self._file.unlink()
            return
        values = {"version": _VERSION, "boot_id": _boot_id(), **asdict(record)}
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(values, indent=1), encoding="utf-8")
        new.replace(self._file)

    def _check_folder(self) -> None:
        status = self.folder.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise NotPermitted(
                f"{self.folder} may be written by others", hint=f"remove it, or: chown root {self.folder}; chmod 700"
            )


def this_process() -> Owner:
    stat = parse_stat(Path("/proc/self/stat").read_bytes())
    return Owner(os.getpid(), stat.start_time_ticks, _pid_namespace(), stat.name)


def _record(values: dict[str, Any]) -> Record:
    return Record(
        claimant=_owner(values["claimant"]),
        wanted=int(values["wanted"]),
        slots=tuple(Slot(int(one["index"]), int(one["inode"]), _owner(one["owner"])) for one in values["slots"]),
    )


def _owner(values: dict[str, Any] | None) -> Owner | None:
    if values is None:
        return None
    return Owner(
        pid=int(values["pid"]),
        start_time_ticks=int(values["start_time_ticks"]),
        pid_namespace=int(values["pid_namespace"]),
        name=str(values["name"]),
    )


def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino
