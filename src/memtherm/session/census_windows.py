"""Windows by census: look at every page, clear what was accessed, wait, look again."""

import math
from collections.abc import Mapping

import numpy as np

from memtherm.core.attributes import IntervalGoal, MonitoringAttributes
from memtherm.core.census import FULL_RATE, Census, PageBits, clear_ranges, page_count
from memtherm.core.condense import Runs
from memtherm.core.page_heat import PageHeat
from memtherm.core.protocols import Accessed, CensusProbe, Clock
from memtherm.core.ranges import Addresses, join_adjacent
from memtherm.core.snapshot import Conditions, Regions, rate_error
from memtherm.session.windows import Between, Stopped, Windows, concatenated, joined_names, stretched
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

# Looks of a window where intervals fit themselves: rates in steps of a fifth, and ages to within five looks.
_LOOKS = 5
# Where looks are far apart a window has fewer, so that it is not longer than this: schemes decide at its end.
_FEWEST_LOOKS = 2
_LONGEST_WINDOW_S = 10.0
# The interval is left alone until the needed one is this much longer, or less than half of it.
_ROOM = 1.25
# Above this share of memory that cannot be cleared page by page, clearing everything is worth its cost,
# where the target's own mmap waits no longer for it than this.
_TOO_MUCH_STUCK = 0.1
_LONGEST_STALL_S = 0.01
# Sharing and locking may end: what did not clear is tried again this often.
_RETRY_S = 60.0
# A call that clears few units costs more for each than one that clears many.
_ENOUGH_UNITS = 64
# What clearing a page's bit costs the target: the CPU has to set it again at the next access, and to walk the page
# table for that.  Measured with 512 MiB hot, a look each 1.2 s: passes took 3.8 % longer (a virtual machine).
_TARGET_S_PER_PAGE = 0.35e-6
# Where an access costs the target a fault (`target_s_per_page` of its probe), no more is cleared than the share bears,
# but for the first time: what was never cleared would look idle.  How many of the pages will be accessed again is
# taken from those that were cleared last, but for no less than this: so a mistake costs 8 times the share, once.
_FEWEST_RETURN = 0.125
# For the target's sake looks are no farther apart than this: longer windows would tell too little.
_LONGEST_FOR_TARGET_S = 2.0
# A look at the page table takes about as long as what follows it: counting, clearing, reading again.
COST_OF_LOOK = 3


