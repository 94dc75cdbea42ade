"""`with fresh_cgroup()`: an empty cgroup for one test, removed afterwards."""

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from memtherm.linux.cgroups import Cgroup, Hierarchy, find_cgroup, read_hierarchies


@contextmanager
def fresh_cgroup(hierarchy: Hierarchy | None = None) -> Iterator[Cgroup]:
    """In the hierarchy that counts memory if no other is given.  Needs `require("cgroup")`.

    Cgroups made below it are removed too.  Whoever is in it then goes back to the root: end your processes first.
    In version 2 the root's children get the memory controller meanwhile, if they lack it.
    """
    root = Path((hierarchy or read_hierarchies()[0]).mount_point)
    with _memory_controller(root):
        folder = Path(tempfile.mkdtemp(prefix="memtherm-test-", dir=root))
        try:
            yield find_cgroup(str(folder))
        finally:
            _remove(folder)


@contextmanager
def _memory_controller(root: Path) -> Iterator[None]:
    control = root / "cgroup.subtree_control"
    has_it = not control.exists() or "memory" in control.read_text().split()
    if has_it or "memory" not in (root / "cgroup.controllers").read_text().split():
        yield
        return
    control.write_text("+memory")
    try:
        yield
    finally:
        control.write_text("-memory")


def _remove(folder: Path) -> None:
    for directory, _, _ in os.walk(folder, topdown=False):
        deadline = time.monotonic() + 10
        while True:
            # A process that was killed belongs to its cgroup until it has given up its memory.
            with suppress(ProcessLookupError):
                for pid in _pids(Path(directory)):
                    (folder.parent / "cgroup.procs").write_text(str(pid))
            try:
                Path(directory).rmdir()
                break
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise


def counts_memory(cgroup: Cgroup) -> bool:
    """Whether memory is charged to it, and not to a parent: whether its memory controller is on."""
    return (Path(cgroup.directory) / "memory.stat").exists()


def join(cgroup: Cgroup, pid: int, *, below: str = "") -> None:
    """Move a process there; `below` names a cgroup in it, made if it is not there."""
    folder = Path(cgroup.directory) / below
    folder.mkdir(exist_ok=True)
    (folder / "cgroup.procs").write_text(str(pid))


def _pids(folder: Path) -> list[int]:
    try:
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    except OSError:  # threaded: its domain tells
        return []
