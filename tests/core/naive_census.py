"""What core/census.py does, in plain Python: a dictionary entry for each page, a set for each question."""

from collections import defaultdict
from collections.abc import Iterable

UNIT = 512
"""Pages of a unit; addresses here are numbers of pages."""


def units_of(pages: Iterable[int]) -> set[int]:
    return {page // UNIT for page in pages}


def pages_of(unit: int) -> range:
    return range(unit * UNIT, (unit + 1) * UNIT)


class NaiveCensus:
    """One address space, page by page."""

    def __init__(self, now_s: float) -> None:
        self.mapped: set[int] = set()
        self.known: set[int] = set()
        self.rated: set[int] = set()
        self.uncleared: set[int] = set()
        self.stuck: set[int] = set()
        self.blind: defaultdict[int, int] = defaultdict(int)
        self.count: defaultdict[int, int] = defaultdict(int)
        self.rate: dict[int, int] = {}
        self.since_s: dict[int, float] = {}
        self.looks = 0
        self.has_looked = False
        self.window_end_s = now_s

    def set_mapped(self, mapped: set[int]) -> None:
        new, self.mapped = mapped - self.mapped, mapped
        for unit in self.known - units_of(mapped):
            self.known.discard(unit)
            self.rated.discard(unit)
            self.uncleared.discard(unit)
            self.stuck -= set(pages_of(unit))
        for page in new:
            if page // UNIT in self.known:
                self.rate[page], self.since_s[page] = 0, self.window_end_s

    def record(self, present: set[int], accessed: set[int]) -> None:
        for unit in units_of(present) - self.known:
            self.known.add(unit)
            if not self.has_looked:
                self.uncleared.add(unit)
            for page in pages_of(unit):
                self.rate[page], self.since_s[page] = 0, self.window_end_s
        for unit in units_of(present):
            found = accessed & set(pages_of(unit))
            if found and unit in self.uncleared:
                self.blind[unit] += 1
            else:
                for page in found:
                    self.count[page] += 1
            self.uncleared.discard(unit)
            if found - self.stuck:
                self.uncleared.add(unit)
        self.looks += 1
        self.has_looked = True

    def close_window(self, now_s: float) -> None:
        began_s, self.window_end_s = self.window_end_s, now_s
        for unit in self.known:
            blind = self.blind[unit]
            if blind == self.looks:
                continue
            looks = self.looks
            if unit not in self.rated:
                looks, blind = looks - blind, 0
                self.rated.add(unit)
            for page in pages_of(unit):
                old = self.rate[page]
                rate = int((250 * self.count[page] + old * blind) / looks + 0.5)
                if abs(rate - old) > 1.5 * 250 / looks or (rate == 0) != (old == 0):
                    self.since_s[page] = began_s
                self.rate[page] = rate
        self.forget_looks()

    def forget_looks(self) -> None:
        self.blind.clear()
        self.count.clear()
        self.looks = 0

    def reset_age(self, pages: Iterable[int]) -> None:
        for page in pages:
            if page // UNIT in self.known:
                self.since_s[page] = self.window_end_s

    def result(self) -> dict[int, tuple[float, float]]:
        """Rate and age of each mapped page of the units that were seen."""
        seen = (page for page in self.mapped if page // UNIT in self.known)
        return {page: (self.rate[page] / 250, self.window_end_s - self.since_s[page]) for page in seen}

    def moving(self, looks_of_window: int) -> dict[int, tuple[float, float]]:
        """The same in the middle of a window: what is still to come is as the last window was."""
        looks = max(looks_of_window, self.looks)
        told = {}
        for page, (_, age_s) in self.result().items():
            old, as_before = self.rate[page], self.blind[page // UNIT] + looks - self.looks
            rate = int((250 * self.count[page] + old * as_before) / looks + 0.5)
            told[page] = (rate / 250, 0.0 if rate and not old else age_s)
        return told
