"""A sparse matrix kernel that gets huge pages only where they pay.

y = A x, with A as compressed rows (CSR).  The columns of the active rows lie in one block of x, and are gathered from
in each step.  The other columns are hashed all over the rest of x, a few in each 2 MiB, and are used only in a full
sweep now and then.  Huge pages make the gathering faster, and would fill the rest of x with zeros.

Three copies of x take turns, so that whatever else the machine does meets them all: one with small pages, one with
huge pages everywhere, and one that memtherm gives huge pages where it is hot.  The arrays of the matrix are read in
order; they are left as they are.

Needs transparent huge pages in the mode `madvise` or `never`.  No privilege.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from measure import MIB, huge_bytes, mebibytes, refuse, resident_bytes
from numpy.typing import NDArray

import memtherm

Floats = NDArray[np.float64]

NONZEROS, ROW_LENGTH = 1 << 19, 16
UNIT_COLUMNS = 2 * MIB // 8
SWEEP_EVERY_S = 5.0
INTERVAL_S = 0.5
HOT = memtherm.Scheme(
    name="huge pages where x is hot",
    pattern=memtherm.AccessPattern(
        size_bytes=memtherm.Bounds(2 * MIB, None), access_rate=memtherm.Bounds(0.6, 1), age_s=memtherm.Bounds(1, None)
    ),
    action=memtherm.Action.COLLAPSE,
)


@dataclass(frozen=True)
class Figures:
    """Of one copy of x.

    Attributes:
        resident_bytes, huge_bytes: its memory, and what of it is in huge pages.
        per_s: nonzeros of active rows in a second.
    """

    name: str
    resident_bytes: int
    huge_bytes: int
    per_s: float


class Matrix:
    """Active rows with columns in one block of x, and rows for the other columns.

    Attributes:
        nr_columns: of all.
    """

    def __init__(self, x_bytes: int, active_bytes: int) -> None:
        rng = np.random.default_rng(1)
        self.nr_columns = x_bytes // 8
        first = self.nr_columns // 2 // UNIT_COLUMNS * UNIT_COLUMNS
        self._block = slice(first, first + active_bytes // 8)
        self._indices = rng.integers(self._block.start, self._block.stop, NONZEROS)
        self._values = rng.random(NONZEROS)
        self._row_starts = np.arange(0, NONZEROS, ROW_LENGTH)
        units = np.arange(0, self.nr_columns, UNIT_COLUMNS)
        hashed = units + rng.integers(0, UNIT_COLUMNS, len(units))
        self._rare = hashed[(hashed < self._block.start) | (hashed >= self._block.stop)]
        self._products = np.empty(NONZEROS)

    def fill(self, x: Floats) -> Floats:
        """Set the columns that there are."""
        x[self._block] = 1.0
        x[self._rare] = 1.0
        return x

    def times(self, x: Floats) -> Floats:
        """The active rows of A x."""
        x.take(self._indices, out=self._products, mode="clip")
        np.multiply(self._products, self._values, out=self._products)
        y: Floats = np.add.reduceat(self._products, self._row_starts)
        return y

    def sweep(self, x: Floats) -> Floats:
        """The other rows."""
        found: Floats = x[self._rare]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", metavar="MIB", type=int, default=1024, help="size of x (default: 1024)")
    parser.add_argument("--active", metavar="MIB", type=int, default=256, help="block of active columns (default: 256)")
    parser.add_argument("--way", default="auto", help="how to see accesses, such as smaps (default: the best here)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement (default: 6)")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds between them (default: 10)")
    parser.add_argument("--json", action="store_true", help="the figures of each copy as a JSON line")
    arguments = parser.parse_args()
    refuse_where_all_is_huge()
    matrix = Matrix(arguments.size * MIB, arguments.active * MIB)
    try:
        way, figures = measured(matrix, way=arguments.way, seconds=arguments.seconds, settle_s=arguments.settle)
    except memtherm.MemthermError as error:
        sys.exit(f"sparse_matrix.py: {error}")
    if not arguments.json:
        print(f"x of {arguments.size} MiB, of which {arguments.active} MiB are active, seen by {way}")
    for one in figures:
        print(json.dumps({"way": way} | asdict(one)) if arguments.json else as_text(one))


def refuse_where_all_is_huge() -> None:
    """Where huge pages come by themselves, or not at all, there is nothing to choose."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not path.exists():
        refuse("this kernel has no transparent huge pages", hint="CONFIG_TRANSPARENT_HUGEPAGE")
    if "[always]" in path.read_text():
        refuse("all memory gets huge pages here: there is nothing to choose", hint=f"as root: echo madvise > {path}")


def measured(matrix: Matrix, *, way: str, seconds: float, settle_s: float) -> tuple[str, list[Figures]]:
    """The way, and the figures: small pages, huge pages everywhere, chosen before and after."""
    copies, memory = [], []
    for huge_pages in (False, True, None):
        huge = huge_bytes()
        copies.append(matrix.fill(memtherm.allocate(matrix.nr_columns, huge_pages=huge_pages)))
        memory.append((resident_bytes(copies[-1]), huge_bytes() - huge))
    chosen = copies[2]
    before = in_turns(matrix, copies, seconds=seconds)
    figures = [
        Figures(name, *memory[row], before[row])
        for row, name in enumerate(("small pages", "huge everywhere", "chosen, before"))
    ]
    huge = huge_bytes()
    with memtherm.watch(chosen, name="x", way=way, interval_s=INTERVAL_S, schemes=[HOT], apply=True) as watched:
        in_turns(matrix, copies, seconds=settle_s)
        way = watched.way
        after = in_turns(matrix, copies, seconds=seconds)
    # Of the copies that nothing happened to, the second measurement counts: it is of the same seconds.
    figures[0], figures[1] = (replace(figures[row], per_s=after[row]) for row in (0, 1))
    figures.append(Figures("chosen, after", resident_bytes(chosen), huge_bytes() - huge + memory[2][1], after[2]))
    return way, figures


def in_turns(matrix: Matrix, copies: list[Floats], *, seconds: float) -> list[float]:
    """Step after step on one copy after the other; nonzeros in a second of each."""
    spent_s, steps = [0.0] * len(copies), 0
    began_s = time.perf_counter()
    sweep_at_s = began_s
    while time.perf_counter() < began_s + seconds:
        is_sweep = time.perf_counter() >= sweep_at_s
        for row, x in enumerate(copies):
            step_s = time.perf_counter()
            assert np.isfinite(matrix.times(x)).all()
            spent_s[row] += time.perf_counter() - step_s
            if is_sweep:
                matrix.sweep(x)
        sweep_at_s += SWEEP_EVERY_S if is_sweep else 0.0
        steps += 1
    return [steps * NONZEROS / one_s for one_s in spent_s]


def as_text(figures: Figures) -> str:
    return (
        f"  {figures.name:16} {mebibytes(figures.resident_bytes):>10} resident, "
        f"{mebibytes(figures.huge_bytes):>9} of it huge, {figures.per_s / 1e6:6.1f} M nonzeros a second"
    )


if __name__ == "__main__":
    main()
