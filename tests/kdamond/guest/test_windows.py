"""Windows of a kdamond of ours: from the trace as the kernel's text tells them, and from tried regions alike."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from memtherm.kdamond import control
from memtherm.kdamond.ownership import KdamondSlots
from memtherm.kdamond.parameters import (
    ANY_BOUNDS,
    Context,
    Kdamond,
    KernelFilter,
    KernelFilterKind,
    KernelScheme,
    KernelTarget,
)
from memtherm.kdamond.tried import tried_window
from support.children import Child
from support.requires import require
from support.trace_text import Row, assert_windows_are_as_told, listen, rows_of
from support.tracefs import tracefs_root

ANYTHING = KernelScheme(size_bytes=ANY_BOUNDS, nr_accesses=ANY_BOUNDS, age_windows=ANY_BOUNDS)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    require("root", "tracefs", "kdamond")
    (tmp_path / "tracing").mkdir()
    with tracefs_root(tmp_path / "tracing") as place:
        yield place


@pytest.fixture
def children() -> Iterator[list[Child]]:
    with Child() as one, Child() as two:
        for child in (one, two):
            address = child.map(16 << 20)
            child.write(address, 4096)
            child.keep_touching([(address, 1024, 1)], pause_s=0.005)
        yield [one, two]


def thread_of(running: control.RunningKdamond) -> int:
    thread = running.thread()
    assert thread is not None
    return thread


def test_windows_are_those_of_the_kernels_text(slots: KdamondSlots, root: Path, children: list[Child]) -> None:
    context = Context(targets=(KernelTarget(pid=children[0].pid),))
    with control.start(Kdamond(context=context), slots=slots) as running:
        heard = listen(root, thread_of(running), nr_windows=8, limit_s=60)
    assert len(heard.windows) >= 8
    assert_windows_are_as_told(heard)
    assert all(3 <= len(window.regions) <= 1000 for window in heard.windows)


def test_each_kdamond_is_heard_alone(slots: KdamondSlots, root: Path, children: list[Child]) -> None:
    targets = tuple(KernelTarget(pid=child.pid) for child in children)
    both, one = Kdamond(context=Context(targets=targets)), Kdamond(context=Context(targets=targets[:1]))
    with control.start(both, slots=slots) as first, control.start(one, slots=slots) as second:
        heard = listen(root, thread_of(first), nr_windows=5, limit_s=60, nr_targets=2)
        alone = listen(root, thread_of(second), nr_windows=5, limit_s=60)
    assert_windows_are_as_told(heard)
    assert_windows_are_as_told(alone)
    assert {target for window in heard.windows for target, *_ in rows_of(window)} == {0, 1}
    assert all(set(window.regions.target.tolist()) == {0, 1} for window in heard.windows)
    assert {target for window in alone.windows for target, *_ in rows_of(window)} == {0}


def test_tried_regions_tell_the_same(slots: KdamondSlots, root: Path, children: list[Child]) -> None:
    targets = tuple(KernelTarget(pid=child.pid) for child in children)
    # Tried regions do not tell their target, so each has a scheme of its own.
    schemes = tuple(
        KernelScheme(
            size_bytes=ANY_BOUNDS,
            nr_accesses=ANY_BOUNDS,
            age_windows=ANY_BOUNDS,
            core_filters=(KernelFilter(kind=KernelFilterKind.TARGET, target=target, matching=False),),
        )
        for target in range(len(targets))
    )
    asked: list[list[Row]] = []
    with control.start(Kdamond(context=Context(targets=targets, schemes=schemes)), slots=slots) as running:

        def ask() -> None:
            asked.append(rows_of(tried_window(running, range(len(targets)))))
            running.clear_tried_regions()

        heard = listen(root, thread_of(running), nr_windows=8, limit_s=90, nr_targets=2, meanwhile=ask)
    assert_windows_are_as_told(heard)
    told = [rows_of(window) for window in heard.windows]
    # Both are of the end of a window; the last answer may be of one that was not waited for.
    same = [rows for rows in asked if rows in told]
    assert same
    assert len(same) >= len(asked) - 2
    assert {target for rows in same for target, *_ in rows} == {0, 1}
