import ast
import errno
import os
from pathlib import Path

import pytest

from memtherm.errors import HostCannot, MemthermError, NotPermitted, NotSupported, TargetBusy
from memtherm.kdamond.tree import ONCE, CommandCanceled, DamonTree, KernelRefused, Ownership, OwnershipLost, Patience
from support.fake_damon import FakeDamonTree

SOURCES = Path(__file__).parents[2] / "src" / "memtherm"


class FailingTree(DamonTree):
    """Each write fails with the next errno; 0 succeeds.  Time passes by sleeping alone."""

    def __init__(self, root: Path, numbers: list[int]) -> None:
        self.now_s = 0.0
        self.waits: list[float] = []
        super().__init__(root, sleep=self._pass, monotonic_s=lambda: self.now_s)
        self._numbers = numbers

    def _pass(self, duration_s: float) -> None:
        self.waits.append(duration_s)
        self.now_s += duration_s

    def _write_file(self, *_: object) -> None:
        number = self._numbers.pop(0) if len(self._numbers) > 1 else self._numbers[0]
        if number:
            raise OSError(number, os.strerror(number))


def failing(tmp_path: Path, *numbers: int) -> tuple[FailingTree, Ownership]:
    (tmp_path / "kdamonds" / "0").mkdir(parents=True)
    tree = FailingTree(tmp_path, list(numbers))
    return tree, Ownership(tree, "0")


def test_busy_is_tried_again_with_longer_and_longer_waits(tmp_path: Path) -> None:
    tree, owner = failing(tmp_path, *[errno.EBUSY] * 10, 0)
    tree.write(owner, "state", "commit")
    assert tree.waits == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.1, 0.1, 0.1]


def test_busy_ends_at_the_limit(tmp_path: Path) -> None:
    tree, owner = failing(tmp_path, errno.EBUSY)
    with pytest.raises(TargetBusy):
        tree.write(owner, "nr_x", "1", patience=Patience(limit_s=3))
    assert tree.now_s == pytest.approx(3)
    tree.waits.clear()
    with pytest.raises(TargetBusy):
        tree.write(owner, "nr_x", "1", patience=ONCE)
    assert tree.waits == []


WORDS = [
    (("state", "on"), errno.EBUSY, TargetBusy, "does not take the command 'on' now"),
    (("state", "commit"), errno.ENOMEM, KernelRefused, "cannot build a scheme"),
    (("state", "on"), errno.EINVAL, KernelRefused, "refuses the command 'on'"),
    (("state", "update_schemes_tried_bytes"), errno.ECANCELED, CommandCanceled, "gave up"),
    (("contexts/0/schemes/0/action", "collapse"), errno.EINVAL, KernelRefused, "refuses 'collapse'"),
    (("contexts/0/schemes/0/action", "stat"), errno.EACCES, NotPermitted, "may not write"),
    (("contexts/0/schemes/0/action", "stat"), errno.EPERM, NotPermitted, "may not write"),
    (("nr_kdamonds", "1"), errno.EROFS, NotPermitted, "for reading only"),
    (("contexts/0/pause", "Y"), errno.ENOENT, NotSupported, "has no contexts/0/pause"),
    (("contexts/0/schemes/0/target_nid", "9" * 20), errno.ERANGE, KernelRefused, "too large"),
    (("contexts/nr_contexts", "1"), errno.ENOMEM, HostCannot, "Cannot allocate memory"),
    (("state", "on"), errno.EIO, HostCannot, "Input/output error"),
]


@pytest.mark.parametrize(("written", "number", "kind", "words"), WORDS)
def test_each_error_is_told_in_words(
    tmp_path: Path, written: tuple[str, str], number: int, kind: type[MemthermError], words: str
) -> None:
    tree, owner = failing(tmp_path, number)
    with pytest.raises(kind, match=words) as problem:
        tree.write(owner, *written)
    assert problem.value.hint
    assert isinstance(problem.value.__cause__, OSError)


def test_nothing_is_written_without_ownership(tree: FakeDamonTree) -> None:
    with pytest.raises(TypeError):
        tree.write(None, "nr_kdamonds", "1")  # type: ignore[arg-type]
    owner = Ownership(tree, "")
    owner.close()
    owner.close()
    with pytest.raises(OwnershipLost):
        tree.write(owner, "nr_kdamonds", "1")
    assert tree.writes == []
    assert tree.read("nr_kdamonds") == "0"


def test_a_rewritten_tree_is_not_reached_by_what_we_owned(tree: FakeDamonTree) -> None:
    tree.rewrite(2)
    owner = Ownership(tree, "0")
    tree.write(owner, "contexts/nr_contexts", "1")
    tree.rewrite(2)
    with pytest.raises(OwnershipLost, match="has been removed"):
        tree.write(owner, "contexts/nr_contexts", "1")
    with pytest.raises(OwnershipLost):
        tree.read("state", owner=owner)
    assert tree.read("0/contexts/nr_contexts") == "0"


def test_files_are_read_and_absent_ones_told(tree: FakeDamonTree) -> None:
    assert tree.read_number("nr_kdamonds") == 0
    assert tree.numbered("") == []
    assert not tree.has("0")
    with pytest.raises(NotSupported, match="has no 0/state"):
        tree.read("0/state")
    tree.rewrite(11)
    assert tree.numbered("") == list(range(11))
    with tree.locked(), pytest.raises(TargetBusy):
        tree.read("3/state", patience=ONCE)
    assert tree.read("3/state") == "off"


def test_only_ownership_makes_ownerships_and_only_the_tree_writes() -> None:
    """In source text: the one place that writes into the tree, and the one that proves what is ours."""
    makers, writers = set(), set()
    for path in sorted((SOURCES / "kdamond").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Ownership":
                makers.add(path.name)
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.O_WRONLY", "os.O_RDWR", "os.write"):
                writers.add(path.name)
    assert makers == {"ownership.py"}
    # The registry's lock, and what belongs to tracefs and modules, is not the tree.
    assert "tree.py" in writers
    assert not writers & {"control.py", "features.py", "layout.py", "ownership.py"}
