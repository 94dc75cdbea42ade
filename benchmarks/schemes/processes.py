"""Processes of a run: started in groups of their own, always ended, looked at with all their children."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_END_WAIT_S = 20.0
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


class BenchmarkError(RuntimeError):
    """A run that cannot be done or went wrong: no figure is made of it."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What is started.

    Attributes:
        arguments: the program and its arguments.
        user: who runs it, where that may not be root.
        stdin_path: what it reads.
        environment: variables that it gets beside ours.
    """

    arguments: tuple[str, ...]
    user: str | None = None
    stdin_path: Path | None = None
    environment: tuple[tuple[str, str], ...] = ()


def _as_user(user: str | None) -> dict[str, object]:
    if user is None or os.geteuid() != 0:
        return {}
    import pwd

    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextmanager
def started(command: Command, *, folder: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, with its output in `folder`; the whole group ends with the block."""
    with (
        (command.stdin_path or Path(os.devnull)).open("rb") as stdin,
        (folder / f"{name}.out").open("wb") as stdout,
        (folder / f"{name}.err").open("wb") as stderr,
    ):
        process = subprocess.Popen(
            command.arguments,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=folder,
            env=os.environ | dict(command.environment),
            start_new_session=True,
            **_as_user(command.user),  # type: ignore[call-overload]
        )
    try:
        yield process
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGINT, which is also PostgreSQL's fast shutdown, then SIGKILL for whoever of the group is left."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_WAIT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(command: Command, *, folder: Path, name: str) -> str:
    """Run to the end and return what it printed; raises BenchmarkError with the last lines of its errors."""
    with started(command, folder=folder, name=name) as process:
        code = process.wait()
    return output(folder, name, code)


def output(folder: Path, name: str, code: int) -> str:
    """What a process that has ended with `code` printed; raises BenchmarkError where it failed."""
    if code != 0:
        last = (folder / f"{name}.err").read_text(errors="replace").strip().splitlines()[-3:]
        raise BenchmarkError(f"{name} ended with exit status {code}: {' / '.join(last)}")
    return (folder / f"{name}.out").read_text(errors="replace")


def tree(pid: int) -> list[int]:
    """A process with all its living descendants."""
    pids, at = [pid], 0
    while at < len(pids):
        with suppress(*_GONE):
            for path in Path(f"/proc/{pids[at]}/task").iterdir():
                with suppress(*_GONE):
                    pids.extend(int(child) for child in (path / "children").read_text().split())
        at += 1
    return pids


def wait_until(is_so: Callable[[], bool], *, what: str, wait_s: float = 60.0) -> None:
    """Raises BenchmarkError where it does not become so in time."""
    end_s = time.monotonic() + wait_s
    while not is_so():
        if time.monotonic() > end_s:
            raise BenchmarkError(f"{what} is not ready after {wait_s:.0f} s")
        time.sleep(0.05)
