"""Memory on virtual time whose accesses are known exactly: for tests, and for what cannot be run here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.census import PAGES, PageBits, page_count, unpacked
from memtherm.core.protocols import Clock
from memtherm.core.ranges import Addresses, Flags, intersect, join_adjacent
from memtherm.core.regions import Range
from memtherm.errors import TargetGone
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

_UNIT = np.uint64(HUGE_PAGE_SIZE)
_GIB = 1 << 30


@dataclass(frozen=True)
class HotRange:
    """Pages that are all touched together, once each `period_s`, from `begin_s` until `end_s`."""

    start: int
    end: int
    period_s: float
    begin_s: float = 0.0
    end_s: float = float("inf")


class SimulatedProbe:
    """A Probe over an imaginary address space.

    Args:
        ranges: what is mapped; assign to `mapped` to change it.
        hot: what is touched, and when; may be assigned to, too.
        clock: tells the time of clearing and reading.

    Attributes:
        alive: set it to False and every call raises TargetGone.
    """

    name = "simulated"
    grain = "page"
    clearing = "none"
    generation = 0
    unclear_share = 0.0
    min_sampling_interval_s = 0.0

    def __init__(self, ranges: Sequence[Range], *, hot: Sequence[HotRange], clock: Clock) -> None:
        self.mapped = list(ranges)
        self.hot = tuple(hot)
        self.alive = True
        self._clock = clock
        self._cleared_at_s: dict[int, float] = {}

    def ranges(self) -> list[Range]:
        self._check()
        return list(self.mapped)

    def clear(self, addresses: Addresses) -> None:
        self._check()
        now_s = self._clock.monotonic_s()
        self._cleared_at_s.update(dict.fromkeys((addresses // PAGE_SIZE).tolist(), now_s))

    def read(self, addresses: Addresses) -> Flags:
        """A page that was never cleared counts as touched since the beginning of time."""
        self._check()
        now_s = self._clock.monotonic_s()
        since_s = np.array([self._cleared_at_s.get(page, -1.0) for page in (addresses // PAGE_SIZE).tolist()])
        accessed = np.zeros(len(addresses), np.bool_)
        for hot in self.hot:
            inside = (addresses >= hot.start) & (addresses < hot.end)
            accessed |= inside & _touched(hot, since_s, now_s)
        return accessed

    def close(self) -> None:
        self._cleared_at_s.clear()

    def _check(self) -> None:
        if not self.alive:
            raise TargetGone("the simulated target has exited")


@dataclass(frozen=True)
class CensusCosts:
    """CPU seconds that looks and clears of a SimulatedCensusProbe take, as measured (design: census).

    Attributes:
        look_s: for each GiB of mapped memory.
        clear_range_s, clear_page_s: clearing page by page.
        clear_refs_s: for each GiB of present memory; the target waits as long.
    """

    look_s: float = 0.0004
    clear_range_s: float = 1.7e-6
    clear_page_s: float = 0.08e-6
    clear_refs_s: float = 0.02


FREE = CensusCosts(0, 0, 0, 0)


class SimulatedCensusProbe:
    """A CensusProbe over an imaginary address space, in which what is touched becomes present.

    Only units of 2 MiB with a present page take memory here, so that a target of 1 TiB can be imagined.

    Args:
        ranges: what is mapped; assign to `mapped` to change it.
        hot: what is touched, and when; may be assigned to, too.
        present: what is present from the beginning.
        huge: whole units in huge pages, present from the beginning.
        clock: tells the time of looks and clears.
        costs, use_cpu: what looks and clears cost, and whom to charge: `VirtualClock.use_cpu`.

    Attributes:
        stuck: pages whose bits do not clear page by page; assign to it.
        alive: set it to False and every call raises TargetGone.
        generation: add 1 for an exec; its memory is to be changed beside it.
        nr_looks, nr_cleared_units, nr_clear_refs: what was asked for.
    """

    name = "simulated"

    def __init__(
        self,
        ranges: Sequence[Range],
        *,
        hot: Sequence[HotRange] = (),
        present: Sequence[Range] = (),
        huge: Sequence[Range] = (),
        clock: Clock,
        costs: CensusCosts = FREE,
        use_cpu: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.mapped = list(ranges)
        self.hot = tuple(hot)
        self.stuck: Sequence[Range] = ()
        self.alive = True
        self.generation = 0
        self.min_sampling_interval_s = 0.0
        self.clearing = "cold"
        self.nr_looks = 0
        self.nr_cleared_units = 0
        self.nr_clear_refs = 0
        self._costs = costs
        self._use_cpu = use_cpu
        self._clock = clock
        self._touched_until_s = -1.0
        self._bits = PageBits(
            np.zeros(0, np.uint64), np.zeros(0, np.bool_), np.zeros((0, 8), np.uint64), np.zeros((0, 8), np.uint64)
        )
        self._touch([*present, *huge])
        self._bits.accessed[:] = 0
        self._bits.is_huge[:] = self._mask(self._bits.address, huge).any(axis=1)

    def ranges(self) -> list[Range]:
        self._check()
        return list(self.mapped)

    def look(self) -> PageBits:
        self._check()
        self._pass_time()
        self.nr_looks += 1
        self._use_cpu(sum(end - start for start, end in self.mapped) / _GIB * self._costs.look_s)
        bits = self._bits
        return PageBits(bits.address.copy(), bits.is_huge.copy(), bits.present.copy(), bits.accessed.copy())

    def swapped(self) -> Addresses:
        """Nothing: imaginary memory is never swapped."""
        return np.zeros(0, np.uint64)

    def clear(self, bits: PageBits) -> PageBits:
        self._check()
        self._pass_time()
        if self.clearing == "clear_refs":
            self.nr_clear_refs += 1
            self._use_cpu(self._clear_refs_s())
            self._bits.accessed[:] = 0
            return bits.take(np.zeros(0, np.int64))
        self.nr_cleared_units += len(bits)
        pages = unpacked(bits.accessed)
        opens = np.diff(pages, axis=1, prepend=0) == 1
        self._use_cpu(float(opens.sum() * self._costs.clear_range_s + pages.sum() * self._costs.clear_page_s))
        rows = np.searchsorted(self._bits.address, bits.address)
        stuck = bits.accessed & self._mask(bits.address, self.stuck)
        self._bits.accessed[rows] &= ~bits.accessed | stuck
        return PageBits(bits.address, bits.is_huge, bits.present, stuck).take(np.flatnonzero(stuck.any(axis=1)))

    def clear_everything(self, *, longest_stall_s: float) -> bool:
        """From now on by clear_refs if that is short enough, else page by page."""
        self._check()
        self.clearing = "clear_refs" if self._clear_refs_s() < longest_stall_s else "cold"
        return self.clearing == "clear_refs"

    def close(self) -> None:
        """Nothing is held."""

    def _clear_refs_s(self) -> float:
        return page_count(self._bits.present) * PAGE_SIZE / _GIB * self._costs.clear_refs_s

    def _pass_time(self) -> None:
        """Touch what was touched since this was called last, and drop what is mapped no longer."""
        now_s, since_s = self._clock.monotonic_s(), self._touched_until_s
        self._touched_until_s = now_s
        since = np.array([since_s])
        self._touch([(hot.start, hot.end) for hot in self.hot if _touched(hot, since, now_s)[0]])
        bits, mapped = self._bits, self._mask(self._bits.address, self.mapped)
        bits.present[:] &= mapped
        bits.accessed[:] &= mapped
        self._bits = bits.take(np.flatnonzero(bits.present.any(axis=1)))

    def _touch(self, ranges: Sequence[Range]) -> None:
        """These pages become present and accessed, where they are mapped."""
        low, high, _, _ = intersect(*_columns(ranges), *_columns(self.mapped))
        if len(low) == 0:
            return
        first, last = join_adjacent(low // _UNIT * _UNIT, (high + _UNIT - np.uint64(1)) // _UNIT * _UNIT)
        units = [range(begin, stop, HUGE_PAGE_SIZE) for begin, stop in zip(first.tolist(), last.tolist(), strict=True)]
        self._add(np.array([address for some in units for address in some], np.uint64))
        bits = self._bits
        touched = self._mask(bits.address, list(zip(low.tolist(), high.tolist(), strict=True)))
        touched[bits.is_huge & touched.any(axis=1)] = ~np.uint64(0)
        bits.present[:] |= touched
        bits.accessed[:] |= touched

    def _add(self, units: Addresses) -> None:
        bits = self._bits
        new = units[~np.isin(units, bits.address)]
        if len(new) == 0:
            return
        none = np.zeros((len(new), 8), np.uint64)
        whole = PageBits(
            np.concatenate([bits.address, new]),
            np.concatenate([bits.is_huge, np.zeros(len(new), np.bool_)]),
            np.concatenate([bits.present, none]),
            np.concatenate([bits.accessed, none]),
        )
        self._bits = whole.take(np.argsort(whole.address))

    def _mask(self, units: Addresses, ranges: Sequence[Range]) -> NDArray[np.uint64]:
        """The pages of ranges as bits (uint64[n, 8]) of these units."""
        low, high, row, _ = intersect(units, units + _UNIT, *_columns(ranges))
        mask = np.zeros((len(units), 8), np.uint64)
        is_whole = high - low == _UNIT
        mask[row[is_whole]] = ~np.uint64(0)
        parts = row[~is_whole]
        first = ((low[~is_whole] - units[parts]) // np.uint64(PAGE_SIZE)).tolist()
        last = ((high[~is_whole] - units[parts]) // np.uint64(PAGE_SIZE)).tolist()
        for index, begin, stop in zip(parts.tolist(), first, last, strict=True):
            pages = np.zeros(PAGES, np.bool_)
            pages[begin:stop] = True
            mask[index] |= np.packbits(pages, bitorder="little").view(np.uint64)
        return mask

    def _check(self) -> None:
        if not self.alive:
            raise TargetGone("the simulated target has exited")


def _columns(ranges: Sequence[Range]) -> tuple[Addresses, Addresses]:
    columns = np.array(ranges, np.uint64).reshape(-1, 2)
    return join_adjacent(columns[:, 0], columns[:, 1])


def _touched(hot: HotRange, since_s: np.ndarray[tuple[int], np.dtype[np.float64]], now_s: float) -> Flags:
    """Whether a touch lies in (since, now]; touches are at begin, begin + period, …"""
    last = np.floor((min(now_s, hot.end_s) - hot.begin_s) / hot.period_s + 1e-9)
    touched: Flags = (last >= 0) & (hot.begin_s + last * hot.period_s > since_s + 1e-9)
    return touched
