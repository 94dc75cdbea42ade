"""Where tracefs is: as this host has it, or mounted for a test and taken away again."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memtherm.errors import NotSupported
from memtherm.linux.tracefs import find_tracefs


@contextmanager
def tracefs_root(folder: Path) -> Iterator[Path]:
    """A mounted tracefs; needs `require("root", "tracefs")`.

    Args:
        folder: an empty one, where it is mounted if the host has it nowhere.
    """
    try:
        yield find_tracefs()
        return
    except NotSupported:
        pass
    subprocess.run(["mount", "-t", "tracefs", "nodev", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
