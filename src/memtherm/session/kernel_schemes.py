"""The schemes that a kdamond carries out for us: which, what guards make of them, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from memtherm.core.guard import GuardSettings
from memtherm.core.ranges import join_adjacent
from memtherm.core.report import QuotaReport, SchemeReport
from memtherm.core.scheme import Action, Scheme, SchemeStatistics
from memtherm.core.snapshot import Regions
from memtherm.errors import HostCannot, NotSupported, TargetGone
from memtherm.kdamond.control import KernelStatistics, RunningKdamond
from memtherm.kdamond.features import Feature
from memtherm.kdamond.hand_down import Situation, hand_down
from memtherm.kdamond.parameters import (
    KernelBounds,
    KernelFilter,
    KernelFilterKind,
    KernelScheme,
    KernelWatermarkMetric,
    Operations,
)
from memtherm.kdamond.tried_stream import TriedStream
from memtherm.linux.process import Process
from memtherm.session.kernel_guards import KernelGuards, watches_refaults, why_not_without_swap
from memtherm.session.windows import concatenated

# Fits no region: a scheme that rests keeps its place, because the kernel knows schemes by their number.
_NOTHING = KernelBounds(0, 0)
# More filters than this, and the kernel would compare every region with all of them.
_MOST_KEPT_RANGES = 64
# Nobody but the kernel acts on physical memory.
NOWHERE = "nowhere"
_LIMITED = (Action.PAGEOUT, Action.WILLNEED, Action.COLLAPSE, Action.MIGRATE_HOT, Action.MIGRATE_COLD)


class KernelTarget(Protocol):
    """What is asked of a target here; `process` is None of physical memory."""

    @property
    def process(self) -> Process | None: ...

    @property
    def labels(self) -> tuple[str, ...]: ...


@dataclass
class _Slot:
    """One place in the kernel's list of schemes, which stays that scheme's as long as the kdamond runs.

    Attributes:
        rests: why it does nothing at present; empty where it may act.
        is_handed: false where it runs in user space by now.
        seen: the kernel's statistics when they were read last.
        total: what it did, as we tell it.
        tried: regions since the last report.
    """

    scheme: Scheme
    rests: str = ""
    is_handed: bool = True
    seen: KernelStatistics | None = None
    total: SchemeStatistics = field(default_factory=SchemeStatistics)
    tried: list[Regions] = field(default_factory=list)


class KernelSchemes:
    """Decides what is handed down, anew whenever something that it hangs on has changed.

    Args:
        wanted: the schemes of the policy as they are now.
        user_input: present values of `user_input` goals, by the scheme's name.
        apply: without it the kernel only counts what it is handed, and is handed schemes of physical memory alone,
            for which there is no dry run in user space.

    Attributes:
        handed_down: names of the schemes that the kernel has now.
    """

    def __init__(
        self,
        wanted: Callable[[], tuple[Scheme, ...]],
        *,
        user_input: Mapping[str, float],
        settings: GuardSettings,
        apply: bool,
    ) -> None:
        self._wanted = wanted
        self._user_input = user_input
        self._settings = settings
        self._apply = apply
        self._guards = KernelGuards(settings)
        self._slots: list[_Slot] = []
        self._first = 0
        self._targets: list[KernelTarget] = []
        self._planned: tuple[KernelScheme, ...] = ()
        self._where: dict[str, str] = {}
        self._events: list[str] = []
        self._thread: int | None = None
        self._tried: TriedStream | None = None
        self._deaf = "its trace events are not listened to"
        self._used: dict[Process, tuple[int, int]] = {}
        self.handed_down: frozenset[str] = frozenset()

    def follow(self, thread: int) -> None:
        """A kdamond has begun; its statistics are all 0."""
        for slot in self._slots:
            slot.seen = None
        self._thread = thread
        self._hear()

    def close(self) -> None:
        """The kdamond has ended.  Totals stay."""
        if self._tried is not None:
            self._tried.close()
            self._tried = None
        self._thread = None
        self._guards.close()

    def plan(
        self, situation: Situation, targets: Sequence[KernelTarget], *, first: int = 0
    ) -> tuple[KernelScheme, ...]:
        """The kernel's list of schemes now, for these targets in the order of the context.

        Args:
            first: schemes of others come before ours in the kernel's list.
        """
        self._first = first
        self._targets = list(targets)
        self._guards.follow(targets)
        self._left_bytes(begin=True)
        self._planned = self._plan(situation)
        return self._planned

    def is_changed(self, situation: Situation) -> bool:
        """Whether what was planned last is no longer right: another policy, a guard, other ranges to keep from."""
        return bool(self._wanted() or self._slots) and self._plan(situation) != self._planned

    def take_events(self) -> list[str]:
        """What has changed since this was asked last, in sentences."""
        events, self._events = self._events, []
        return events

    # --- what is handed down -------------------------------------------------------------------

    def _hear(self) -> None:
        """Listen to what schemes are tried on, from when there is one; asked once a kdamond."""
        if self._thread is None or self._tried is not None or not self._wanted():
            return
        try:
            self._tried = TriedStream(kdamond_pid=self._thread)
        except NotSupported as problem:
            self._deaf = str(problem)
        self._thread = None

    def _plan(self, situation: Situation) -> tuple[KernelScheme, ...]:
        self._hear()
        situation = replace(
            situation,
            labels={index: one.labels for index, one in enumerate(self._targets)},
            user_input=self._user_input,
        )
        decided = {scheme.name: (scheme, self._decide(scheme, situation)) for scheme in self._wanted()}
        elsewhere = "in user space" if situation.operations is not Operations.PADDR else NOWHERE
        self._tell_where(
            {
                name: f"{elsewhere}: {what}" if isinstance(what, str) else "in the kernel"
                for name, (_, what) in decided.items()
            }
        )
        known = {slot.scheme.name: slot for slot in self._slots}
        for name, (scheme, what) in decided.items():
            if isinstance(what, KernelScheme) and name not in known:
                known[name] = _Slot(scheme)
                self._slots.append(known[name])
        schemes = []
        for slot in self._slots:
            scheme, what = decided.get(slot.scheme.name, (slot.scheme, "no longer in the policy"))
            slot.scheme = scheme
            slot.is_handed = isinstance(what, KernelScheme)
            if isinstance(what, KernelScheme):
                slot.rests = self._guards.why_stopped(scheme.action)
            does_nothing = not isinstance(what, KernelScheme) or bool(slot.rests)
            kernel = what if isinstance(what, KernelScheme) else KernelScheme(action=Action.STAT)
            schemes.append(replace(kernel, size_bytes=_NOTHING) if does_nothing else kernel)
        self.handed_down = frozenset(slot.scheme.name for slot in self._slots if slot.is_handed)
        if any(one.watermarks.metric is not KernelWatermarkMetric.NONE for one in schemes):
            # Where all schemes rest, the kernel stops to watch (damon-spec §2.8); this one never does.
            schemes.append(KernelScheme())
        return tuple(schemes)

    def _decide(self, scheme: Scheme, situation: Situation) -> KernelScheme | str:
        """The kernel's scheme, or why it runs in user space."""
        is_physical = situation.operations is Operations.PADDR
        if not self._apply and not is_physical:
            return "a dry run is done in user space"
        if not is_physical and (reason := why_not_without_swap(scheme.action)):
            return reason
        if not is_physical and self._tried is None and watches_refaults(scheme.action, self._settings):
            return f"the refault guard could not see what the kernel pages out: {self._deaf}"
        kept_from = self._guards.kept_from(scheme.action)
        if len(kept_from) > _MOST_KEPT_RANGES:
            return f"guards keep {len(kept_from)} ranges from it, and the kernel would compare each region with all"
        if scheme.quota.is_set and self._apply and Feature.CORE_FILTERS in situation.features.present:
            kept_from = (*kept_from, *self._guards.empty(scheme.action, most=_MOST_KEPT_RANGES - len(kept_from)))
        kernel = hand_down(scheme, replace(situation, kept_from=kept_from))
        if isinstance(kernel, str):
            return kernel
        if not self._apply:
            return replace(kernel, action=Action.STAT, destinations=(), target_node=-1)
        return self._limited(self._without_refused_targets(kernel))

    def _without_refused_targets(self, kernel: KernelScheme) -> KernelScheme:
        if kernel.action is Action.STAT:
            return kernel
        refused = tuple(
            KernelFilter(kind=KernelFilterKind.TARGET, matching=True, target=index)
            for index, target in enumerate(self._targets)
            if self._guards.refusal(target)
        )
        return replace(kernel, core_filters=refused + kernel.core_filters)

    def _limited(self, kernel: KernelScheme) -> KernelScheme:
        """With the rate limit of the guards as a quota, or within the one that it has."""
        limit = self._settings.max_bytes_per_s
        if kernel.action not in _LIMITED or not limit:
            return kernel
        quota = kernel.quota
        interval_s = quota.reset_interval_s or 1.0
        most = int(limit * interval_s)
        size = min(quota.size_bytes, most) if quota.size_bytes else most
        return replace(kernel, quota=replace(quota, size_bytes=size, reset_interval_s=interval_s))

    def _tell_where(self, where: Mapping[str, str]) -> None:
        for name, place in where.items():
            if self._where.get(name) != place:
                self._events.append(f'scheme "{name}" runs {place}')
        self._where = dict(where)

    # --- what came of it -----------------------------------------------------------------------

    def look(self, regions: Regions, situation: Situation, order: Sequence[int]) -> None:
        """After a window: learn what the kernel has tried since, for guards and reports.

        Args:
            order: for each target of the context its number in the session.
        """
        self._guards.working_set_bytes = int(regions.size_bytes[regions.access_rate > 0].sum())
        if self._tried is None:
            return
        found = self._tried.read()
        if found.lost_events:
            self._events.append(
                f"{found.lost_events} of the kernel's events on what schemes were tried on were lost: "
                "the refault guard does not know these regions, and tried regions lack them"
            )
        intervals = situation.intervals
        tried = found.regions.in_absolute_units(
            samples=intervals.samples_per_window, aggregation_interval_s=intervals.aggregation_interval_s
        )
        for index in np.unique(found.scheme).tolist():
            number = index - self._first
            if not 0 <= number < len(self._slots):
                continue
            mine = tried.take(found.scheme == index)
            slot = self._slots[number]
            if slot.scheme.action is Action.PAGEOUT and self._apply:
                self._note_paged_out(mine)
            numbers = np.array([*order, -1], np.int32)
            slot.tried.append(replace(mine, target=numbers[np.minimum(mine.target, len(order))]))

    def _note_paged_out(self, tried: Regions) -> None:
        for target in np.unique(tried.target).tolist():
            if target < len(self._targets):
                mine = tried.take(tried.target == target)
                self._guards.note_paged_out(self._targets[target], *join_adjacent(mine.start, mine.end))

    def reports(self, kdamond: RunningKdamond | None, regions: Regions) -> tuple[SchemeReport, ...]:
        """What each scheme that the kernel has did since this was asked last; nothing while the kernel is busy."""
        counted: Sequence[KernelStatistics | None] = [None] * len(self._slots)
        effective: Sequence[int] = ()
        if kdamond is not None and self._slots:
            try:
                counted = kdamond.statistics()[self._first :]
                if kdamond.features.has(Feature.EFFECTIVE_BYTES):
                    effective = kdamond.effective_quotas()[self._first :]
            except (TargetGone, HostCannot):
                counted, effective = [None] * len(self._slots), ()
        left_bytes = self._left_bytes()
        reports = []
        for index, slot in enumerate(self._slots):
            report = self._report(slot, counted[index], regions, left_bytes)
            if slot.is_handed:
                quota = QuotaReport(effective[index], min(report.tried_bytes, effective[index])) if effective else None
                reports.append(replace(report, quota=quota if slot.scheme.quota.is_set else None))
        return tuple(reports)

    def _report(self, slot: _Slot, counted: KernelStatistics | None, regions: Regions, left_bytes: int) -> SchemeReport:
        seen, slot.seen = slot.seen, counted or slot.seen
        tried_bytes = _since(counted, seen, "tried_bytes")
        applied_bytes = _since(counted, seen, "applied_bytes")
        is_verified = slot.scheme.action is Action.PAGEOUT and any(one.process is not None for one in self._targets)
        if is_verified:
            # madvise says that all was done as soon as nothing failed (damon-spec §2.4).
            applied_bytes = min(applied_bytes, left_bytes)
        if not self._apply or slot.scheme.action is Action.STAT:
            applied_bytes = 0
        slot.total = _added(slot.total, counted, seen, tried_bytes, applied_bytes)
        tried, slot.tried = slot.tried, []
        return SchemeReport(
            name=slot.scheme.name,
            action=slot.scheme.action,
            matched_bytes=self._matched_bytes(slot.scheme, regions),
            tried_bytes=tried_bytes,
            applied_bytes=applied_bytes,
            refused=(),
            total=slot.total,
            is_active=not slot.rests,
            state=slot.rests or self._where_words(is_verified=is_verified),
            tried=_joined(tried),
        )

    def _where_words(self, *, is_verified: bool) -> str:
        if not self._apply:
            return "dry run: the kernel counts what it would try"
        return "runs in the kernel" + ("" if is_verified else ", whose own count is what was applied")

    def _matched_bytes(self, scheme: Scheme, regions: Regions) -> int:
        return int(regions.size_bytes[scheme.pattern.matches(regions)].sum())

    def _left_bytes(self, *, begin: bool = False) -> int:
        """Memory that has left the targets since this was asked last: into swap, or back to files.

        Args:
            begin: only note what new targets have now.
        """
        left = 0
        for target in self._targets:
            process = target.process
            if process is None or (begin and process in self._used):
                continue
            try:
                swap_bytes, file_bytes = process.swap_bytes(), process.resident_file_bytes()
            except (TargetGone, HostCannot):
                continue
            before = self._used.get(process, (swap_bytes, file_bytes))
            left += max(0, swap_bytes - before[0]) + max(0, before[1] - file_bytes)
            self._used[process] = (swap_bytes, file_bytes)
        return left


def _since(counted: KernelStatistics | None, seen: KernelStatistics | None, name: str) -> int:
    if counted is None:
        return 0
    return int(getattr(counted, name)) - (int(getattr(seen, name)) if seen is not None else 0)


def _added(
    total: SchemeStatistics,
    counted: KernelStatistics | None,
    seen: KernelStatistics | None,
    tried_bytes: int,
    applied_bytes: int,
) -> SchemeStatistics:
    snapshots = 0
    if counted is not None and counted.nr_snapshots is not None:
        snapshots = counted.nr_snapshots - (seen.nr_snapshots or 0 if seen is not None else 0)
    return replace(
        total,
        nr_tried=total.nr_tried + _since(counted, seen, "nr_tried"),
        tried_bytes=total.tried_bytes + tried_bytes,
        nr_applied=total.nr_applied + _since(counted, seen, "nr_applied"),
        applied_bytes=total.applied_bytes + applied_bytes,
        nr_quota_exceeded=total.nr_quota_exceeded + _since(counted, seen, "nr_quota_exceeded"),
        nr_snapshots=total.nr_snapshots + snapshots,
    )


def _joined(parts: Sequence[Regions]) -> Regions | None:
    return concatenated(list(parts)) if parts else None
