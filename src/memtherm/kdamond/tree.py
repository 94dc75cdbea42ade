"""DAMON's sysfs tree at the lowest level: read any file, write only what is proven to be ours, errors in words.

The kernel guards the tree by one lock that it only tries: whoever meets another's command gets EBUSY (damon-spec §3.5).
"""

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from memtherm.errors import HostCannot, InvalidInput, MemthermError, NotPermitted, NotSupported, TargetBusy

DEFAULT_ROOT = Path("/sys/kernel/mm/damon/admin")
_READ_BYTES = 4096  # no file of sysfs holds more

_Result = TypeVar("_Result")


class CommandCanceled(HostCannot):
    """The kernel gave a command up: the kdamond rests, is paused, has no scheme, or ends (damon-spec §2.11)."""


class OwnershipLost(TargetBusy):
    """A directory that was ours has been removed: somebody else has rewritten the tree."""


class KernelRefused(InvalidInput):
    """The kernel takes for wrong what looks right from here; the OSError is its cause."""


class Ownership:
    """Proof that one directory of the tree is ours; only ownership.py makes it.

    It holds the directory open.  Once somebody rewrites the tree, this directory is gone for good, and a later one
    of the same name is reached by no write through here.

    Attributes:
        name: of the directory below `kdamonds`; empty for `kdamonds` itself.
    """

    def __init__(self, tree: "DamonTree", name: str) -> None:
        self.name = name
        self._directory = tree.open_directory(name)

    @property
    def directory(self) -> int:
        """A descriptor of it.  Raises OwnershipLost once given up."""
        if self._directory < 0:
            raise OwnershipLost("this part of the DAMON tree has been given up", hint="claim a kdamond first")
        return self._directory

    @property
    def is_held(self) -> bool:
        return self._directory >= 0

    @property
    def identity(self) -> int:
        """The inode of the directory: the kernel gives no number twice."""
        return os.fstat(self.directory).st_ino

    def close(self) -> None:
        """Give it up; nothing can be written through it any more.  May be called again."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try again while the kernel's lock is held by another's command.

    Attributes:
        limit_s: a command of a neighbour may hold the lock for as long as its longest apply interval.
    """

    first_wait_s: float = 0.001
    longest_wait_s: float = 0.1
    limit_s: float = 15.0


ONCE = Patience(limit_s=0.0)


