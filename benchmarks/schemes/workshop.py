"""A temporary folder with all that the programs work on: C programs, sources, a database, sockets."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.schemes.processes import BenchmarkError, Command, run

PROGRAMS = Path(__file__).parent / "programs"
_POSTGRES = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Workshop:
    """Where programs are run.

    Attributes:
        folder: ends with the benchmark.
        share: of the work of a whole run; less for a quick one.
    """

    folder: Path
    share: float

    def amount(self, whole: int, *, step: int = 1) -> int:
        """This share of an amount of work, as a multiple of `step`."""
        return max(step, round(whole * self.share / step) * step)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def fresh_path(self, name: str) -> str:
        """A path where nothing is, such as the socket of a server that was killed."""
        (self.folder / name).unlink(missing_ok=True)
        return self.path(name)

    def compiled(self, name: str) -> str:
        """The path of a C program of ours, compiled where it is not yet."""
        binary = self.folder / name
        if not binary.exists():
            arguments = ("cc", "-O2", "-o", str(binary), str(PROGRAMS / f"{name}.c"), "-lm")
            run(Command(arguments=arguments), folder=self.folder, name=f"cc-{name}")
        return str(binary)


@contextmanager
def workshop(share: float) -> Iterator[Workshop]:
    """A folder that is removed at the end, also after Ctrl-C."""
    folder = Path(tempfile.mkdtemp(prefix="memtherm-schemes-"))
    folder.chmod(0o711)  # PostgreSQL, which is not root, has its data in it
    try:
        yield Workshop(folder, share)
    finally:
        shutil.rmtree(folder)


def postgres_tool(name: str) -> str:
    """Path of a program of the newest PostgreSQL of Debian here; they are not on PATH."""
    found = sorted(_POSTGRES.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise BenchmarkError(f"there is no {name} below {_POSTGRES}: apt-get install postgresql")
    return str(found[-1])


def is_there(command: str) -> bool:
    """Whether a program can be run; `postgres` stands for PostgreSQL's folder of programs."""
    if command == "postgres":
        return any(_POSTGRES.glob("*/bin/postgres"))
    return shutil.which(command) is not None


def version(*arguments: str) -> str:
    """The first number with dots that a command prints."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout or done.stderr)
    return found[0] if found else "unknown"


def own_user() -> str | None:
    """Who runs what refuses to run as root."""
    return "postgres" if os.geteuid() == 0 else None
