"""The `memtherm` command as a user runs it: a process, its output, its exit code."""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from memtherm.cli import check, demo, demo_run, doctor, monitor, run
from memtherm.cli.main import main
from memtherm.session.ways import canary_failure
from support.privileges import become

PATIENCE_S = 120.0
# What a forked command needs is loaded here, once.
LOADED = (check, demo, demo_run, doctor, monitor, run)


@dataclass(frozen=True)
class Result:
    """What a finished command left."""

    exit_code: int
    stdout: str
    stderr: str

    def json_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]


def command_line(*words: str) -> list[str]:
    return [sys.executable, "-m", "memtherm", *words]


def memtherm(*words: str, environment: dict[str, str] | None = None, prefix: Sequence[str] = ()) -> Result:
    """Run a command to its end.

    Args:
        environment: variables besides ours.
        prefix: a program that runs it, such as `setpriv` with its options.
    """
    done = subprocess.run(
        [*prefix, *command_line(*words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=os.environ | {"COLUMNS": "100"} | (environment or {}),
    )
    return Result(done.returncode, done.stdout, done.stderr)


@contextmanager
def running(*words: str) -> Iterator["subprocess.Popen[str]"]:
    """A command that is still running; killed at the end of the block if need be."""
    with subprocess.Popen(
        command_line(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def forked(*words: str, user_id: int | None = None) -> Result:
    """Run a command in a fork of the test, where everything is loaded and the canary has sung: ten times as fast.

    With `user_id` it runs as that user, who need not be able to read the package or to run Python.
    """
    for probe in ("bpf", "smaps"):
        canary_failure(probe)
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks in a process with threads (numpy's pool); the fork takes no lock of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _run_and_exit(words, (stdout.fileno(), stderr.fileno()), user_id)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for file in (stdout, stderr):
            file.seek(0)
        return Result(status, stdout.read(), stderr.read())


def _run_and_exit(words: Sequence[str], outputs: tuple[int, int], user_id: int | None) -> None:
    status = 99
    try:
        for number, output in enumerate(outputs, start=1):
            os.dup2(output, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = ["memtherm", *words]
        if user_id is not None:
            become(user_id)
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # Never returns: the fork must not go on as a second test run.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def assert_refused(result: Result, exit_code: int, *texts: str) -> None:
    """One clear complaint on stderr that holds all `texts`, with a hint, and nothing else anywhere."""
    assert result.exit_code == exit_code, result
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("memtherm: warning:")]
    complaints = [line for line in lines if line.startswith("memtherm: error: ")]
    assert len(complaints) == 1, result.stderr
    assert lines[-1].startswith("  hint: "), result.stderr
    for text in texts:
        assert text in result.stderr, result.stderr
