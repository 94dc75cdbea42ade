"""Control groups of version 1, 2 or both side by side: find one by its path, its processes and its memory.

Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, cgroups(7).
"""

import difflib
import errno
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from memtherm.errors import InvalidInput, NotPermitted, NotSupported, TargetGone
from memtherm.linux.pressure import PressureReading, read_pressure
from memtherm.linux.process_table import programs_among

# LRU pages without the unevictable ones, by version.
_LRU_KEYS = {1: ("anon", "file"), 2: ("inactive_anon", "active_anon", "inactive_file", "active_file")}
_LRU_STAT_KEYS = _LRU_KEYS[2]


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup file system.

    Attributes:
        version: 1 or 2.
        controllers: of version 1, such as `memory` or `name=systemd`; empty for version 2.
        root: the path of the cgroup that is mounted, as /proc/PID/cgroup shows it; `/` outside of containers.
        mount_point: its directory.
    """

    version: int
    controllers: frozenset[str]
    root: str
    mount_point: str

    def directory(self, path: str) -> str:
        """The directory of the cgroup that /proc/PID/cgroup shows as `path`; empty if it is not in this mount."""
        below = _below(path, self.root)
        return "" if below is None else posixpath.join(self.mount_point, below).rstrip("/") or "/"

    def is_in_line(self, line: str) -> bool:
        """Whether a line of /proc/PID/cgroup is about this hierarchy."""
        _, controllers, _ = line.split(":", 2)
        if self.version == 2:
            return not controllers
        return bool(controllers) and set(controllers.split(",")) <= self.controllers


def parse_hierarchies(mountinfo: str) -> tuple[Hierarchy, ...]:
    """The cgroup file systems in the text of /proc/PID/mountinfo: the one that counts memory first.

    That is the one of version 1 with the memory controller where there is one, else version 2; then the others.
    """
    found = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        kind, _, options = fields[fields.index("-") + 1 :][:3]
        if kind in ("cgroup", "cgroup2"):
            version = 2 if kind == "cgroup2" else 1
            controllers = frozenset(options.split(",")) - {"rw", "ro"} if version == 1 else frozenset()
            found.append(Hierarchy(version, controllers, _plain(fields[3]), _plain(fields[4])))
    return tuple(sorted(found, key=lambda one: 0 if "memory" in one.controllers else 3 - one.version))


def read_hierarchies() -> tuple[Hierarchy, ...]:
    """The cgroup file systems that are mounted here, in the order of parse_hierarchies."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse_hierarchies(file.read())


def parse_numa_stat(text: str) -> dict[str, dict[int, int]]:
    """The text of memory.numa_stat: key → node → number (pages in version 1, bytes in version 2)."""
    values = {}
    for line in text.splitlines():
        head, *nodes = line.split()
        pairs = (node.partition("=") for node in nodes)
        values[head.partition("=")[0]] = {int(name.removeprefix("N")): int(number) for name, _, number in pairs}
    return values


def parse_stat_file(text: str) -> dict[str, int]:
    """The text of memory.stat: key → number."""
    return {key: int(number) for key, number in (line.split() for line in text.splitlines())}


@dataclass(frozen=True)
class Cgroup:
    """A control group, by its path: what is there now, also after it was removed and made again.

    Each question raises TargetGone where it does not exist.

    Attributes:
        hierarchy: where it is.
        path: as /proc/PID/cgroup shows it.
    """

    hierarchy: Hierarchy
    path: str

    @property
    def version(self) -> int:
        """1 or 2."""
        return self.hierarchy.version

    @property
    def directory(self) -> str:
        """Its directory in the cgroup file system."""
        return self.hierarchy.directory(self.path)

    @property
    def inode(self) -> int:
        """What /proc/kpagecgroup shows for its own pages, not for those below it, if memory is charged to it."""
        try:
            return Path(self.directory).stat().st_ino
        except FileNotFoundError as error:
            raise self._gone() from error

    def exists(self) -> bool:
        """Whether it exists now."""
        return Path(self.directory).is_dir()

    def pids(self) -> list[int]:
        """Pids of the processes in it and below it, ascending, without kernel threads and zombies."""
        # 0 stands for a process outside of our pid namespace.
        return programs_among(sorted(self._all_pids() - {0}))

    def lru_bytes(self, node: int | None = None) -> int:
        """Pages that reclaim can look at, anonymous and of files, of it and below, on `node` or on all.

        Raises NotSupported without the memory controller, InvalidInput for a node without memory.
        """
        try:
            stat = parse_numa_stat(self._read("memory.numa_stat"))
        except NotSupported:  # a kernel without NUMA has node 0 only
            return self._lru_bytes_without_nodes(node)
        prefix, unit_bytes = ("hierarchical_", os.sysconf("SC_PAGE_SIZE")) if self.version == 1 else ("", 1)
        counts = [stat[prefix + key] for key in _LRU_KEYS[self.version]]
        if node is None:
            return sum(sum(count.values()) for count in counts) * unit_bytes
        if node not in counts[0]:
            raise _no_node(node, counts[0])
        return sum(count[node] for count in counts) * unit_bytes

    def _lru_bytes_without_nodes(self, node: int | None) -> int:
        stat = parse_stat_file(self._read("memory.stat"))
        if node:
            raise _no_node(node, (0,))
        prefix = "total_" if self.version == 1 else ""
        return sum(stat[prefix + key] for key in _LRU_STAT_KEYS)

    def pressure(self) -> PressureReading:
        """Memory pressure of it and below, or why there is none: version 1 has none."""
        directory = self.directory
        if not self.exists():
            raise self._gone()
        if self.version == 1:
            return PressureReading(None, f"{self.path} is a cgroup of version 1, which has no pressure")
        reading = read_pressure("memory", cgroup=directory)
        if reading.value is None and not self.exists():
            raise self._gone()
        return reading

    def _read(self, name: str) -> str:
        try:
            with open(f"{self.directory}/{name}", encoding="ascii") as file:
                return file.read()
        except OSError as error:
            # ENODEV: removed between open and read.
            if error.errno == errno.ENODEV or (error.errno == errno.ENOENT and not self.exists()):
                raise self._gone() from error
            if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
                raise NotSupported(
                    f"the cgroup {self.path} has no {name}",
                    hint="it has no memory controller (see cgroup.subtree_control of its parent), or is the root",
                ) from error
            if error.errno in (errno.EACCES, errno.EPERM):
                raise NotPermitted(f"may not read {name} of the cgroup {self.path}", hint="run as root") from error
            raise

    def _all_pids(self) -> set[int]:
        """Pids in its directory and each below; what is removed meanwhile is left out."""
        found: set[int] = set()
        for directory, _, _ in os.walk(self.directory):
            try:
                found.update(_read_pids(directory))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):
                    raise
        if not self.exists():
            raise self._gone()
        return found

    def _gone(self) -> TargetGone:
        return TargetGone(f"the cgroup {self.path} is gone", hint="it was removed: its service or container has ended")


