"""A file that is there when it is whole, and not before."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from memtherm.errors import HostCannot, InvalidInput, MemthermError


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Before any work is done: whether a file may be written at all.

    Raises:
        InvalidInput: it is there and may not be overwritten; or it is a folder, or in none.
    """
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder", hint="name a file in it")
    if is_regular(path) and path.exists() and not overwrite:
        raise InvalidInput(f"{path} exists already", hint="give another name, or --overwrite")
    if not path.parent.is_dir():
        raise InvalidInput(f"{path.parent} is no folder", hint="name a file in a folder that exists")


def is_regular(path: Path) -> bool:
    """Whether a path is of a plain file, or free for one; not so a pipe, or `/dev/stdout` wherever that leads."""
    return not path.exists() or (path.is_file() and not path.is_relative_to("/dev"))


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Gives another name in the same folder, to be written; at the end of the block that becomes `path`.

    Where the block fails, nothing is left.  What is no plain file, such as `/dev/stdout`, is given as it is.

    Raises:
        InvalidInput: as `refuse_existing`.
        HostCannot: the folder may not be written.
    """
    refuse_existing(path, overwrite=overwrite)
    if not is_regular(path):
        yield path
        return
    path = path.resolve()  # what a link points at is replaced, and the link stays
    try:
        folder = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as problem:
        raise HostCannot(f"cannot write in {path.parent}: {problem.strerror}", hint="name another folder") from problem
    written = Path(folder) / path.name
    try:
        yield written
        if path.exists():
            written.chmod(path.stat().st_mode & 0o777)
        refuse_existing(path, overwrite=overwrite)
        written.replace(path)
    except MemthermError:  # some are an OSError, too
        raise
    except OSError as problem:
        raise HostCannot(f"cannot write {path}: {problem.strerror}", hint="is there room on the disk?") from problem
    finally:
        for name in Path(folder).iterdir():
            name.unlink()
        with suppress(OSError):
            Path(folder).rmdir()
