"""Windows by the kernel's own DAMON: it samples, and schemes that it can carry out are handed down to it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np

from memtherm.core.age_resets import AgeResets
from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.protocols import Clock
from memtherm.core.ranges import Addresses
from memtherm.core.report import SchemeReport
from memtherm.core.snapshot import Conditions, Regions
from memtherm.core.tuning import access_score, tuned_interval_s
from memtherm.errors import HostCannot, NotSupported, TargetBusy, TargetGone
from memtherm.kdamond.aggregated import KernelWindow
from memtherm.kdamond.control import RunningKdamond, start
from memtherm.kdamond.features import Feature
from memtherm.kdamond.hand_down import Situation
from memtherm.kdamond.parameters import (
    Context,
    Intervals,
    IntervalsGoal,
    Kdamond,
    KernelScheme,
    KernelTarget,
    Operations,
)
from memtherm.kdamond.tree import ONCE, OwnershipLost
from memtherm.linux.page_table import read_ram
from memtherm.linux.process import Process
from memtherm.session.kernel_schemes import KernelSchemes
from memtherm.session.window_source import AskedWindows, TracedWindows
from memtherm.session.windows import Between, Stopped, Windows

_BASIS_POINTS = 10_000
_LONGEST_SLEEP_S = 0.2
# Regions of a window that were not read yet: more than this, and their reader is given up.
_MAX_WAITING = 256
_REVIEW_EVERY_S = 1.0
# After so long without a window somebody may have stopped the kdamond; while windows come, nothing is asked.
_SILENT_S = 1.0
_NO_REGIONS = Regions(
    target=np.zeros(0, np.int32),
    start=np.zeros(0, np.uint64),
    end=np.zeros(0, np.uint64),
    nr_accesses=np.zeros(0, np.int64),
    access_rate=np.zeros(0),
    age_s=np.zeros(0),
    rate_error=np.zeros(0),
)


class KernelWatched:
    """One target as the kernel watches it: a process, or physical memory where there is none.

    Attributes:
        labels: by which policies mean it.
        generation: how often it has replaced its memory by exec.
        ranges: only these addresses; empty for all.
    """

    def __init__(
        self, process: Process | None, *, labels: tuple[str, ...] = (), ranges: tuple[tuple[int, int], ...] = ()
    ) -> None:
        self.process = process
        self.labels = labels
        self.ranges = ranges
        self.generation = 0
        self._memory_tag = self._read_tag()

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    def is_alive(self) -> bool:
        return self.process is None or self.process.is_alive()

    def notice_exec(self) -> None:
        """Count an exec since the last time."""
        tag = self._read_tag()
        if tag != self._memory_tag and tag:
            self._memory_tag = tag
            self.generation += 1

    def close(self) -> None:
        """Nothing is held."""

    def _read_tag(self) -> bytes:
        # It holds the address of random bytes that the kernel puts on each new stack.
        with suppress(TargetGone, HostCannot):
            return self.process.read_file("auxv") if self.process is not None else b""
        return b""


class KdamondWindows(Windows[KernelWatched]):
    """Listens to a kdamond of ours.

    Raises HostCannot where DAMON cannot be had: somebody else has it, or it lacks what is asked for.
    """

    method = "kdamond"

    def __init__(
        self,
        targets: Mapping[int, KernelWatched],
        *,
        names: Mapping[int, str],
        attributes: MonitoringAttributes,
        clock: Clock,
        schemes: KernelSchemes,
    ) -> None:
        super().__init__(targets, names=names, clock=clock)
        self._attributes = attributes
        self._schemes = schemes
        self._resets = AgeResets()
        self._waiting: deque[KernelWindow] = deque()
        self._regions = _NO_REGIONS
        self._review_due_s = 0.0
        self._check_due_s = 0.0
        self._thread = 0
        self._order: list[int] = []
        self._is_changed = False
        self._tunes_itself = attributes.interval_goal is not None
        self._windows_to_tuning = 0
        # As the kernel was told, and as it has fitted them since.
        self._told_intervals = self._intervals = self._first_intervals()
        self._dropped = 0
        self._kdamond: RunningKdamond | None = None
        self._source: TracedWindows | AskedWindows | None = None
        self._begin()

    @property
    def handed_down(self) -> frozenset[str]:  # type: ignore[override]  # decided anew with each commit
        return self._schemes.handed_down

    def take(self, stopped: Stopped, between: Between) -> bool:
        """As in `Windows`.  Raises HostCannot where somebody else has stopped the kdamond, or removed it."""
        self._acting_cpu_s = 0.0
        while self._probes and not self._waiting and not stopped():
            self._notice_ends()
            if self._is_changed or self._must_review():
                self._commit()
            self._clock.sleep(min(_LONGEST_SLEEP_S, self._intervals.aggregation_interval_s / 2))
            self._listen()
            self._check_kdamond()
            self._pause(between)
        if not self._waiting:
            return False
        self._take_window(self._waiting.popleft())
        return True

    def regions(self) -> Regions:
        return self._resets.laid_over(self._regions, self._clock.monotonic_s())

    def reset_age(self, target: int, start: Addresses, end: Addresses) -> None:
        self._resets.note(target, start, end, self._clock.monotonic_s())

    def conditions(self) -> Conditions:
        intervals = self._intervals
        return Conditions(
            method=self.method,
            probe="kdamond",
            clearing="kernel",
            grain="page",
            sampling_interval_s=intervals.sampling_interval_s,
            aggregation_interval_s=intervals.aggregation_interval_s,
            samples=intervals.samples_per_window,
        )

    def handed_down_reports(self) -> tuple[SchemeReport, ...]:
        return self._schemes.reports(self._kdamond, self.regions())

    def add(self, target: int, probe: KernelWatched, *, name: str) -> None:
        super().add(target, probe, name=name)
        self._is_changed = True

    def remove(self, target: int) -> None:
        one = self._probes.get(target)
        super().remove(target)
        self._resets.forget(target)
        if one is not None and one.is_alive():
            self._is_changed = True  # the kernel must not go on with it

    def close(self) -> None:
        """Stop the kdamond, and give its directory back."""
        source, self._source = self._source, None
        kdamond, self._kdamond = self._kdamond, None
        try:
            if source is not None:
                source.close()
            self._schemes.close()
        finally:
            if kdamond is not None:
                self.events += kdamond.close()

    def _must_review(self) -> bool:
        """Whether schemes, or their guards, say something else than the kernel was told; asked once a second."""
        now_s = self._clock.monotonic_s()
        if now_s < self._review_due_s:
            return False
        self._review_due_s = now_s + _REVIEW_EVERY_S
        return self._schemes.is_changed(self._situation())

    # --- the kdamond ---------------------------------------------------------------------------

    def _begin(self) -> None:
        self._order = list(self._probes)
        try:
            self._kdamond = self._started()
            thread = self._kdamond.thread()
            if thread is None:
                raise TargetGone("all targets exited before they could be watched")
            self._thread = thread
            self._check_due_s = self._clock.monotonic_s() + _SILENT_S
            self._source = self._find_source(self._kdamond, thread)
            self._schemes.follow(thread)
            self._commit()
        except BaseException:
            self.close()
            raise

    def _started(self) -> RunningKdamond:
        try:
            return start(self._parameters())
        except NotSupported:
            if not self._told_intervals.goal.windows:
                raise
            # Before Linux 6.15 intervals do not tune themselves: then it is done here.
            self._tunes_itself = False
            self._told_intervals = self._intervals = replace(self._told_intervals, goal=IntervalsGoal())
            return start(self._parameters())

    def _find_source(self, kdamond: RunningKdamond, thread: int) -> TracedWindows | AskedWindows:
        try:
            return TracedWindows(
                thread=thread, nr_targets=len(self._order), max_nr_regions=self._attributes.max_nr_regions
            )
        except NotSupported as problem:
            self.events.append(f"windows are asked for one by one, and some are missed: {problem} ({problem.hint})")
            return AskedWindows(kdamond, interval_s=self._intervals.aggregation_interval_s)

    def _first_intervals(self) -> Intervals:
        attributes, goal = self._attributes, self._attributes.interval_goal
        kernel_goal = IntervalsGoal()
        if goal is not None:
            kernel_goal = IntervalsGoal(
                access_bp=round(goal.access_rate * _BASIS_POINTS),
                windows=goal.windows,
                min_sampling_interval_s=goal.min_sampling_interval_s,
                max_sampling_interval_s=goal.max_sampling_interval_s,
            )
            self._windows_to_tuning = goal.windows
        return Intervals(
            sampling_interval_s=attributes.sampling_interval_s,
            aggregation_interval_s=attributes.aggregation_interval_s,
            regions_update_interval_s=attributes.regions_update_interval_s,
            goal=kernel_goal,
        )

    def _parameters(self, *, obsolete: frozenset[int] = frozenset()) -> Kdamond:
        """All that the kdamond is told; `obsolete` targets are still in the order."""
        probes = self._probes
        targets = tuple(
            KernelTarget(is_obsolete=True)
            if target in obsolete
            else KernelTarget(pid=probes[target].pid, regions=self._ranges_of(probes[target]))
            for target in self._order
        )
        operations = self._operations
        schemes: tuple[KernelScheme, ...] = ()
        if self._kdamond is not None and self._source is not None:
            # The kernel counts targets without the obsolete ones when it judges schemes anew.
            left = [target for target in self._order if target not in obsolete]
            own = self._source.schemes(len(left))
            schemes = own + self._schemes.plan(
                self._situation(), [self._probes[target] for target in left], first=len(own)
            )
        return Kdamond(
            context=Context(
                operations=operations,
                intervals=self._told_intervals,
                min_nr_regions=self._attributes.min_nr_regions,
                max_nr_regions=self._attributes.max_nr_regions,
                targets=targets,
                schemes=schemes,
            )
        )

    def _situation(self) -> Situation:
        assert self._kdamond is not None
        return Situation(operations=self._operations, features=self._kdamond.features, intervals=self._intervals)

    @property
    def _operations(self) -> Operations:
        probes = self._probes.values()
        if any(one.process is None for one in probes):
            return Operations.PADDR
        return Operations.FVADDR if any(one.ranges for one in probes) else Operations.VADDR

    def _ranges_of(self, one: KernelWatched) -> tuple[tuple[int, int], ...]:
        if one.process is None and not one.ranges:
            return tuple(read_ram())
        return one.ranges

    def _commit(self) -> None:
        """Tell the kdamond what has changed: targets, schemes, intervals."""
        assert self._kdamond is not None
        self._is_changed = False
        gone = frozenset(self._order) - self._probes.keys()
        if gone and not self._kdamond.features.has(Feature.OBSOLETE_TARGET):
            self._begin_again("a target is to be left out, and this kernel can do that only with a new kdamond")
            return
        self._listen()  # by the old numbers of the targets
        self._order += [target for target in self._probes if target not in self._order]
        parameters = self._parameters(obsolete=gone)
        if parameters != self._kdamond.parameters:
            try:
                self._kdamond.commit(parameters)
            except TargetGone:
                self._notice_ends()
                self._is_changed = bool(self._probes)
                return
        self._order = [target for target in self._order if target not in gone]
        self._tell()

    def _check_kdamond(self) -> None:
        """After a second of silence, and each second of it: whether the kdamond still runs that we have started.

        It ends by itself once all targets that it knows have exited; then it is begun again for those that came since.
        What somebody else has stopped is not started again.

        Raises HostCannot.
        """
        now_s = self._clock.monotonic_s()
        if self._waiting or self._kdamond is None:
            self._check_due_s = now_s + _SILENT_S
        if now_s < self._check_due_s or self._kdamond is None:
            return
        self._check_due_s = now_s + _SILENT_S
        try:
            if self._kdamond.thread(patience=ONCE) == self._thread:
                return
        except OwnershipLost:
            raise
        except TargetBusy:  # a neighbour's command holds the kernel's lock
            return
        if self._kdamond.has_living_targets():
            raise HostCannot(
                f"kdamond {self._kdamond.index} was stopped by somebody else",
                hint="see `memtherm kernel status` for who uses DAMON, or take another method",
            )
        self._notice_ends()
        if self._probes:
            self._begin_again("the targets that were there at first have exited")

    def _begin_again(self, reason: str) -> None:
        self.events.append(f"watched from new: {reason}")
        self.close()
        self._waiting.clear()
        self._begin()

    def _tell(self) -> None:
        assert self._kdamond is not None
        self.events += self._kdamond.events
        self._kdamond.events.clear()
        self.events += self._schemes.take_events()

    # --- windows -------------------------------------------------------------------------------

    def _notice_ends(self) -> None:
        """Targets that have exited: the kernel keeps them, and finds no accesses."""
        for target, one in list(self._probes.items()):
            if not one.is_alive():
                self.gone[target] = f"{self._names[target]} has exited"
                self._probes.pop(target)

    def _listen(self) -> None:
        if self._source is None:
            return
        self._waiting += self._source.read()
        while len(self._waiting) > _MAX_WAITING:
            self._waiting.popleft()
            self._dropped += 1
        self._dropped += self._source.take_dropped()
        if self._dropped:
            self.events.append(f"{self._dropped} windows of the kernel were lost: this host was too busy to read them")
            self._dropped = 0

    def _take_window(self, window: KernelWindow) -> None:
        for target, one in self._probes.items():
            one.notice_exec()
            if self._has_new_memory(target, one):
                self._resets.forget(target)
        intervals = self._intervals
        found = window.regions.in_absolute_units(
            samples=intervals.samples_per_window, aggregation_interval_s=intervals.aggregation_interval_s
        )
        order = np.array([*self._order, -1], np.int32)
        numbers = order[np.minimum(found.target, len(self._order))]
        self._regions = replace(found, target=numbers).take(np.isin(numbers, list(self._probes)))
        self.ended_s = self._clock.epoch_s() - max(0.0, time.monotonic() - window.time_ns / 1e9)
        self._schemes.look(self.regions(), self._situation(), self._order)
        self.events += self._schemes.take_events()
        self._tune(window)

    def _tune(self, window: KernelWindow) -> None:
        """Learn how the kernel has fitted the intervals, or fit them where it does not."""
        goal = self._attributes.interval_goal
        if goal is None or self._kdamond is None:
            return
        self._windows_to_tuning -= 1
        if self._windows_to_tuning > 0:
            return
        self._windows_to_tuning = goal.windows
        if self._tunes_itself:
            with suppress(TargetGone, HostCannot):  # it has ended, or is busy: the next window tells, or its absence
                self._intervals = self._kdamond.tuned_intervals()
            return
        regions, samples = window.regions, self._intervals.samples_per_window
        size = (regions.end - regions.start).astype(np.int64)
        score = access_score(
            events=int((size * regions.nr_accesses).sum()), max_events=int(size.sum()) * samples, goal=goal.access_rate
        )
        sampling_s = tuned_interval_s(
            self._intervals.sampling_interval_s,
            score=score,
            minimum_s=goal.min_sampling_interval_s,
            maximum_s=goal.max_sampling_interval_s,
        )
        if sampling_s != self._intervals.sampling_interval_s:
            self._told_intervals = self._intervals = replace(
                self._intervals, sampling_interval_s=sampling_s, aggregation_interval_s=sampling_s * samples
            )
            self._is_changed = True