def find_cgroup(path: str, *, hierarchies: Sequence[Hierarchy] | None = None) -> Cgroup:
    """The control group at `path`: as /proc/PID/cgroup shows it, with or without the first `/`, or its directory.

    Where versions 1 and 2 are side by side, the hierarchy that counts memory is looked at first; name the
    directory to get another.  `hierarchies` are those mounted here if not given.

    Raises InvalidInput, with what is nearest to it.
    """
    known = read_hierarchies() if hierarchies is None else tuple(hierarchies)
    if not known:
        raise InvalidInput(f"no cgroup {path!r}", hint="no cgroup file system is mounted")
    if not path:
        raise InvalidInput("the path of a cgroup is empty", hint="see /proc/PID/cgroup; `/` is the root")
    for candidate in _candidates(path, known):
        if candidate.exists():
            return candidate
    raise InvalidInput(f"no cgroup {path!r}", hint=_nearest(_candidates(path, known)[0]))


def _candidates(path: str, known: Sequence[Hierarchy]) -> list[Cgroup]:
    """What `path` may mean: a directory below a mount, a path of /proc/PID/cgroup, a path below a mount's root."""
    absolute = posixpath.normpath("/" + path.lstrip("/"))
    # As systems link cpu to cpu,cpuacct.
    directory = os.path.realpath(absolute) if path.startswith("/") else absolute
    found = []
    # In the deepest mount: a host with version 1 may have a mount within a mount.
    for one in sorted(known, key=lambda one: -len(one.mount_point)):
        below = _below(directory, one.mount_point)
        if below is not None and path.startswith("/"):
            found.append(Cgroup(one, posixpath.join(one.root, below).rstrip("/") or "/"))
    found += [Cgroup(one, absolute) for one in known if one.directory(absolute)]
    return found + [Cgroup(one, posixpath.join(one.root, absolute[1:]).rstrip("/") or "/") for one in known]


def _nearest(wanted: Cgroup) -> str:
    """A hint: the nearest parent that exists, and what in it is called alike."""
    missing, parent = "", wanted.path
    while parent != wanted.hierarchy.root and not Cgroup(wanted.hierarchy, parent).exists():
        parent, missing = posixpath.split(parent)
    text = f"the nearest that exists is {parent}"
    with suppress(OSError):
        with os.scandir(Cgroup(wanted.hierarchy, parent).directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
        alike = difflib.get_close_matches(missing, names, n=3)
        text += f"; in it {', '.join(alike)} is named alike" if alike else ""
    return text


def _below(path: str, parent: str) -> str | None:
    """`path` from `parent` on, empty for `parent` itself; None where it is not below."""
    if path == parent:
        return ""
    prefix = parent.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None


def _plain(field: str) -> str:
    """A field of mountinfo without its octal escapes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _read_pids(directory: str) -> list[int]:
    try:
        return _read_numbers(f"{directory}/cgroup.procs")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    # A threaded cgroup holds single threads, and does not tell of which processes.
    pids = []
    for thread in _read_numbers(f"{directory}/cgroup.threads"):
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{thread}/status", "rb") as file:
            pids.append(int(file.read().partition(b"\nTgid:")[2].split(maxsplit=1)[0]))
    return pids


def _read_numbers(path: str) -> list[int]:
    with open(path, encoding="ascii") as file:
        return [int(line) for line in file]


def _no_node(node: int, known: Iterable[int]) -> InvalidInput:
    numbers = ", ".join(str(one) for one in sorted(known))
    return InvalidInput(f"there is no memory node {node}", hint=f"nodes with memory: {numbers}")
