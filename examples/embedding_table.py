"""An embedding table under Zipf look-ups: rows that nobody asks for are paged out, and the look-up rate stays.

The table is sorted by popularity, as tables are whose ids were given by frequency.  So hot rows lie on few pages,
and cold ones fill whole parts of 2 MiB, which is as finely as smaps can tell memory apart for an ordinary user.
With --scattered the ids are hashed instead, and each part has a hot row: then only ways that see single pages
(userfaultfd of Linux 7.3, or bpf as root) find cold memory.

One thread looks up some 25 million rows a second.  In a table of 1 GiB with a skew of 1.5, the last third of the rows
gets two thousand of these, and fetching their pages from swap (25 µs each) would take 5 % of the time: they are not
cold.  Larger tables have a cold tail with less skew.

Needs swap, such as zram.  No privilege.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from measure import MIB, Pace, compressed_bytes, mebibytes, pace, process_bytes, refuse_without_swap, resident_bytes
from numpy.typing import NDArray

import memtherm

COLUMNS = 64
BATCH, BAG = 4096, 32
# A part of 2 MiB has 8192 rows, a page has 16.  One look-up in a second is next to nothing for a part, so that a part
# counts as cold as long as most looks find it idle; what is asked for comes back page by page.
COLD = memtherm.Scheme(
    name="page out cold rows",
    pattern=memtherm.AccessPattern(access_rate=memtherm.Bounds(0, 0.4), age_s=memtherm.Bounds(2, None)),
    action=memtherm.Action.PAGEOUT,
)


@dataclass(frozen=True)
class Figures:
    """What one round found."""

    way: str
    table_bytes: int
    before_bytes: int
    after_bytes: int
    process_before_bytes: int
    process_after_bytes: int
    before: Pace
    after: Pace
    zram_bytes: int
    agent_cpu_percent: float
    refused: dict[str, int]

    @property
    def given_back(self) -> float:
        return (self.before_bytes - self.after_bytes) / self.table_bytes

    @property
    def kept_rate(self) -> float:
        return self.after.per_s / self.before.per_s

    @property
    def kept_rate_of_cpu(self) -> float:
        return self.after.per_cpu_s / self.before.per_cpu_s


class Service:
    """Looks up bags of rows, and scores the sum of each bag, as a recommender does.

    Attributes:
        table: float32[rows, 64].
    """

    def __init__(self, size_bytes: int, *, skew: float, scattered: bool) -> None:
        rows = size_bytes // (4 * COLUMNS)
        self._rng = np.random.default_rng(1)
        self.table: NDArray[np.float32] = memtherm.allocate((rows, COLUMNS), np.float32)
        for first in range(0, rows, BATCH):
            part = self.table[first : first + BATCH]
            self._rng.standard_normal(dtype=np.float32, out=part)
            # As 8-bit quantization leaves them; zram cannot compress raw float32.
            np.divide(np.rint(np.multiply(part, 32, out=part), out=part), 32, out=part)
        self._place = self._rng.permutation(rows) if scattered else None
        self._weights = self._rng.standard_normal(COLUMNS, dtype=np.float32)
        self._rows, self._power, self._least = rows, 1 / (1 - skew), rows ** (1 - skew)
        self._found = np.empty((BATCH, COLUMNS), np.float32)

    def step(self) -> int:
        """A batch of look-ups; how many."""
        # Inverse of Zipf's distribution: row r is asked for about r ** -skew times as often as the first.
        rank = self._rng.random(BATCH)
        rank = np.power(rank * (1 - self._least) + self._least, self._power).astype(np.int64) - 1
        ids = rank if self._place is None else self._place[rank]
        self.table.take(ids, axis=0, out=self._found, mode="clip")
        scores = self._found.reshape(-1, BAG, COLUMNS).sum(axis=1) @ self._weights
        assert np.isfinite(scores).all()
        return BATCH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", metavar="MIB", type=int, default=1024, help="size of the table (default: 1024)")
    parser.add_argument("--skew", type=float, default=2.0, help="Zipf's exponent, above 1 (default: 2.0)")
    parser.add_argument("--scattered", action="store_true", help="hot rows lie anywhere, as hashed ids do")
    parser.add_argument("--way", default="auto", help="how to see accesses, such as smaps (default: the best here)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two looks (default: 1)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement (default: 4)")
    parser.add_argument("--rounds", type=int, default=1, help="before and after, so often (default: 1)")
    parser.add_argument("--json", action="store_true", help="the figures of each round as a JSON line")
    arguments = parser.parse_args()
    refuse_without_swap(arguments.size * MIB)
    service = Service(arguments.size * MIB, skew=arguments.skew, scattered=arguments.scattered)
    try:
        rounds = [one_round(service, arguments) for _ in range(arguments.rounds)]
    except memtherm.MemthermError as error:
        sys.exit(f"embedding_table.py: {error}")
    for figures in rounds:
        print(json.dumps(as_json(figures)) if arguments.json else as_text(figures))
    if len(rounds) > 1 and not arguments.json:
        print(f"median: {100 * statistics.median(one.given_back for one in rounds):.1f} % of the table given back")
        print(f"        at {100 * statistics.median(one.kept_rate for one in rounds):.1f} % of the look-up rate")


def one_round(service: Service, arguments: argparse.Namespace) -> Figures:
    """Before: all of the table in memory, unwatched.  After: watched, until no more goes out."""
    service.table.sum()
    zram_bytes = compressed_bytes()
    pace(service.step, seconds=0.5)
    before = pace(service.step, seconds=arguments.seconds)
    before_bytes, process_before_bytes = resident_bytes(service.table), process_bytes()
    with memtherm.watch(
        service.table,
        name="embeddings",
        way=arguments.way,
        interval_s=arguments.interval,
        schemes=[COLD],
        apply=True,
    ) as watched:
        run_until_steady(service, window_s=5 * arguments.interval)
        after = pace(service.step, seconds=arguments.seconds)
        after_bytes, process_after_bytes = resident_bytes(service.table), process_bytes()
        reports = list(watched.reports(limit=1))
        cost = watched.cost
    refused = {one.reason: one.size_bytes for report in reports for scheme in report.schemes for one in scheme.refused}
    return Figures(
        way=watched.way,
        table_bytes=service.table.nbytes,
        before_bytes=before_bytes,
        after_bytes=after_bytes,
        process_before_bytes=process_before_bytes,
        process_after_bytes=process_after_bytes,
        before=before,
        after=after,
        zram_bytes=compressed_bytes() - zram_bytes,
        agent_cpu_percent=100 * cost,
        refused=refused,
    )


def run_until_steady(service: Service, *, window_s: float, at_most_s: float = 60.0) -> None:
    """Work until memory has gone out, and its size has changed by less than 1 % of the table in two windows."""
    most = resident_bytes(service.table)
    sizes, little = [most] * 3, service.table.nbytes / 100
    for number in range(int(at_most_s / window_s)):
        pace(service.step, seconds=window_s)
        sizes = [*sizes[1:], resident_bytes(service.table)]
        if number >= 3 and sizes[-1] < most - little and max(sizes) - min(sizes) < little:
            return


def as_json(figures: Figures) -> dict[str, Any]:
    shares = ("given_back", "kept_rate", "kept_rate_of_cpu")
    return asdict(figures) | {name: getattr(figures, name) for name in shares}


def as_text(figures: Figures) -> str:
    lines = [
        f"table of {mebibytes(figures.table_bytes)}, seen by {figures.way}",
        f"  before: {mebibytes(figures.before_bytes)} resident, {figures.before.per_s / 1e6:.2f} M look-ups a second",
        f"  after:  {mebibytes(figures.after_bytes)} resident, {figures.after.per_s / 1e6:.2f} M look-ups a second",
        f"  {100 * figures.given_back:.1f} % of the table given back at {100 * figures.kept_rate:.1f} % of the rate "
        f"({100 * figures.kept_rate_of_cpu:.1f} % by CPU time)",
        f"  zram takes {mebibytes(figures.zram_bytes)} for it, and watching {figures.agent_cpu_percent:.2f} % of a CPU",
        *(f"  refused: {mebibytes(size_bytes)}: {reason}" for reason, size_bytes in figures.refused.items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
