"""How a run was measured, and in how many of its windows there is doubt: its conditions taken together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from memtherm.core.history import History
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.core.snapshot import Conditions

# Doubts that differ in their numbers only are one: "14 % of the looks came late".
_NUMBER = re.compile(r"<?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Share:
    """Something that was so in some of the windows."""

    text: str
    nr_windows: int


@dataclass(frozen=True, kw_only=True)
class ConditionsOfRun:
    """The conditions of all windows.

    Attributes:
        nr_windows, window_s: windows, and their length together.
        methods, reasons, probes, clearings, grains: what was used, most windows first; see `Conditions`.
        sampling_interval_s, aggregation_interval_s: the shortest and the longest.
        samples, late_samples: of all windows.
        agent_cpu_s: CPU time of memtherm in these windows.
        unclear_share, uncovered_share: the largest of a window.
        doubts: most windows first; of those that differ in their numbers only the last.
        nr_doubted: windows with a doubt.
    """

    nr_windows: int
    window_s: float
    methods: tuple[Share, ...]
    reasons: tuple[Share, ...]
    probes: tuple[Share, ...]
    clearings: tuple[Share, ...]
    grains: tuple[Share, ...]
    sampling_interval_s: tuple[float, float]
    aggregation_interval_s: tuple[float, float]
    samples: int
    late_samples: int
    agent_cpu_s: float
    unclear_share: float
    uncovered_share: float
    doubts: tuple[Share, ...]
    nr_doubted: int

    @property
    def agent_cpu_percent(self) -> float:
        """CPU of memtherm in percent of one CPU."""
        return 100 * self.agent_cpu_s / self.window_s if self.window_s > 0 else 0.0


def conditions_of_run(history: History, *, selection: Selection = EVERYTHING) -> ConditionsOfRun:
    """The conditions of all windows of the selected time, taken together; regions are not read."""
    return _together(history.conditions(selection))


def _together(windows: Iterable[Conditions]) -> ConditionsOfRun:
    used: dict[str, Counter[str]] = {name: Counter() for name in ("method", "why", "probe", "clearing", "grain")}
    kinds: Counter[str] = Counter()
    last_text: dict[str, str] = {}
    sampling, aggregation = [float("inf"), 0.0], [float("inf"), 0.0]
    total = {"windows": 0, "samples": 0, "late": 0, "doubted": 0}
    window_s = agent_cpu_s = unclear = uncovered = 0.0
    for one in windows:
        for name, counter in used.items():
            counter[getattr(one, name)] += 1
        for bounds, value in ((sampling, one.sampling_interval_s), (aggregation, one.aggregation_interval_s)):
            bounds[:] = min(bounds[0], value), max(bounds[1], value)
        for doubt in one.doubts:
            kind = _NUMBER.sub("#", doubt)
            kinds[kind] += 1
            last_text[kind] = doubt
        total["windows"] += 1
        total["samples"] += one.samples
        total["late"] += one.late_samples
        total["doubted"] += bool(one.doubts)
        window_s, agent_cpu_s = window_s + one.window_s, agent_cpu_s + one.agent_cpu_s
        unclear, uncovered = max(unclear, one.unclear_share), max(uncovered, one.uncovered_share)

    def shares(name: str) -> tuple[Share, ...]:
        return tuple(Share(text, count) for text, count in used[name].most_common() if text)

    none = total["windows"] == 0
    return ConditionsOfRun(
        nr_windows=total["windows"],
        window_s=window_s,
        methods=shares("method"),
        reasons=shares("why"),
        probes=shares("probe"),
        clearings=shares("clearing"),
        grains=shares("grain"),
        sampling_interval_s=(0.0, 0.0) if none else (sampling[0], sampling[1]),
        aggregation_interval_s=(0.0, 0.0) if none else (aggregation[0], aggregation[1]),
        samples=total["samples"],
        late_samples=total["late"],
        agent_cpu_s=agent_cpu_s,
        unclear_share=unclear,
        uncovered_share=uncovered,
        doubts=tuple(Share(last_text[kind], count) for kind, count in kinds.most_common()),
        nr_doubted=total["doubted"],
    )
