"""From the rows of single runs to figures per program and over all programs."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.schemes.tuning import percent

Row = dict[str, Any]

_LEAST_SYSTEM_BYTES = 64 << 20


@dataclass(frozen=True)
class Figure:
    """Mean over the rounds, with the least and the most."""

    mean: float
    least: float
    most: float


@dataclass(frozen=True)
class Case:
    """All rounds of one program under one configuration."""

    program: str
    configuration: str
    rows: tuple[Row, ...]

    def figure(self, name: str) -> Figure:
        values = [float(row.get(name, 0.0)) for row in self.rows]
        return Figure(statistics.fmean(values), min(values), max(values))

    def mean(self, name: str) -> float:
        return self.figure(name).mean

    @property
    def ages_s(self) -> list[float]:
        return sorted({row["age_s"] for row in self.rows if row["age_s"] is not None})


@dataclass(frozen=True)
class Comparison:
    """One program under one configuration, beside the same without.

    Attributes:
        rss, run: change of the mean over the rounds in percent; less is better.
        system: the same, or None where the program adds so little that a share of it is a share of noise.
    """

    case: Case
    base: Case

    def change(self, name: str) -> float:
        return percent(self.case.mean(name), self.base.mean(name))

    def span(self, name: str) -> tuple[float, float]:
        """The change from round to round, each against the mean without."""
        figure, base = self.case.figure(name), self.base.mean(name)
        return percent(figure.least, base), percent(figure.most, base)

    @property
    def rss(self) -> float:
        return self.change("rss_bytes")

    @property
    def system(self) -> float | None:
        return self.change("system_bytes") if self.base.mean("system_bytes") >= _LEAST_SYSTEM_BYTES else None

    @property
    def run(self) -> float:
        return self.change("run_s")


def cases(rows: Sequence[Row], question: str) -> dict[tuple[str, str], Case]:
    """By program and configuration, in the order in which they were run first."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["question"] == question:
            found.setdefault((row["program"], row["configuration"]), []).append(row)
    return {key: Case(*key, tuple(some)) for key, some in found.items()}


def comparisons(rows: Sequence[Row], question: str, configuration: str, base: str) -> list[Comparison]:
    """Of all programs that were run under both."""
    found = cases(rows, question)
    return [
        Comparison(case, found[program, base])
        for (program, name), case in found.items()
        if name == configuration and (program, base) in found
    ]


def mean(compared: Sequence[Comparison], value: Callable[[Comparison], float | None]) -> float:
    """Over the programs that have this value, each with the same weight, as DAMON's figures are."""
    values = [found for one in compared if (found := value(one)) is not None]
    return statistics.fmean(values) if values else 0.0


@dataclass(frozen=True)
class HugePages:
    """What huge pages cost and give one program, or all in the mean, in percent of `never`.

    Attributes:
        waste, our_waste: how much larger RSS is, always and with ours.
        gain, our_gain: how much shorter the run is, always and with ours.
    """

    program: str
    waste: float
    our_waste: float
    gain: float
    our_gain: float

    @property
    def waste_removed(self) -> float:
        """Share of the waste of `always` that ours has not, in percent."""
        return 100 * (1 - self.our_waste / self.waste)

    @property
    def gain_kept(self) -> float:
        """Share of the gain of `always` that ours has too, in percent."""
        return 100 * self.our_gain / self.gain


def huge_pages(rows: Sequence[Row]) -> list[HugePages]:
    """Of each program that was run under never, always and ours."""
    always = {one.case.program: one for one in comparisons(rows, "huge", "always", "never")}
    ours = {one.case.program: one for one in comparisons(rows, "huge", "ours", "never")}
    return [
        HugePages(name, always[name].rss, ours[name].rss, -always[name].run, -ours[name].run)
        for name in always
        if name in ours
    ]


def huge_pages_mean(found: Sequence[HugePages]) -> HugePages:
    """The mean over programs first, then the shares, as DAMON's figures are made."""

    def over_all(value: Callable[[HugePages], float]) -> float:
        return statistics.fmean(value(one) for one in found)

    return HugePages(
        "mean",
        over_all(lambda one: one.waste),
        over_all(lambda one: one.our_waste),
        over_all(lambda one: one.gain),
        over_all(lambda one: one.our_gain),
    )


def foreign_cpu_percent(row: Row) -> float:
    """What others than the program and memtherm took of the machine during a run, in percent of one CPU."""
    own_s = row["cpu_s"] + row.get("agent_cpu_s", 0.0)
    return float(100 * max(0.0, row["machine_cpu_s"] - own_s) / row["run_s"])


# --- bars ------------------------------------------------------------------------------------------

SMALL = "small"
RSS_BAR, RUN_BAR = -20.0, 3.4
BEST_RSS_BAR, BEST_RUN_BAR = -93.0, 1.2
WASTE_BAR, GAIN_BAR = 76.0, 51.0


def best(compared: Sequence[Comparison]) -> Comparison:
    """The program that gives back most."""
    return min(compared, key=lambda one: one.rss)


def shortfalls(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """(what, how far) for each bar that is missed."""
    if compared := comparisons(rows, "reclaim", "policy", "none"):
        rss, run = mean(compared, lambda one: one.rss), mean(compared, lambda one: one.run)
        if rss > RSS_BAR or run > RUN_BAR:
            yield "mean of all programs, untuned", f"RSS {rss:+.2f} % (bar {RSS_BAR:+g}), run {run:+.2f} % (+{RUN_BAR})"
        top = best(compared)
        if top.rss > BEST_RSS_BAR or top.run > BEST_RUN_BAR:
            what = f"best case, {top.case.program}"
            yield what, f"RSS {top.rss:+.2f} % (bar {BEST_RSS_BAR:+g}), run {top.run:+.2f} % (+{BEST_RUN_BAR})"
    for configuration in ("policy", "tuned"):
        case = cases(rows, "reclaim").get((SMALL, configuration))
        if case is not None and case.mean("applied_bytes") > 0:
            yield f"{SMALL}, {configuration}", f"{case.mean('applied_bytes') / (1 << 20):.1f} MiB of it were touched"
    if found := huge_pages(rows):
        over = huge_pages_mean(found)
        if over.waste_removed < WASTE_BAR:
            yield "waste of huge pages", f"{over.waste_removed:.1f} % removed (bar {WASTE_BAR:g} %)"
        if over.gain_kept < GAIN_BAR:
            yield "gain of huge pages", f"{over.gain_kept:.1f} % kept (bar {GAIN_BAR:g} %)"
