"""SIGHUP while schemes run: the policy file is read again, and its schemes take the place of the old ones."""

import os
import signal
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from memtherm.errors import MemthermError

if TYPE_CHECKING:
    from memtherm.policy.values import Policy
    from memtherm.session.session import Session


class Reloading:
    """A context in which SIGHUP asks for the policy file to be read again; without a file it changes nothing.

    A terminal that is closed sends SIGHUP, too: that still ends the run.
    """

    def __init__(self, path: str | None, policy: "Policy", session: "Session") -> None:
        self._path = path
        self._policy = policy
        self._session = session
        self._is_asked = False
        self._had_terminal = _has_terminal()
        self._before: Any = None

    def __enter__(self) -> Self:
        if self._path is not None:
            self._before = signal.signal(signal.SIGHUP, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Where a signal ends us, SIGHUP is ignored from there on, and stays so.
        if self._path is not None and signal.getsignal(signal.SIGHUP) == self._ask:
            signal.signal(signal.SIGHUP, self._before)

    def look(self) -> None:
        """Read the file again if that was asked for; if it is wrong, say so and go on as before."""
        if not self._is_asked or self._path is None:
            return
        self._is_asked = False
        from memtherm.policy.file import load_policy

        try:
            policy = load_policy(self._path)
            self._session.replace_schemes(policy.schemes)
        except MemthermError as problem:
            print(f"memtherm: the old schemes go on, the new ones are wrong: {problem}", file=sys.stderr)
            return
        names = ", ".join(f'"{scheme.name}"' for scheme in policy.schemes) or "none"
        print(f"memtherm: {self._path} was read again; schemes: {names}", file=sys.stderr)
        if (policy.targets, policy.attributes, policy.guard) != (
            self._policy.targets,
            self._policy.attributes,
            self._policy.guard,
        ):
            print("memtherm: its targets, intervals and guards count from the next start on", file=sys.stderr)

    def _ask(self, signal_number: int, frame: Any) -> None:
        if self._had_terminal and not _has_terminal() and callable(self._before):
            self._before(signal_number, frame)
        self._is_asked = True


def _has_terminal() -> bool:
    """Whether a terminal controls this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
