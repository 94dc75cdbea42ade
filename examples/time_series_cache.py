"""A cache of time series: new columns are written and read all the time, old ones go cold and are paged out.

A column holds the values of all series at one time, and lies in one piece (a row of the array).  The newest column
takes the place of the oldest; queries read the newest ones.  Once a second a thread asks memtherm which columns are
cold and pages them out, but for those that are written next: it fetches these.  memtherm knows what is cold, and the
program what it will do.

Needs swap, such as zram.  No privilege.
"""

import argparse
import json
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from measure import MIB, Pace, compressed_bytes, mebibytes, pace, process_bytes, refuse_without_swap, resident_bytes
from numpy.typing import NDArray

import memtherm

SERIES = MIB // 4
RECENT_COLUMNS, QUERIED_SERIES = 16, 4096
COLUMN_EVERY_S = 0.5
COLD_AGE_S = 2.0
COLUMNS_AHEAD = 4


@dataclass(frozen=True)
class Figures:
    """What the run found; `columns_in_use` by the rates of the last window."""

    way: str
    cache_bytes: int
    before_bytes: int
    after_bytes: int
    process_before_bytes: int
    process_after_bytes: int
    before: Pace
    after: Pace
    columns: int
    columns_in_use: int
    applied_bytes: int
    zram_bytes: int
    agent_cpu_percent: float

    @property
    def given_back(self) -> float:
        return (self.before_bytes - self.after_bytes) / self.cache_bytes

    @property
    def kept_rate(self) -> float:
        return self.after.per_s / self.before.per_s

    @property
    def kept_rate_of_cpu(self) -> float:
        return self.after.per_cpu_s / self.before.per_cpu_s


class Cache:
    """A ring of columns.

    Attributes:
        columns: float32[columns, series].
        newest: row of the newest column.
    """

    def __init__(self, size_bytes: int) -> None:
        self._rng = np.random.default_rng(1)
        self.columns: NDArray[np.float32] = memtherm.allocate((size_bytes // (4 * SERIES), SERIES), np.float32)
        self.newest = -1
        for _ in range(len(self.columns)):
            self._append()
        self._append_at_s = 0.0

    def step(self) -> int:
        """One query, and a new column when it is time."""
        if time.perf_counter() >= self._append_at_s:
            self._append()
            self._append_at_s = time.perf_counter() + COLUMN_EVERY_S
        series = self._rng.integers(0, SERIES, QUERIED_SERIES)
        total = np.zeros(QUERIED_SERIES, np.float32)
        for row in self.rows(1 - RECENT_COLUMNS, 1).tolist():
            total += self.columns[row].take(series)
        assert np.isfinite(total).all()
        return 1

    def rows(self, first: int, stop: int) -> NDArray[np.int64]:
        """The rows of some columns: 0 is the newest, 1 the one that will be written next."""
        return (self.newest + np.arange(first, stop)) % len(self.columns)

    def _append(self) -> None:
        """Values in steps, as sensors have them."""
        newest = (self.newest + 1) % len(self.columns)
        np.divide(self._rng.integers(0, 64, SERIES, dtype=np.int8), np.float32(8), out=self.columns[newest])
        self.newest = newest


class Housekeeper(threading.Thread):
    """Pages out cold columns until it is stopped.

    Attributes:
        applied_bytes: paged out so far, as memtherm verified.
    """

    def __init__(self, cache: Cache, watched: memtherm.WatchedArray) -> None:
        super().__init__(name="housekeeper", daemon=True)
        self.applied_bytes = 0
        self._cache, self._watched = cache, watched
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(1.0):
            cold = self._watched.rows_below(0.01)
            cold = cold[self._watched.age()[cold] >= COLD_AGE_S]
            ahead = self._cache.rows(1, 1 + COLUMNS_AHEAD)
            outcome = self._watched.advise("pageout", np.setdiff1d(cold, ahead))
            self.applied_bytes += outcome.applied_bytes
            self._watched.advise("willneed", ahead)

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", metavar="MIB", type=int, default=512, help="size of the cache (default: 512)")
    parser.add_argument("--way", default="auto", help="how to see accesses, such as smaps (default: the best here)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement (default: 4)")
    parser.add_argument("--settle", type=float, default=12.0, help="seconds between them (default: 12)")
    parser.add_argument("--json", action="store_true", help="the figures as a JSON line")
    arguments = parser.parse_args()
    refuse_without_swap(arguments.size * MIB)
    cache = Cache(arguments.size * MIB)
    try:
        figures = measured(cache, way=arguments.way, seconds=arguments.seconds, settle_s=arguments.settle)
    except memtherm.MemthermError as error:
        sys.exit(f"time_series_cache.py: {error}")
    print(json.dumps(as_json(figures)) if arguments.json else as_text(figures))


def measured(cache: Cache, *, way: str, seconds: float, settle_s: float) -> Figures:
    """Before: unwatched.  After: watched, with the cold columns paged out."""
    zram_bytes = compressed_bytes()
    before = pace(cache.step, seconds=seconds)
    before_bytes, process_before_bytes = resident_bytes(cache.columns), process_bytes()
    with memtherm.watch(cache.columns, name="time series", way=way, interval_s=0.5) as watched:
        housekeeper = Housekeeper(cache, watched)
        housekeeper.start()
        pace(cache.step, seconds=settle_s)
        after = pace(cache.step, seconds=seconds)
        after_bytes, process_after_bytes = resident_bytes(cache.columns), process_bytes()
        housekeeper.stop()
        return Figures(
            way=watched.way,
            cache_bytes=cache.columns.nbytes,
            before_bytes=before_bytes,
            after_bytes=after_bytes,
            process_before_bytes=process_before_bytes,
            process_after_bytes=process_after_bytes,
            before=before,
            after=after,
            columns=len(cache.columns),
            columns_in_use=len(cache.columns) - len(watched.rows_below(0.01)),
            applied_bytes=housekeeper.applied_bytes,
            zram_bytes=compressed_bytes() - zram_bytes,
            agent_cpu_percent=100 * watched.cost,
        )


def as_json(figures: Figures) -> dict[str, Any]:
    shares = ("given_back", "kept_rate", "kept_rate_of_cpu")
    return asdict(figures) | {name: getattr(figures, name) for name in shares}


def as_text(figures: Figures) -> str:
    lines = [
        f"{figures.columns} columns of 1 MiB, seen by {figures.way}: {figures.columns_in_use} are in use",
        f"  before: {mebibytes(figures.before_bytes)} resident, {figures.before.per_s:,.0f} queries a second",
        f"  after:  {mebibytes(figures.after_bytes)} resident, {figures.after.per_s:,.0f} queries a second",
        f"  {100 * figures.given_back:.1f} % of the cache given back at {100 * figures.kept_rate:.1f} % of the rate "
        f"({100 * figures.kept_rate_of_cpu:.1f} % by CPU time)",
        f"  zram takes {mebibytes(figures.zram_bytes)} for it, and watching {figures.agent_cpu_percent:.2f} % of a CPU",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
