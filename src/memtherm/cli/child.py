"""A program that the command starts, watches, and ends."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from memtherm.errors import InvalidInput, TargetGone

_PATIENCE_S = 5.0


@contextmanager
def started(command_line: Sequence[str]) -> Iterator[subprocess.Popen[bytes] | None]:
    """The program, running; None without a command line.  What still runs at the end is ended.

    Its output goes to our standard error, so that our own output stays one that programs can read.

    Raises:
        InvalidInput: it cannot be started.
    """
    if not command_line:
        yield None
        return
    try:
        child = subprocess.Popen(command_line, stdout=sys.stderr)
    except (OSError, ValueError) as problem:  # ValueError: a NUL character
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise InvalidInput(
            f"cannot run {command_line[0]!r}: {reason}", hint="give a program after `--`, with its path"
        ) from problem
    try:
        yield child
    except TargetGone:
        print(f"memtherm: {command_line[0]} ended before it could be watched", file=sys.stderr)
        sys.exit(exit_status(child, has_ended=True))
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def exit_status(child: subprocess.Popen[bytes], *, has_ended: bool) -> int:
    """What a shell would say of a program that ended by itself; 0 while it runs, for it is we who end it.

    Args:
        has_ended: its memory has gone, and its end is only a matter of time.
    """
    status = child.wait() if has_ended else child.poll()
    if status is None:
        return 0
    return status if status >= 0 else 128 - status
