"""The schemes of a session: at each look those that are due plan, share out their quota, and have it done."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from memtherm.core.goals import GoalMetric
from memtherm.core.plan import Outcome, PlannedAction, ranges_to_reset
from memtherm.core.protocols import Accessed, Actor, Clock, Metrics
from memtherm.core.quota import QuotaState
from memtherm.core.ranges import Addresses, Counts
from memtherm.core.report import QuotaReport, SchemeReport, join_refusals
from memtherm.core.scheme import Scheme
from memtherm.core.scheme_state import Labels, SchemeState
from memtherm.core.snapshot import Regions
from memtherm.errors import HostCannot, TargetGone
from memtherm.session.windows import concatenated
from memtherm.units import PAGE_SIZE

# Looking up mappings and verifying effects takes 40 to 60 ms of CPU per GiB of a target.  After an apply the
# scheme waits this many times as long as that took: looking takes 5 % of a CPU at most, and 1 % where nothing
# comes of it, as in a dry run.  The action's own time is for the quota and the rate limit to bound.
_PAUSE_AFTER_EFFECT = 19
_PAUSE_AFTER_NONE = 99
# How the reasons of guards begin that hold for a while, and not for some memory only.
_BRAKES = ("stopped: ", "slowed down: ")


class Measured(Protocol):
    """What schemes decide on: the windows of a monitor."""

    @property
    def handed_down(self) -> frozenset[str]: ...

    def regions(self) -> Regions: ...

    def is_outdated(self, target: int) -> bool: ...

    def reset_age(self, target: int, start: Addresses, end: Addresses) -> None: ...

    def accessed(self, target: int) -> Accessed | None: ...


class SchemeRunner:
    """Lets schemes act, in their order.

    Args:
        metrics: measures goals and watermarks.

    Attributes:
        gone: targets that turned out to be gone, with the reason; the loop takes them out.
        user_input: values of goals that the user gives, by the name of the scheme.
    """

    def __init__(self, schemes: Sequence[Scheme], *, metrics: Metrics, clock: Clock) -> None:
        self._running = [_Running(scheme) for scheme in schemes]
        self._metrics = metrics
        self._clock = clock
        # Filled by other threads, and taken in between two applies.
        self._changes: deque[Callable[[], None]] = deque()
        self.gone: dict[int, str] = {}
        self.user_input: dict[str, float] = {}

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        return tuple(one.state.scheme for one in self._running)

    def replace(self, schemes: Sequence[Scheme]) -> None:
        """From the next apply on let these act; one with the name of an old one goes on with its state.

        May be called from any thread.
        """
        self._changes.append(lambda: self._replace_now(schemes))

    def apply(
        self, windows: Measured, actors: Mapping[int, Actor], labels: Labels, *, window_ended: bool, blocked: str = ""
    ) -> None:
        """Let those act that are due, but for those that whoever measures carries out himself.

        Args:
            actors, labels: of the targets that are there.
            window_ended: whether the regions are those of a whole window.
            blocked: why nothing may be done now, or an empty text.
        """
        self._take_in_changes()
        for one in self._running:
            if one.state.scheme.name in windows.handed_down:
                continue
            if window_ended:
                # Looked up for each: one before it in the list may have reset ages (damon-spec §2.3).
                one.matched_bytes = self._matched_bytes(one.state, windows, labels)
            if one.state.is_due(self._clock.monotonic_s(), window_ended=window_ended):
                one.why = blocked or self._apply_one(one, windows, actors, labels)

    @property
    def acts_between_windows(self) -> bool:
        return any(one.state.scheme.apply_interval_s is not None for one in self._running)

    def reports(self) -> tuple[SchemeReport, ...]:
        """What each scheme did since this was asked last; to be asked after the apply at the end of a window."""
        return tuple(one.report() for one in self._running)

    def _replace_now(self, schemes: Sequence[Scheme]) -> None:
        old = {one.state.scheme.name: one for one in self._running}
        running = []
        for scheme in schemes:
            one = old.get(scheme.name)
            if one is None:
                one = _Running(scheme)
            else:
                one.state.replace(scheme)
            running.append(one)
        # Others read this at any time: it is exchanged as a whole.
        self._running = running

    def _take_in_changes(self) -> None:
        while self._changes:
            self._changes.popleft()()

    def _matched_bytes(self, state: SchemeState, windows: Measured, labels: Labels) -> int:
        """Address space that fits the pattern, of the targets whose numbers hold."""
        regions = windows.regions()
        fits = state.matches(regions, labels)
        for target in np.unique(regions.target).tolist():
            if target in self.gone or windows.is_outdated(target):
                fits &= regions.target != target
        return int(regions.size_bytes[fits].sum())

    def _apply_one(self, one: "_Running", windows: Measured, actors: Mapping[int, Actor], labels: Labels) -> str:
        """One apply.  Returns why it did not act, or could not do more; or an empty text."""
        state, began_s, began_cpu_s = one.state, self._clock.monotonic_s(), self._clock.cpu_s()
        if why := self._why_not_now(one, began_s):
            state.postpone(began_s)
            return why
        regions = windows.regions()
        planned = [
            plan
            for plan in state.plan(regions, labels)
            if plan.target in actors and plan.target not in self.gone and not windows.is_outdated(plan.target)
        ]
        applied_bytes, action_s = self._carry_out(one, regions, planned, actors, windows)
        now_s = self._clock.monotonic_s()
        state.finish(now_s)
        pause = _PAUSE_AFTER_EFFECT if applied_bytes else _PAUSE_AFTER_NONE
        one.not_before_s = now_s + pause * max(0.0, self._clock.cpu_s() - began_cpu_s - action_s)
        return one.brake or _quota_words(state.quota)

    def _why_not_now(self, one: "_Running", now_s: float) -> str:
        state = one.state
        if state.is_finished:
            return f"finished after {state.statistics.nr_snapshots} applies"
        try:
            if state.watermarks is not None:
                if state.watermarks.is_due(now_s):
                    state.watermarks.update(self._metrics.watermark_value(state.watermarks.watermarks.metric), now_s)
                if why := state.watermarks.why_inactive:
                    return f"rests: {why}"
            if state.quota.quota.is_set and state.quota.window_has_ended(now_s):
                state.open_quota_window(now_s, self._goal_values(state.scheme))
        except (HostCannot, TargetGone) as problem:
            return f"stopped: {problem}"
        if now_s < one.not_before_s:
            return one.brake or "waits, so that looking takes no more than its share of the time"
        return _quota_words(state.quota)

    def _goal_values(self, scheme: Scheme) -> list[float]:
        return [
            self.user_input.get(scheme.name, 0.0)
            if goal.metric is GoalMetric.USER_INPUT
            else self._metrics.goal_value(goal)
            for goal in scheme.quota.goals
        ]

    def _carry_out(
        self,
        one: "_Running",
        regions: Regions,
        planned: Sequence[PlannedAction],
        actors: Mapping[int, Actor],
        windows: Measured,
    ) -> tuple[int, float]:
        """Bytes that were applied, and the time of the action itself."""
        possible: list[tuple[PlannedAction, Counts]] = []
        for plan in planned:
            try:
                possible.append((plan, actors[plan.target].examine(plan, windows.accessed(plan.target))))
            except TargetGone as problem:
                self.gone[plan.target] = str(problem)
        applied_bytes, action_s = 0, 0.0
        one.brake = ""
        shares = one.state.share(regions, [plan for plan, _ in possible], [counts for _, counts in possible])
        for (plan, _), allowed in zip(possible, shares, strict=True):
            try:
                outcome = actors[plan.target].carry_out(allowed)
            except TargetGone as problem:
                self.gone[plan.target] = str(problem)
                continue
            one.state.charge(plan, allowed, outcome)
            one.note(regions, plan, outcome)
            applied_bytes += outcome.applied_bytes
            action_s += outcome.action_s
            windows.reset_age(plan.target, *ranges_to_reset(plan, outcome))
        return applied_bytes, action_s


class _Running:
    """A scheme with what it did since the last report."""

    def __init__(self, scheme: Scheme) -> None:
        self.state = SchemeState(scheme)
        self.not_before_s = float("-inf")
        self.why = ""
        self.brake = ""
        self.matched_bytes = 0
        self._outcomes: list[Outcome] = []
        self._tried: list[Regions] = []

    def note(self, regions: Regions, planned: PlannedAction, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        reasons = [refusal.reason for refusal in outcome.refused]
        self.brake = next((reason for reason in reasons if reason.startswith(_BRAKES)), self.brake)
        tried = outcome.reached > planned.start
        part = regions.take(planned.rows[tried])
        self._tried.append(replace(part, start=planned.start[tried], end=outcome.reached[tried]))

    def report(self) -> SchemeReport:
        state, outcomes, tried = self.state, self._outcomes, self._tried
        self._outcomes, self._tried = [], []
        quota = state.quota
        return SchemeReport(
            name=state.scheme.name,
            action=state.scheme.action,
            matched_bytes=self.matched_bytes,
            tried_bytes=sum(outcome.tried_bytes for outcome in outcomes),
            applied_bytes=sum(outcome.applied_bytes for outcome in outcomes),
            refused=join_refusals(outcomes),
            filtered_bytes=sum(outcome.filtered_bytes for outcome in outcomes),
            total=state.statistics,
            is_active=state.is_active,
            state=self.why,
            quota=QuotaReport(quota.effective_bytes, quota.charged_bytes, quota.goal_score)
            if quota.quota.is_set
            else None,
            free_memory=state.watermarks.value if state.watermarks else None,
            tried=concatenated(tried) if tried else None,
        )


def _quota_words(quota: QuotaState) -> str:
    """Why the quota lets no more be done now; or an empty text."""
    if not quota.is_full:
        return ""
    if quota.effective_bytes < PAGE_SIZE:
        return "its goals leave no room yet" if (quota.goal_score or 0) < 1 else "its goals are reached"
    return "the quota is used up"
