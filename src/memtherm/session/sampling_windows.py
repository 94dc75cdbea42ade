"""Windows by DAMON's sampling: draw, clear, wait, read, record."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.protocols import Clock, Probe
from memtherm.core.ranges import Addresses, Flags
from memtherm.core.sampling import Sampler
from memtherm.core.snapshot import Conditions, Regions
from memtherm.core.tuning import access_score, tuned_interval_s
from memtherm.errors import InvalidInput
from memtherm.session.windows import Between, Stopped, Windows, joined_names, stretched


class SamplingWindows(Windows[Probe]):
    """One page of a region speaks for the region; intervals fit themselves where the attributes have a goal."""

    method = "sampling"

    def __init__(
        self,
        probes: Mapping[int, Probe],
        *,
        names: Mapping[int, str],
        attributes: MonitoringAttributes,
        clock: Clock,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(probes, names=names, clock=clock)
        self._wanted = attributes
        self._grain = "mapping" if any(probe.grain == "mapping" for probe in probes.values()) else "page"
        self._sampler = Sampler(attributes, rng=rng, follows_mappings=self._grain == "mapping")
        self._windows_to_tuning = attributes.interval_goal.windows if attributes.interval_goal else 0
        self._samples_to_update = 0
        self._look_cpu_s = 0.0

    def take(self, stopped: Stopped, between: Between) -> bool:
        cpu_s = self._clock.cpu_s()
        self._late_looks, self._acting_cpu_s = 0, 0.0
        self._fit_intervals()
        self._sampler.open_window()
        self._update_ranges()
        interval_s = self._sampler.attributes.sampling_interval_s
        deadline_s = self._clock.monotonic_s() + interval_s
        while self._probes and not self._sampler.window_is_complete:
            addresses = self._sampler.draw_addresses()
            self._clear(addresses)
            deadline_s = self._wait(deadline_s, interval_s, stopped)
            if stopped():
                return False
            self._sampler.record(self._read(addresses))
            self._samples_to_update -= 1
            if not self._sampler.window_is_complete:
                self._pause(between)
        for target in self.gone:
            self._sampler.remove_target(target)
        self._sampler.close_window()
        self._note_cost(self._clock.cpu_s() - cpu_s - self._acting_cpu_s)
        return bool(self._probes)

    def regions(self) -> Regions:
        return self._sampler.moving_regions()

    def reset_age(self, target: int, start: Addresses, end: Addresses) -> None:
        self._sampler.reset_age(target, start, end)

    def add(self, target: int, probe: Probe, *, name: str) -> None:
        super().add(target, probe, name=name)
        self._samples_to_update = 0

    def conditions(self) -> Conditions:
        attributes, probes = self._sampler.attributes, self._probes
        return Conditions(
            method=self.method,
            probe=joined_names({target: probe.name for target, probe in probes.items()}),
            clearing=joined_names({target: probe.clearing for target, probe in probes.items()}),
            grain=self._grain,
            sampling_interval_s=attributes.sampling_interval_s,
            aggregation_interval_s=attributes.aggregation_interval_s,
            samples=attributes.samples_per_window,
            late_samples=self._late_looks,
            unclear_share=max((probe.unclear_share for probe in probes.values()), default=0.0),
        )

    def remove(self, target: int) -> None:
        super().remove(target)
        self._sampler.remove_target(target)

    def _clear(self, addresses: Addresses) -> None:
        rows_of = self._sampler.table.rows_of
        self._each(lambda target, probe: probe.clear(addresses[rows_of(target)]))

    def _read(self, addresses: Addresses) -> Flags:
        """Which addresses were accessed; none of a target that has gone, whose regions go with this window."""
        rows_of = self._sampler.table.rows_of
        accessed = np.zeros(len(addresses), np.bool_)
        for target, seen in self._each(lambda target, probe: probe.read(addresses[rows_of(target)])).items():
            accessed[rows_of(target)] = seen
        return accessed

    def _update_ranges(self) -> None:
        replaced = {target: self._has_new_memory(target, probe) for target, probe in self._probes.items()}
        for target in (target for target, is_new in replaced.items() if is_new):
            self._sampler.remove_target(target)
        if self._samples_to_update > 0 and not any(replaced.values()):
            return
        self._samples_to_update = self._sampler.attributes.samples_per_update
        for target, ranges in self._each(lambda _, probe: probe.ranges()).items():
            try:
                self._sampler.set_ranges(ranges, target=target)
            except InvalidInput:
                # Fewer than two gaps: a program in the middle of exec.  The old regions stay (damon-spec §1.13).
                continue

    def _note_cost(self, window_cpu_s: float) -> None:
        cost_s = window_cpu_s / self._sampler.attributes.samples_per_window
        self._look_cpu_s += (cost_s - self._look_cpu_s) / (2 if self._look_cpu_s else 1)
        goal = self._wanted.interval_goal
        self.needed_interval_s = self._look_cpu_s / goal.cpu_share if goal else 0.0

    def _fit_intervals(self) -> None:
        """To what is wanted or tuned; longer where clearing or the CPU share cannot bear that."""
        if not self._probes:
            return
        current_s = self._sampler.attributes.sampling_interval_s
        best_s = self._wanted.sampling_interval_s if self._wanted.interval_goal is None else self._tuned_interval_s()
        shortest_s = max(self.needed_interval_s, *(probe.min_sampling_interval_s for probe in self._probes.values()))
        if best_s >= shortest_s:
            self._set_interval(best_s)
        elif not shortest_s <= current_s <= 2 * shortest_s:
            # Some room above the least, so that a small change of cost does not change the intervals.
            self._set_interval(math.ceil(1250 * shortest_s) / 1000)

    def _set_interval(self, sampling_s: float) -> None:
        if sampling_s == self._sampler.attributes.sampling_interval_s:
            return
        aggregation_s = sampling_s * self._wanted.samples_per_window
        if self._wanted.interval_goal is None:
            aggregation_s = max(aggregation_s, self._wanted.aggregation_interval_s)
            self.events.append(stretched(sampling_s))
        self._sampler.set_attributes(
            replace(self._wanted, sampling_interval_s=sampling_s, aggregation_interval_s=aggregation_s)
        )

    def _tuned_interval_s(self) -> float:
        goal, attributes, table = self._wanted.interval_goal, self._sampler.attributes, self._sampler.table
        assert goal is not None
        if len(table) == 0:
            return attributes.sampling_interval_s
        self._windows_to_tuning -= 1
        if self._windows_to_tuning > 0:
            return attributes.sampling_interval_s
        self._windows_to_tuning = goal.windows
        size = table.size_bytes
        score = access_score(
            events=int((size * table.nr_accesses).sum()),
            max_events=int(size.sum()) * attributes.samples_per_window,
            goal=goal.access_rate,
        )
        return tuned_interval_s(
            attributes.sampling_interval_s,
            score=score,
            minimum_s=goal.min_sampling_interval_s,
            maximum_s=goal.max_sampling_interval_s,
        )
