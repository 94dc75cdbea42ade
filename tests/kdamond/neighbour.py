"""Another memtherm process: claims a kdamond of a fake tree, or of the real one, and does as it is told on stdin.

Run with the folders of tree and registry, `real` for the kernel's own tree.  Each command is answered by one line.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TESTS = Path(__file__).parents[1]


class Neighbour:
    """The process, from the test's side; a context manager that kills it."""

    def __init__(self, tree: str, registry: Path, *, nr_slots: int = 3) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, tree, str(registry), str(nr_slots)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def send(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline() or '"ended"')

    def ask(self, command: str) -> Any:
        self.send(command)
        return self.answer()

    def kill(self) -> None:
        """By SIGKILL, as a crash does."""
        self._process.kill()
        self._process.wait()


def commands() -> Iterator[str]:
    for line in sys.stdin:
        yield line.strip()


def main(place: str, registry: str, nr_slots: str) -> None:
    from memtherm.errors import MemthermError
    from memtherm.kdamond import control
    from memtherm.kdamond.ownership import KdamondSlots
    from memtherm.kdamond.parameters import ANY_BOUNDS, Context, Kdamond, KernelScheme, KernelTarget
    from memtherm.kdamond.registry import Registry
    from memtherm.kdamond.tree import DamonTree
    from support.fake_damon import FakeDamonTree

    class DyingTree(FakeDamonTree):
        """Its process dies before or after it has written nr_kdamonds."""

        when = "before"

        def _make_directories(self, place: Path, text: str) -> None:
            if self.when == "after":
                super()._make_directories(place, text)
            os.kill(os.getpid(), 9)

    tree = DamonTree() if place == "real" else FakeDamonTree(Path(place))
    slots = KdamondSlots(
        tree,
        registry=Registry(Path(registry)),
        modules=Path("/sys/module" if place == "real" else "/nonexistent"),
        nr_slots=int(nr_slots),
    )
    claim: Any = None
    result: Any = None
    anything = KernelScheme(size_bytes=ANY_BOUNDS, nr_accesses=ANY_BOUNDS, age_windows=ANY_BOUNDS)
    for command in commands():
        word, *rest = command.split()
        try:
            if word == "claim":
                claim = slots.claim()
                result = [claim.index, list(claim.events)]
            elif word == "die_claiming":
                dying = DyingTree(Path(place))
                dying.when = rest[0]
                slots.tree = dying
                slots.claim()
            elif word == "start":
                parameters = Kdamond(context=Context(targets=(KernelTarget(pid=int(rest[0])),), schemes=(anything,)))
                claim = control.start(parameters, slots=slots)
                result = [claim.index, claim.events]
            elif word == "tried":
                result = claim.tried_bytes()[0]
            elif word == "release":
                result = list(claim.release() if hasattr(claim, "release") else claim.close())
            elif word == "look":
                result = slots.look().holder.value
        except MemthermError as error:
            result = f"{type(error).__name__}: {error}"
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
