"""Targets as they come and go: opened, held, and let go of again."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from memtherm.act.apply import TargetActor
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import HostCannot, InvalidInput, TargetGone
from memtherm.linux.process import Process, open_process
from memtherm.linux.watch_lock import WatchLock
from memtherm.policy.values import PHYSICAL, TargetSelector
from memtherm.session.engines import Watched
from memtherm.session.kdamond_windows import KernelWatched
from memtherm.session.loop import Changes
from memtherm.session.targets import TargetFinder
from memtherm.session.ways import CENSUS_PROBES, PROBES, Way


class Watcher:
    """Opens what the finder finds: at first all of it, later what is new."""

    def __init__(
        self,
        selectors: Sequence[TargetSelector],
        finder: TargetFinder,
        way: Way,
        actor_of: Callable[[Process], TargetActor | None],
    ) -> None:
        self._selectors = selectors
        self._finder = finder
        self._way = way
        self._actor_of = actor_of
        self._processes: dict[int, Process] = {}
        self._held: dict[int, ExitStack] = {}
        self._refused: set[int] = set()
        self._left: dict[int, str] = {}

    def open_all(self) -> list[Watched]:
        """Raises what hinders any of them."""
        return [self._open(pid, labels) for pid, labels in self._finder.find().items()]

    def changes(self) -> Changes:
        """What has come, what is no longer meant, and why something cannot be watched, since this was asked last."""
        # Not before the loop has let go of them: it would look through what is closed, or is another's by then.
        self._release(self._left)
        self._left = {}
        if not self._finder.may_grow:
            return Changes()
        found = self._finder.find()
        self._refused &= found.keys()
        opened, problems = [], []
        for pid in sorted(found.keys() - self._processes.keys() - self._refused):
            try:
                opened.append(self._open(pid, found[pid]))
            except TargetGone:
                continue
            except (InvalidInput, HostCannot) as problem:
                self._refused.add(pid)
                problems.append(f"not watched: {problem}")
        for pid, process in self._processes.items():
            if not process.is_alive():
                self._left[pid] = "has exited"
            elif pid not in found:
                self._left[pid] = "no longer belongs to what was named"
        return Changes(opened, self._left, problems)

    def close(self) -> None:
        for stack in self._held.values():
            stack.close()
        self._held.clear()
        self._processes.clear()

    def _release(self, pids: Iterable[int]) -> None:
        for pid in pids:
            self._held.pop(pid).close()
            del self._processes[pid]

    def _open(self, pid: int, labels: tuple[str, ...]) -> Watched:
        with ExitStack() as stack:
            process = stack.enter_context(open_process(pid))
            watched = self._watched(process, labels, stack)
            self._processes[pid], self._held[pid] = process, stack.pop_all()
        return watched

    def _watched(self, process: Process, labels: tuple[str, ...], stack: ExitStack) -> Watched:
        identity, way = process.identity, self._way
        if process.is_kernel_thread():
            raise InvalidInput(
                f"pid {process.pid} ({identity.name}) is a kernel thread: it has no memory of its own",
                hint="name a program",
            )
        lock = WatchLock(process.pid, identity.start_time_ticks)
        stack.callback(lock.close)
        probe = PROBES[way.probe](process) if way.probe else None
        census = CENSUS_PROBES[way.probe](process) if way.probe in CENSUS_PROBES else None
        actor = self._actor_of(process)
        for part in (probe, census, actor):
            if part is not None:
                stack.callback(part.close)
        ranges = {one for selector in self._selectors if selector.label in labels for one in selector.ranges}
        return Watched(
            TargetInfo(process.pid, identity.name, identity.start_time_s, labels),
            probe,
            census,
            actor,
            KernelWatched(process, labels=labels, ranges=tuple(sorted(ranges))),
        )


class PhysicalMemory:
    """All memory of the host in place of processes; it neither comes nor goes."""

    def __init__(self, selectors: Sequence[TargetSelector]) -> None:
        self._selectors = selectors

    def open_all(self) -> list[Watched]:
        ranges = sorted({one for selector in self._selectors for one in selector.ranges})
        labels = tuple(dict.fromkeys(selector.label for selector in self._selectors))
        kernel = KernelWatched(None, labels=labels, ranges=tuple(ranges))
        return [Watched(TargetInfo(0, PHYSICAL, labels=labels), None, kernel=kernel)]

    def changes(self) -> Changes:
        return Changes()

    def close(self) -> None:
        """Nothing is held."""
