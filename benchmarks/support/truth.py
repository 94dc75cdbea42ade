"""What is true of a workload at a time, and how near a snapshot comes."""

import time
from dataclasses import dataclass

import numpy as np
from benchmarks.support.cases import Case
from numpy.typing import NDArray

from memtherm.core.regions import Range
from memtherm.core.snapshot import Snapshot
from memtherm.views.accuracy import Accuracy, accuracy
from support.workload import PAGE_SIZE, Workload

# A page is hot from half of the rate on that the hottest page is expected to have.  Five looks a window tell
# rates in fifths, so a page between two and three of five may be counted as either: it is left out.
_HOT = 0.5
_SURELY_HOT = 0.6
_SURELY_NOT = 0.4
# A look finds what was hot for any part of its interval, so one more of five may find a page that moves away.
_SURELY_NOT_MOVING = 0.2


@dataclass(frozen=True)
class Score:
    """Precision, recall (0..1) and their harmonic mean."""

    precision: float
    recall: float
    f1: float


class Truth:
    """Knows the rate at which each page should be found accessed.

    Args:
        pass_s: real time from one pass to the next; the rhythm of Zipf's pages does not depend on it.
    """

    def __init__(self, case: Case, child: Workload, *, pass_s: float) -> None:
        self._case = case
        self._child = child
        self._pass_s = case.period_s if case.zipf_pages else pass_s
        self._pages = case.size_bytes // PAGE_SIZE
        self._began_epoch_s = child.began_s + time.time() - time.monotonic()
        self._every = np.zeros(self._pages)  # passes from one access to the next; 0: none
        for offset, length in case.hot:
            page = np.arange(length // PAGE_SIZE)
            place = page * case.scatter % len(page) if case.scatter else page
            self._every[offset // PAGE_SIZE + place] = 1 + page // case.zipf_pages if case.zipf_pages else 1

    def score(self, snapshot: Snapshot) -> Score:
        """A window against what the workload did in it."""
        conditions = snapshot.conditions
        interval_s = conditions.window_s / conditions.samples
        return self._compare(snapshot, self._rates(snapshot.time_s, conditions.window_s, min(interval_s, 1e3)))

    def score_now(self, snapshot: Snapshot) -> Score:
        """A window against what is hot at its end."""
        conditions = snapshot.conditions
        return self._compare(snapshot, self._rates(snapshot.time_s, 0.0, conditions.window_s / conditions.samples))

    def jumps_s(self, began_s: float, ended_s: float) -> list[float]:
        """Times (epoch) at which the stripes moved."""
        every_s = self._case.move_every_s
        first, last = (int((at_s - self._began_epoch_s) // every_s) for at_s in (began_s, ended_s))
        return [self._began_epoch_s + every_s * number for number in range(first + 1, last + 1)]

    def age_errors_s(self, snapshot: Snapshot, *, since_s: float) -> list[tuple[float, float]]:
        """(true age, found age - true age) of what was hot before each move since then (epoch).

        Needs one stripe that does not come back.  The age found is the mean over the stripe's bytes.
        """
        (offset, length) = self._case.hot[0]
        found = []
        for left_s in self.jumps_s(since_s, snapshot.time_s):
            number = round((left_s - self._began_epoch_s) / self._case.move_every_s) - 1
            start = (offset + number * self._case.move_bytes) % self._case.size_bytes + self._child.start
            low = np.maximum(snapshot.regions.start, np.uint64(start))
            high = np.minimum(snapshot.regions.end, np.uint64(start + length))
            weight = np.where(high > low, (high - np.minimum(low, high)).astype(np.float64), 0.0)
            true_s = snapshot.time_s - left_s
            if weight.sum() > 0:
                found.append((true_s, float((snapshot.regions.age_s * weight).sum() / weight.sum()) - true_s))
        return found

    def _rates(self, end_s: float, window_s: float, interval_s: float) -> NDArray[np.float64]:
        seen = interval_s / np.maximum(self._every * self._pass_s, 1e-9)
        rates = np.where(self._every > 0, np.minimum(seen, 1.0), 0.0)
        if not self._case.move_bytes:
            return rates
        step = self._case.move_bytes // PAGE_SIZE
        every_s = self._case.move_every_s
        begin = max(0.0, end_s - window_s - self._began_epoch_s) / every_s
        end = max(1e-9, (end_s - self._began_epoch_s) / every_s)
        mean = np.zeros(self._pages)
        for number in range(int(begin), int(end) + 1):
            share = (
                (min(end, number + 1) - max(begin, number)) / (end - begin) if window_s else float(number == int(end))
            )
            mean += max(0.0, share) * np.roll(rates, number * step % self._pages)
        return mean

    def _compare(self, snapshot: Snapshot, rates: NDArray[np.float64]) -> Score:
        highest = float(rates.max())
        surely_not = _SURELY_NOT_MOVING if self._case.move_bytes else _SURELY_NOT
        hot = rates >= _SURELY_HOT * highest
        is_known = hot | (rates <= surely_not * highest)
        found = accuracy(
            snapshot, hot=self._ranges(hot), within=self._ranges(is_known), min_access_rate=_HOT * min(1.0, highest)
        )
        return _score(found)

    def _ranges(self, pages: NDArray[np.bool_]) -> list[Range]:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], pages, [False]]).astype(np.int8))) * PAGE_SIZE
        return [(self._child.start + start, self._child.start + end) for start, end in edges.reshape(-1, 2).tolist()]


def _score(found: Accuracy) -> Score:
    precision, recall = found.precision, found.recall
    f1 = 2 * precision * recall / (precision + recall) if found.both_bytes else 0.0
    return Score(precision, recall, f1)