class CensusWindows(Windows[CensusProbe]):
    """Every page is counted; the interval between looks follows what a look costs."""

    method = "census"

    def __init__(
        self,
        probes: Mapping[int, CensusProbe],
        *,
        names: Mapping[int, str],
        attributes: MonitoringAttributes,
        clock: Clock,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(probes, names=names, clock=clock)
        self._attributes = attributes
        self._rng = rng
        self._interval_s = attributes.sampling_interval_s
        self._nr_looks = _LOOKS if attributes.interval_goal else min(attributes.samples_per_window, FULL_RATE)
        self._budget = _Budget(attributes.interval_goal)
        self._window_s = 0.0
        self._census: dict[int, Census] = {}
        self._unseen: set[int] = set()
        self._update_at_s = clock.monotonic_s()
        self._retry_at_s = clock.monotonic_s() + _RETRY_S
        self._present_bytes: dict[int, int] = {}
        self._runs: dict[int, Runs] = {}
        self._last_look: dict[int, PageBits] = {}
        self._last_cleared: dict[int, PageBits] = {}
        for target in probes:
            self._begin(target)

    def take(self, stopped: Stopped, between: Between) -> bool:
        began_cpu_s = self._clock.cpu_s()
        self._late_looks, self._acting_cpu_s = 0, 0.0
        self._update_ranges()
        began_cpu_s += self._look_at_past()
        self._fit_interval()
        if self._attributes.interval_goal is not None:
            self._nr_looks = self._looks_of_next_window()
        deadline_s = self._clock.monotonic_s() + self._interval_s
        self._window_s = 0.0
        for _ in range(self._nr_looks):
            interval_s = self._interval_s
            deadline_s = self._wait(deadline_s, interval_s, stopped, between)
            if stopped() or not self._probes:
                return False
            self._window_s += interval_s
            look_cpu_s = self._clock.cpu_s()
            self._budget.open_look()
            self._each(self._look_at)
            self._shorten_interval(self._budget.close_look(self._clock.cpu_s() - look_cpu_s))
            deadline_s -= interval_s - self._interval_s
        now_s = self._clock.monotonic_s()
        for target in self._probes:
            self._census[target].close_window(now_s)
            self._runs[target] = self._current_runs(target)
        self._budget.close_window(self._clock.cpu_s() - began_cpu_s - self._acting_cpu_s, looks=self._nr_looks)
        self.needed_interval_s = self._budget.needed_interval_s
        return bool(self._probes)

    def regions(self) -> Regions:
        for target in self._probes:
            if target not in self._runs and target in self._census:
                self._runs[target] = self._current_runs(target)
        parts = [self._regions_of(target, self._runs[target]) for target in sorted(self._runs)]
        return concatenated([self._regions_of(0, Runs.empty()), *parts])

    def reset_age(self, target: int, start: Addresses, end: Addresses) -> None:
        if len(start):
            self._census[target].reset_age(start, end)
            # Schemes further down the list see the new ages.
            self._runs.pop(target, None)

    def accessed(self, target: int) -> Accessed:
        """What the last look found, before it cleared that, and what has been accessed since."""

        def ask() -> tuple[Addresses, Addresses]:
            looks = [self._probes[target].look(), *filter(None, (self._last_look.get(target),))]
            start, end = zip(*(clear_ranges(look, max_gap_pages=0) for look in looks), strict=True)
            return join_adjacent(np.concatenate(start), np.concatenate(end))

        return ask

    def heat(self, target: int) -> PageHeat | None:
        """Rates and ages of a target page by page, at the end of the last window; None once it is gone."""
        census = self._census.get(target)
        return None if census is None else census.heat()

    def add(self, target: int, probe: CensusProbe, *, name: str) -> None:
        super().add(target, probe, name=name)
        self._begin(target)
        self._update_at_s = self._clock.monotonic_s()

    def conditions(self) -> Conditions:
        present = sum(self._present_bytes[target] for target in self._probes)
        stuck = sum(self._census[target].stuck_bytes for target in self._probes)
        uncovered = [(runs.size_bytes * (1 - runs.coverage)).sum() for runs in self._runs.values()]
        total = sum(int(runs.size_bytes.sum()) for runs in self._runs.values())
        return Conditions(
            method=self.method,
            probe=joined_names({target: probe.name for target, probe in self._probes.items()}),
            clearing=joined_names({target: probe.clearing for target, probe in self._probes.items()}),
            # Of own memory a probe may see parts only (probe/own/parts.py).
            grain=joined_names({target: getattr(probe, "grain", "page") for target, probe in self._probes.items()}),
            sampling_interval_s=self._interval_s,
            aggregation_interval_s=self._window_s,
            samples=self._nr_looks,
            late_samples=self._late_looks,
            # After an exec in the middle of a window nothing may be present.
            unclear_share=min(1.0, stuck / present) if present else 0.0,
            uncovered_share=float(sum(uncovered)) / max(1, total),
        )

    def remove(self, target: int) -> None:
        super().remove(target)
        self._unseen.discard(target)
        for column in (self._census, self._runs, self._present_bytes, self._last_look, self._last_cleared):
            column.pop(target, None)

    def _looks_of_next_window(self) -> int:
        """Estimates from a share of the units need all looks; where each unit is counted, fewer tell enough."""
        if not self._budget.clears_all:
            return _LOOKS
        return min(max(int(_LONGEST_WINDOW_S / self._interval_s), _FEWEST_LOOKS), _LOOKS)

    def _current_runs(self, target: int) -> Runs:
        return self._census[target].runs(limit=self._max_nr_regions(), looks_of_window=self._nr_looks)

    def _max_nr_regions(self) -> int:
        return max(1, self._attributes.max_nr_regions // max(1, len(self._census)))

    def _begin(self, target: int) -> None:
        """Count the pages of a target from new."""
        self._census[target] = Census()
        self._census[target].start(self._clock.monotonic_s())
        self._unseen.add(target)

    def _look_at_past(self) -> float:
        """The first look at each target: all bits are of the past, and are cleared in one go.

        Returns its CPU time, which no budget counts: it is done once.
        """
        if not self._unseen:
            return 0.0
        began_cpu_s = self._clock.cpu_s()
        reading_s = self._each(lambda target, probe: self._look_at(target, probe) if target in self._unseen else 0.0)
        for target, swapped in self._each(
            lambda target, probe: probe.swapped() if target in self._unseen else None
        ).items():
            if swapped is not None:
                self._census[target].add_idle(swapped)
        for target in self._unseen:
            self._census[target].forget_looks()
        self._unseen.clear()
        self._budget.open_window()
        if not self._budget.needed_interval_s:
            self._budget.expect(sum(reading_s.values()) * COST_OF_LOOK)
        return self._clock.cpu_s() - began_cpu_s

    def _look_at(self, target: int, probe: CensusProbe) -> float:
        """One look at a target, and clearing; the CPU time of the look alone."""
        census = self._census[target]
        cpu_s = self._clock.cpu_s()
        bits = probe.look()
        reading_s = self._clock.cpu_s() - cpu_s
        census.record(bits)
        self._runs.pop(target, None)
        self._last_look[target] = bits
        self._present_bytes[target] = page_count(bits.present) * PAGE_SIZE
        todo = census.pending(bits)
        fault_s: float = getattr(probe, "target_s_per_page", 0.0)
        if fault_s:
            fault_s *= max(_FEWEST_RETURN, _returned_share(bits, self._last_cleared.get(target)))
        self._budget.note_target_cost(_pages(todo) * (fault_s or _TARGET_S_PER_PAGE))
        if probe.clearing == "clear_refs":
            if len(todo):
                probe.clear(todo)
            census.note_all_cleared()
            return reading_s
        chosen = todo if target in self._unseen else self._affordable(todo)
        nr_left_out = len(todo) - len(chosen)
        if fault_s:
            chosen = chosen if target in self._unseen else self._bearable(chosen, fault_s)
            self._last_cleared[target] = chosen
        cpu_s = self._clock.cpu_s()
        stuck = probe.clear(chosen)
        self._budget.note_clearing(
            self._clock.cpu_s() - cpu_s,
            nr_units=len(chosen),
            nr_left_out=nr_left_out,
            nr_spared=len(todo) - len(chosen) - nr_left_out,
        )
        census.note_cleared(chosen.address)
        census.note_stuck(stuck.address, stuck.accessed)
        return reading_s

    def _affordable(self, todo: PageBits) -> PageBits:
        """All of it, or a random share of its units where even the longest interval cannot bear all.

        Units at random, so that each region has its share: its rate is estimated from those.
        """
        affordable = self._budget.affordable_units() / max(1, len(self._probes))
        if len(todo) <= affordable:
            return todo
        return todo.take(self._rng.random(len(todo)) < affordable / len(todo))

    def _bearable(self, todo: PageBits, fault_s: float) -> PageBits:
        """All of it, or a random share of its units, whose faults the target can bear until the next look."""
        expected_s = _pages(todo) * fault_s
        bearable_s = self._budget.cpu_share * self._interval_s / max(1, len(self._probes))
        if expected_s <= bearable_s:
            return todo
        return todo.take(self._rng.random(len(todo)) < bearable_s / expected_s)

    def _update_ranges(self) -> None:
        replaced = [target for target, probe in self._probes.items() if self._has_new_memory(target, probe)]
        for target in replaced:
            self._begin(target)
        now_s = self._clock.monotonic_s()
        if now_s < self._update_at_s and not replaced:
            return
        self._update_at_s = now_s + self._attributes.regions_update_interval_s
        for target, ranges in self._each(lambda _, probe: probe.ranges()).items():
            self._census[target].set_ranges(ranges)
        self._each(self._review_clearing)
        if now_s >= self._retry_at_s:
            self._retry_at_s = now_s + _RETRY_S
            for census in self._census.values():
                census.forget_stuck()

    def _review_clearing(self, target: int, probe: CensusProbe) -> None:
        """Clear everything at once where too much is stuck, for as long as that does not hold up the target."""
        census = self._census[target]
        is_needed = census.stuck_bytes > _TOO_MUCH_STUCK * self._present_bytes.get(target, 0)
        clears_everything = probe.clearing == "clear_refs"
        # Asked again while it is done: the target may have grown.
        if (clears_everything or is_needed) and probe.clear_everything(longest_stall_s=_LONGEST_STALL_S):
            census.forget_stuck()

    def _fit_interval(self) -> None:
        """To the CPU share where there is a goal; no shorter than clearing can bear in any case."""
        shortest_s = max((probe.min_sampling_interval_s for probe in self._probes.values()), default=0.0)
        goal, wanted_s = self._attributes.interval_goal, self._attributes.sampling_interval_s
        if goal is not None:
            needed_s = max(self._budget.needed_interval_s, shortest_s)
            if not needed_s <= self._interval_s <= 2 * _ROOM * needed_s:
                longer_s = min(math.ceil(1000 * _ROOM * needed_s) / 1000, self._budget.longest_interval_s)
                self._interval_s = max(longer_s, goal.min_sampling_interval_s)
        elif shortest_s <= wanted_s:
            self._interval_s = wanted_s
        elif not shortest_s <= self._interval_s <= 2 * _ROOM * shortest_s:
            self._interval_s = math.ceil(1000 * _ROOM * shortest_s) / 1000
            self.events.append(stretched(self._interval_s))

    def _shorten_interval(self, needed_s: float) -> None:
        """In the middle of a window, where looks need it no longer: hot memory has become huge pages, or idle.

        It is made longer between windows only, so that the first result does not have to wait for it.
        """
        goal = self._attributes.interval_goal
        if goal is None:
            return
        shortest_s = max((probe.min_sampling_interval_s for probe in self._probes.values()), default=0.0)
        needed_s = max(needed_s, shortest_s)
        if 2 * _ROOM * needed_s < self._interval_s:
            self._interval_s = max(math.ceil(1000 * _ROOM * needed_s) / 1000, goal.min_sampling_interval_s)

    def _regions_of(self, target: int, runs: Runs) -> Regions:
        looks = self._nr_looks
        # Coverage is by units, so units are what the estimate has drawn.
        drawn = np.maximum(runs.size_bytes / HUGE_PAGE_SIZE, 1) * runs.coverage * looks
        error = np.where(runs.coverage >= 1, 0.0, rate_error(runs.rate, drawn) * np.sqrt(1 - runs.coverage))
        return Regions(
            target=np.full(len(runs), target, np.int32),
            start=runs.start,
            end=runs.end,
            nr_accesses=np.rint(runs.rate * looks).astype(np.int64),
            access_rate=runs.rate,
            age_s=runs.age_s,
            rate_error=error,
        )


def _pages(bits: PageBits) -> int:
    """Page-table entries with a set bit: a huge page has one."""
    return page_count(bits.accessed[~bits.is_huge]) + int(bits.is_huge.sum())


def _returned_share(bits: PageBits, cleared: PageBits | None) -> float:
    """How many of the pages that the last look cleared this one found accessed; all where nothing was cleared."""
    nr_cleared = 0 if cleared is None else page_count(cleared.accessed)
    if cleared is None or not nr_cleared:
        return 1.0
    _, row, cleared_row = np.intersect1d(bits.address, cleared.address, assume_unique=True, return_indices=True)
    return page_count(bits.accessed[row] & cleared.accessed[cleared_row]) / nr_cleared


class _Budget:
    """What looks cost us, what they cost the target, and what the share of a CPU bears of either.

    Attributes:
        needed_interval_s: what all looks need between them to keep to the share, if all is cleared; 0 while unknown.
        clears_all: whether the last window's looks could clear all that they found.
    """

    def __init__(self, goal: IntervalGoal | None) -> None:
        self._has_goal = goal is not None
        self._goal = goal or IntervalGoal()
        self._fixed_s = 0.0
        self._clearing_s = 0.0
        self._unit_s = 0.0
        self._window_clearing_s = 0.0
        self._window_left_out = 0
        self._window_spared = 0
        self._target_s = 0.0
        self._window_target_s = 0.0
        self._look_target_s = 0.0
        self._window_looks_s = 0.0
        self._overhead_s = 0.0
        self._weight = 1.0
        self.clears_all = True
        self.needed_interval_s = 0.0

    @property
    def cpu_share(self) -> float:
        """The goal's, or what is the custom where there is none."""
        return self._goal.cpu_share

    @property
    def longest_interval_s(self) -> float:
        """The goal's, or what reading alone needs with as much again for clearing."""
        return max(self._goal.max_sampling_interval_s, 2 * self._fixed_s / self._goal.cpu_share)

    def affordable_units(self) -> float:
        """How many units can be cleared at each look of the longest interval."""
        if not self._has_goal or not self._unit_s:
            return math.inf
        return (self._goal.cpu_share * self.longest_interval_s - self._fixed_s) / self._unit_s

    def expect(self, look_s: float) -> None:
        """What a look will cost, before there was a window."""
        self._fixed_s = look_s
        self.needed_interval_s = look_s / self._goal.cpu_share

    def note_clearing(self, cpu_s: float, *, nr_units: int, nr_left_out: int, nr_spared: int = 0) -> None:
        """Take in what clearing has cost, and what was not cleared: for our sake, and for the target's."""
        self._window_clearing_s += cpu_s
        self._window_left_out += nr_left_out
        self._window_spared += nr_spared
        if nr_units >= _ENOUGH_UNITS:
            self._unit_s = cpu_s / nr_units

    def note_target_cost(self, time_s: float) -> None:
        """What clearing all that a look found would cost the targets."""
        self._window_target_s += time_s
        self._look_target_s += time_s

    def open_look(self) -> None:
        self._look_target_s = 0.0

    def close_look(self, cpu_s: float) -> float:
        """Take in what a look has cost.

        Returns the interval that more looks like it need; unlimited where it did not clear everything.
        """
        self._window_looks_s += cpu_s
        if self._window_left_out:
            return math.inf
        return max((cpu_s + self._overhead_s) / self._goal.cpu_share, self._for_target_s(self._look_target_s))

    def open_window(self) -> None:
        self._window_clearing_s, self._window_left_out, self._window_target_s = 0.0, 0, 0.0
        self._window_looks_s, self._window_spared = 0.0, 0

    def close_window(self, cpu_s: float, *, looks: int) -> None:
        """Take in what a window has cost."""
        fixed_s = (cpu_s - self._window_clearing_s) / looks
        self.clears_all = self._window_left_out == 0 and self._window_spared == 0
        clearing_s = (self._window_clearing_s + self._window_left_out * self._unit_s) / looks
        self._fixed_s += (fixed_s - self._fixed_s) * self._weight
        self._clearing_s += (clearing_s - self._clearing_s) * self._weight
        # Looking up mappings, and making the result: each look bears its part.
        overhead_s = max(0.0, cpu_s - self._window_looks_s) / looks
        self._overhead_s += (overhead_s - self._overhead_s) * self._weight
        self._target_s += (self._window_target_s / looks - self._target_s) * self._weight
        # After the first, so that one dear window does not move everything.
        self._weight = 0.5
        for_us_s = (self._fixed_s + self._clearing_s) / self._goal.cpu_share
        self.needed_interval_s = max(for_us_s, self._for_target_s(self._target_s))
        self.open_window()

    def _for_target_s(self, cost_s: float) -> float:
        return min(cost_s / self._goal.cpu_share, _LONGEST_FOR_TARGET_S)