class DamonTree:
    """The tree below `root`.  Paths are relative: to `kdamonds`, or to the directory of an Ownership.

    Args:
        sleep, monotonic_s: time for trying again.
    """

    def __init__(
        self,
        root: Path = DEFAULT_ROOT,
        *,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self.kdamonds = root / "kdamonds"
        self.patience = patience or Patience()
        self._sleep = sleep
        self._monotonic_s = monotonic_s

    def open_directory(self, name: str) -> int:
        """A descriptor for looking things up below `kdamonds`/`name`, which gives no access to any content."""
        try:
            return os.open(self.kdamonds / name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _explain(error, _Request(path=name or "kdamonds")) from error

    def has(self, path: str, *, owner: Ownership | None = None) -> bool:
        """Whether there is such a file or directory.  Raises NotPermitted."""
        place, directory = self._place(path, owner)
        try:
            os.stat(place, dir_fd=directory)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._in_words(error, _Request(path=path, owner=owner)) from error
        return True

    def still_has(self, owner: Ownership) -> bool:
        """Whether the directory of `owner` is still the one that the tree shows under its name."""
        try:
            return (self.kdamonds / owner.name).stat().st_ino == owner.identity
        except FileNotFoundError:
            return False

    def read(self, path: str, *, owner: Ownership | None = None, patience: Patience | None = None) -> str:
        """The text of a file without its last line break.

        Raises NotSupported (no such file), NotPermitted, TargetBusy (the lock is held for too long), OwnershipLost.
        """
        place, directory = self._place(path, owner)
        request = _Request(path=path, owner=owner)
        return self._patiently(lambda: self._read_file(place, directory), request, patience)

    def read_number(self, path: str, *, owner: Ownership | None = None, patience: Patience | None = None) -> int:
        """A file that holds one whole number."""
        return int(self.read(path, owner=owner, patience=patience))

    def numbered(self, path: str, *, owner: Ownership | None = None) -> list[int]:
        """The numbers that name the directories in a directory, ascending; none where it is not there."""
        place, directory = self._place(path, owner)
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._in_words(error, _Request(path=path, owner=owner)) from error
        try:
            return sorted(int(name) for name in os.listdir(descriptor) if name.isdigit())  # noqa: PTH208 - a descriptor
        finally:
            os.close(descriptor)

    def read_rows(self, path: str, names: Sequence[str], *, owner: Ownership) -> list[list[int]]:
        """For each directory with a number in `path`, in their order, the numbers that its files `names` hold.

        Raises OwnershipLost, NotSupported.
        """
        request = _Request(path=path, owner=owner)
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=owner.directory)
        except OSError as error:
            raise self._in_words(error, request) from error
        try:
            # A descriptor of the folder spares the kernel six lookups for each file.
            rows = sorted(int(name) for name in os.listdir(folder) if name.isdigit())  # noqa: PTH208 - a descriptor
            return [[int(self._read_file(f"{row}/{name}", folder)) for name in names] for row in rows]
        except OSError as error:
            raise self._in_words(error, request) from error
        finally:
            os.close(folder)

    def write(self, owner: Ownership, path: str, text: str, *, patience: Patience | None = None) -> None:
        """Write a file below what `owner` proves to be ours: the one place of memtherm that writes into the tree.

        Raises:
            InvalidInput: the kernel refuses the value (KernelRefused).
            CommandCanceled: see there.
            TargetBusy, OwnershipLost, NotPermitted, NotSupported: as `read`.
        """
        if not isinstance(owner, Ownership):
            raise TypeError("nothing is written into the DAMON tree without an Ownership")
        directory = owner.directory
        request = _Request(path=path, owner=owner, text=text)
        self._patiently(lambda: self._write_file(path, directory, os.fsencode(text)), request, patience)

    def _place(self, path: str, owner: Ownership | None) -> tuple[str, int | None]:
        return (str(self.kdamonds / path), None) if owner is None else (path, owner.directory)

    def _read_file(self, path: str, directory: int | None) -> str:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            content = os.read(descriptor, _READ_BYTES)
        finally:
            os.close(descriptor)
        return content.decode(errors="surrogateescape").removesuffix("\n")

    def _write_file(self, path: str, directory: int, content: bytes) -> None:
        # Not a Python file: its errors come at flush or close, where they are lost easily.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)

    def _patiently(self, attempt: Callable[[], _Result], request: "_Request", patience: Patience | None) -> _Result:
        """Try again while the kernel's lock is held, waiting twice as long each time."""
        patience = patience or self.patience
        ends_s, wait_s = self._monotonic_s() + patience.limit_s, patience.first_wait_s
        while True:
            try:
                return attempt()
            except OSError as error:
                left_s = ends_s - self._monotonic_s()
                if error.errno != errno.EBUSY or left_s <= 0:
                    raise self._in_words(error, request) from error
            self._sleep(min(wait_s, left_s))
            wait_s = min(wait_s * 2, patience.longest_wait_s)

    def _in_words(self, error: OSError, request: "_Request") -> MemthermError:
        has_gone = error.errno in (errno.ENOENT, errno.ENODEV, errno.ESTALE)
        if has_gone and request.owner is not None and not self.still_has(request.owner):
            return OwnershipLost(
                f"our part of the DAMON tree ({request.owner.name or 'kdamonds'}) has been removed",
                hint="another program has rewritten the tree while our kdamond did not run",
            )
        return _explain(error, request)


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What was asked of the kernel; `text` is None for reads."""

    path: str
    owner: Ownership | None = None
    text: str | None = None

    @property
    def is_command(self) -> bool:
        return self.text is not None and self.path.rpartition("/")[2] == "state"


def _explain(error: OSError, request: _Request) -> MemthermError:
    """The errors of damon-spec §3.2, §3.4 and §3.5."""
    path, text = request.path, request.text
    if error.errno in (errno.EACCES, errno.EPERM):
        verb = "read" if text is None else "write"
        return NotPermitted(f"may not {verb} {path} of DAMON", hint="run as root: DAMON's files belong to root alone")
    if error.errno == errno.EROFS:
        return NotPermitted("/sys is mounted for reading only", hint="run outside of the container, or remount it")
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR):
        return NotSupported(f"the DAMON of this kernel has no {path}", hint="a newer kernel has it")
    if error.errno == errno.ECANCELED:
        return CommandCanceled(
            f"the kernel gave up {text!r}", hint="the kdamond rests by its watermarks, is paused, or ends"
        )
    if request.is_command:
        return _explain_command(error, text or "")
    if error.errno == errno.EBUSY:
        return TargetBusy(
            f"DAMON is busy with another command ({path})", hint="commands end within an apply interval; try again"
        )
    if error.errno == errno.EINVAL and text is not None:
        return KernelRefused(f"the kernel refuses {text!r} for {path}", hint="it is of a newer kernel, or wrong")
    if error.errno in (errno.ERANGE, errno.EOVERFLOW) and text is not None:
        return KernelRefused(f"{text} is too large for {path}", hint="the kernel keeps it in fewer bits")
    return HostCannot(f"{path} of DAMON: {os.strerror(error.errno or 0)}", hint="see dmesg")


def _explain_command(error: OSError, command: str) -> MemthermError:
    if error.errno == errno.EBUSY:
        return TargetBusy(
            f"DAMON does not take the command {command!r} now",
            hint="a DAMON module is enabled, or another command takes long; `memtherm kernel status` tells",
        )
    if error.errno == errno.ENOMEM:
        # The kernel builds schemes, filters and goals in one go, and reports any failure like this.
        return KernelRefused(
            f"the kernel cannot build a scheme ({command})",
            hint="a filter or goal names a cgroup that does not exist or is offline, or bounds in the wrong order",
        )
    if error.errno == errno.EINVAL:
        return KernelRefused(
            f"the kernel refuses the command {command!r}",
            hint="a target has exited, the kdamond does not run, a parameter is wrong, or the kernel lacks the command",
        )
    return HostCannot(f"the command {command!r}: {os.strerror(error.errno or 0)}", hint="see dmesg")
