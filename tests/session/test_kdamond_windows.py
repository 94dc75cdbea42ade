"""Windows of a kdamond of ours over a tree that only behaves like the kernel's: what somebody else does to it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from memtherm.core.attributes import IntervalGoal, MonitoringAttributes
from memtherm.core.guard import GuardSettings
from memtherm.errors import HostCannot, NotSupported
from memtherm.kdamond import control
from memtherm.kdamond.aggregated import KernelWindow
from memtherm.kdamond.kernel_regions import KernelRegions
from memtherm.kdamond.ownership import KdamondSlots
from memtherm.kdamond.parameters import KernelScheme
from memtherm.kdamond.registry import Registry
from memtherm.kdamond.tree import OwnershipLost
from memtherm.linux.process import open_process
from memtherm.session import kdamond_windows
from memtherm.session.engines import Engines, Watched
from memtherm.session.kdamond_windows import KdamondWindows, KernelWatched
from memtherm.session.kernel_schemes import KernelSchemes
from memtherm.session.loop import MonitorLoop
from memtherm.session.schemes import SchemeRunner
from memtherm.testing import VirtualClock
from session.scene import GIB, StillMetrics, census_probe, watched
from support import fake_damon
from support.children import Child
from support.fake_damon import FakeDamonTree

KERNEL = MonitoringAttributes(method="kdamond")
AUTO = MonitoringAttributes(interval_goal=IntervalGoal())


@dataclass
class Trace:
    """What TracedWindows would hear: a test says which windows, one for each time that it is asked."""

    windows: list[KernelWindow] = field(default_factory=list)
    goes_on: bool = False

    def schemes(self, _nr_targets: int) -> tuple[KernelScheme, ...]:
        return ()

    def read(self) -> list[KernelWindow]:
        return [window()] if self.goes_on else [self.windows.pop(0)] if self.windows else []

    def take_dropped(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing is held."""


def window(*targets: int) -> KernelWindow:
    """A region of 4 KiB for each target, all of whose 20 samples found an access."""
    count = len(targets)
    start = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(1 << 20)
    return KernelWindow(
        0,
        KernelRegions(
            target=np.array(targets, np.int32),
            start=start,
            end=start + np.uint64(4096),
            nr_accesses=np.full(count, 20, np.int64),
            age_windows=np.full(count, 3, np.int64),
        ),
    )


@pytest.fixture
def tree(tmp_path: Path) -> FakeDamonTree:
    return FakeDamonTree(tmp_path / "damon")


@pytest.fixture(autouse=True)
def fake_kernel(tree: FakeDamonTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = KdamondSlots(tree, registry=Registry(tmp_path / "registry"), modules=tmp_path / "modules", nr_slots=3)
    monkeypatch.setattr(kdamond_windows, "start", lambda parameters: control.start(parameters, slots=slots))


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Trace:
    heard = Trace()
    monkeypatch.setattr(kdamond_windows, "TracedWindows", lambda **_: heard)
    return heard


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def child() -> Iterator[Child]:
    with Child() as one:
        yield one


@pytest.fixture
def target(child: Child) -> Iterator[KernelWatched]:
    with open_process(child.pid) as process:
        yield KernelWatched(process)


def kernel_schemes() -> KernelSchemes:
    return KernelSchemes(tuple, user_input={}, settings=GuardSettings(), apply=False)


def windows_of(*targets: KernelWatched, clock: VirtualClock) -> KdamondWindows:
    names = {number: f"target {number}" for number in range(len(targets))}
    return KdamondWindows(
        dict(enumerate(targets)), names=names, attributes=KERNEL, clock=clock, schemes=kernel_schemes()
    )


def until(clock: VirtualClock, time_s: float) -> Callable[[], bool]:
    """Ends what would otherwise wait for ever."""
    return lambda: clock.monotonic_s() >= time_s


def nothing() -> None:
    """No scheme is due."""


def starts(tree: FakeDamonTree) -> int:
    """How many kdamonds were started."""
    return sum(path.endswith("/state") and text == "on" for path, text in tree.writes)


def test_a_window_comes_in_rates_and_seconds(trace: Trace, target: KernelWatched, clock: VirtualClock) -> None:
    windows = windows_of(target, clock=clock)
    trace.windows = [window(0)]
    assert windows.take(until(clock, 10), nothing)
    regions = windows.regions()
    assert (regions.target.tolist(), regions.access_rate.tolist()) == ([0], [1.0])
    assert regions.age_s.tolist() == pytest.approx([0.3])
    windows.close()


def test_a_kdamond_that_somebody_stops_is_noticed_within_two_seconds(
    tree: FakeDamonTree, trace: Trace, target: KernelWatched, clock: VirtualClock
) -> None:
    windows = windows_of(target, clock=clock)
    trace.windows = [window(0)]
    assert windows.take(until(clock, 100), nothing)
    tree.end(0)
    with pytest.raises(HostCannot, match="kdamond 0 was stopped by somebody else"):
        windows.take(until(clock, 100), nothing)
    assert clock.monotonic_s() < 2.5
    windows.close()
    assert starts(tree) == 1
    assert tree.read("nr_kdamonds") == "0"


def test_one_that_somebody_has_started_anew_is_not_ours(
    trace: Trace, target: KernelWatched, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is listened to are the events of the thread that we have started."""
    assert not trace.windows
    windows = windows_of(target, clock=clock)
    monkeypatch.setattr(fake_damon, "THREAD", fake_damon.THREAD + 50)
    with pytest.raises(HostCannot, match="was stopped by somebody else"):
        windows.take(until(clock, 100), nothing)
    windows.close()


@pytest.mark.usefixtures("trace")
def test_a_tree_that_somebody_has_rewritten_is_noticed_and_left_alone(
    tree: FakeDamonTree, target: KernelWatched, clock: VirtualClock
) -> None:
    windows = windows_of(target, clock=clock)
    tree.end(0)
    tree.rewrite(1)
    before = list(tree.writes)
    with pytest.raises(OwnershipLost, match="has been removed"):
        windows.take(until(clock, 100), nothing)
    windows.close()
    assert tree.writes == before
    assert any("has been removed" in event for event in windows.events)


def test_while_windows_come_the_tree_is_not_asked(
    tree: FakeDamonTree, trace: Trace, target: KernelWatched, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = windows_of(target, clock=clock)
    trace.goes_on = True
    asked: list[str] = []
    monkeypatch.setattr(tree, "read", lambda path, **_: asked.append(path))
    while clock.monotonic_s() < 5:
        assert windows.take(until(clock, 100), nothing)
    assert asked == []
    monkeypatch.undo()
    windows.close()


@pytest.mark.usefixtures("trace")
def test_silence_alone_is_no_reason_to_give_up(tree: FakeDamonTree, target: KernelWatched, clock: VirtualClock) -> None:
    """Such as under watermarks, or while the command of a neighbour holds the kernel's lock."""
    windows = windows_of(target, clock=clock)
    assert not windows.take(until(clock, 5), nothing)
    with tree.locked():
        assert not windows.take(until(clock, 10), nothing)
    assert windows.events == []
    windows.close()


@pytest.mark.usefixtures("trace")
def test_the_exit_of_all_targets_is_no_ones_doing(child: Child, target: KernelWatched, clock: VirtualClock) -> None:
    windows = windows_of(target, clock=clock)
    child.kill()
    assert not windows.take(until(clock, 100), nothing)
    assert windows.gone == {0: "target 0 has exited"}
    windows.close()


@pytest.mark.usefixtures("trace")
def test_targets_that_came_late_outlive_the_kdamond_of_the_first(
    tree: FakeDamonTree, child: Child, target: KernelWatched, clock: VirtualClock
) -> None:
    windows = windows_of(target, clock=clock)
    with Child() as other, open_process(other.pid) as process:
        child.kill()
        windows.add(1, KernelWatched(process), name="target 1")
        assert not windows.take(until(clock, 5), nothing)
        assert starts(tree) == 2
        assert "watched from new: the targets that were there at first have exited" in windows.events
        assert tree.committed(0)["contexts/0/targets/0/pid_target"] == str(other.pid)
        windows.close()


def without_tracefs(**_: object) -> Trace:
    raise NotSupported("tracefs is not mounted", hint="mount it")


def test_where_windows_are_asked_for_a_stop_is_noticed_as_well(
    tree: FakeDamonTree, target: KernelWatched, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kdamond_windows, "TracedWindows", without_tracefs)
    tree.set_results(regions=[[4096, 8192, 20, 3]])
    windows = windows_of(target, clock=clock)
    assert "windows are asked for one by one, and some are missed: tracefs is not mounted (mount it)" in windows.events
    assert windows.take(until(clock, 10), nothing)
    assert windows.regions().start.tolist() == [4096]
    tree.end(0)
    with pytest.raises(HostCannot, match="was stopped by somebody else"):
        windows.take(until(clock, 100), nothing)
    windows.close()


def test_where_windows_are_asked_for_a_rewritten_tree_is_noticed_at_once(
    tree: FakeDamonTree, target: KernelWatched, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kdamond_windows, "TracedWindows", without_tracefs)
    windows = windows_of(target, clock=clock)
    tree.end(0)
    tree.rewrite(0)
    with pytest.raises(OwnershipLost):
        windows.take(until(clock, 100), nothing)
    windows.close()


# --- the loop over them -----------------------------------------------------------------------------------------------


def loop_of(
    targets: Sequence[Watched], clock: VirtualClock, attributes: MonitoringAttributes, *, purpose: str = ""
) -> MonitorLoop:
    return MonitorLoop(
        targets,
        engines=Engines(
            attributes=attributes,
            clock=clock,
            rng=np.random.default_rng(3),
            kernel_schemes=kernel_schemes,
            no_kernel="",
            kernel_purpose=purpose,
        ),
        schemes=SchemeRunner((), metrics=StillMetrics(), clock=clock),
        clock=clock,
    )


def both_ways(target: KernelWatched, clock: VirtualClock) -> Watched:
    ranges = [(0, GIB >> 4)]
    return replace(watched(clock, census_probe(clock, ranges, present=ranges), pid=target.pid), kernel=target)


def test_a_session_goes_on_by_another_method_and_says_so(
    tree: FakeDamonTree, trace: Trace, target: KernelWatched, clock: VirtualClock
) -> None:
    trace.windows = [window(0), window(0)]
    loop = loop_of([both_ways(target, clock)], clock, AUTO, purpose="for a test")
    reports = loop.reports()
    assert [next(reports).snapshot.conditions.method for _ in range(2)] == ["kdamond", "kdamond"]
    tree.end(0)
    report = next(reports)
    assert report.snapshot.conditions.method == "census"
    assert "not by the kernel's DAMON: kdamond 0 was stopped by somebody else" in report.events
    assert any(event.startswith("census from here on, with new ages: ") for event in report.events)
    assert next(reports).snapshot.conditions.method == "census"
    assert starts(tree) == 1
    assert tree.read("nr_kdamonds") == "0"
    loop.close()


def test_a_session_that_was_asked_for_the_kernel_ends_with_the_reason(
    tree: FakeDamonTree, trace: Trace, target: KernelWatched, clock: VirtualClock
) -> None:
    trace.windows = [window(0)]
    loop = loop_of([both_ways(target, clock)], clock, KERNEL)
    reports = loop.reports()
    next(reports)
    tree.end(0)
    with pytest.raises(HostCannot, match="was stopped by somebody else") as problem:
        next(reports)
    assert "memtherm kernel status" in problem.value.hint
    loop.close()
