"""Two runs side by side: which mappings became hotter or colder, and by how many bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import History
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.errors import InvalidInput
from memtherm.views.attribution import Attributed, attribute
from memtherm.views.mappings import ANY_ACCESS
from memtherm.views.profile import Grid, common_grid, profile

TOLERANCE = 0.05
ALL = "all"
_NR_CLASSES = 200


@dataclass(frozen=True, kw_only=True)
class MappingDifference:
    """The mappings of one name in both runs, all targets together; means over time.

    Attributes:
        name: last part of the path, or `heap`, `stack`, `anonymous`: addresses differ from run to run.
        before_bytes, after_bytes: watched.
        before_rate, after_rate: mean access rate over them (0..1).
        hotter_bytes, colder_bytes: bytes whose rate rose or fell by more than the tolerance.  They are compared
            by their place in the mapping, wherever that is mapped: see `views.profile`.  Anonymous memory of
            different processes has no place: there the hottest bytes of the one are compared with the hottest of
            the other, and so on down.
        added_bytes, removed_bytes: bytes that only one of them has.
    """

    name: str
    before_bytes: float
    after_bytes: float
    before_rate: float
    after_rate: float
    hotter_bytes: float
    colder_bytes: float
    added_bytes: float
    removed_bytes: float

    @property
    def changed_bytes(self) -> float:
        return self.hotter_bytes + self.colder_bytes + self.added_bytes + self.removed_bytes


@dataclass(frozen=True, kw_only=True)
class Difference:
    """All mappings of both, the largest change first.

    Attributes:
        tolerance: rates that differ by no more than this are equal (0..1).
        total: the sums of all mappings, named `all`.
    """

    tolerance: float
    mappings: tuple[MappingDifference, ...]
    total: MappingDifference


@dataclass(frozen=True)
class _Side:
    class_bytes: NDArray[np.float64]
    access_rate: float

    @property
    def size_bytes(self) -> float:
        return float(self.class_bytes.sum())


_NOTHING = _Side(np.zeros(_NR_CLASSES + 1), 0.0)


def difference(
    before: History,
    after: History,
    *,
    before_selection: Selection = EVERYTHING,
    after_selection: Selection = EVERYTHING,
    tolerance: float = TOLERANCE,
) -> Difference:
    """What became hotter or colder from one run to another.

    Args:
        tolerance: rates that differ by no more than this are equal (0..1); the finest is 0.5 %.

    Raises:
        InvalidInput: nothing is selected in one of them; a tolerance that is not from 0 to 1.
    """
    if not 0 <= tolerance <= 1:
        raise InvalidInput(f"a tolerance of {tolerance:g}", hint="it is an access rate, from 0 % to 100 %")
    rates = np.concatenate(([ANY_ACCESS], np.arange(1, _NR_CLASSES) / _NR_CLASSES))
    runs, selections = (before, after), (before_selection, after_selection)
    found = [attribute(run, one, class_rates=rates)[0] for run, one in zip(runs, selections, strict=True)]
    sides = [_by_name(one) for one in found]
    changes = _changes_by_place(runs, selections, max(tolerance, 1 / _NR_CLASSES) + 1e-9)
    # What has no place is compared by rank.
    ranked = [
        _by_name(
            one for one in of_run if one.path is None or changes.grid.key_of(one.path, run.targets[one.target]) is None
        )
        for run, of_run in zip(runs, found, strict=True)
    ]
    mappings = []
    for name in sides[0] | sides[1]:
        rank = _changes_by_rank(ranked[0].get(name, _NOTHING), ranked[1].get(name, _NOTHING), tolerance)
        pair = sides[0].get(name, _NOTHING), sides[1].get(name, _NOTHING)
        mappings.append(_compared(name, *pair, rank + changes.of_name.get(name, 0.0)))
    mappings.sort(key=lambda one: (-(one.hotter_bytes + one.colder_bytes), -one.changed_bytes, one.name))
    return Difference(tolerance=tolerance, mappings=tuple(mappings), total=_total(mappings))


@dataclass(frozen=True)
class _ByPlace:
    """For each name bytes that are hotter, colder, added and removed, of mappings that have places in both."""

    grid: Grid
    of_name: dict[str, NDArray[np.float64]]


def _changes_by_place(runs: tuple[History, History], selections: tuple[Selection, Selection], least: float) -> _ByPlace:
    grid = common_grid(runs, selections)
    of_name: dict[str, NDArray[np.float64]] = {}
    if grid.total_cells == 0:
        return _ByPlace(grid, of_name)
    before, after = (profile(run, one, grid=grid) for run, one in zip(runs, selections, strict=True))
    common = np.minimum(before.size_bytes, after.size_bytes)
    change = after.access_rate - before.access_rate
    more = after.size_bytes - before.size_bytes
    cells = np.vstack(
        (
            np.where(change > least, common, 0.0),
            np.where(change < -least, common, 0.0),
            np.maximum(0.0, more),
            np.maximum(0.0, -more),
        )
    )
    for key in grid.first_cell:
        of_name[key[0]] = of_name.get(key[0], 0.0) + cells[:, grid.cells(key)].sum(axis=1)
    return _ByPlace(grid, of_name)


def _by_name(found: Iterable[Attributed]) -> dict[str, _Side]:
    sides: dict[str, _Side] = {}
    for one in found:
        if one.watched_bytes > 0:
            known = sides.get(one.name, _NOTHING)
            total = known.size_bytes + one.watched_bytes
            rate = (known.access_rate * known.size_bytes + one.access_rate * one.watched_bytes) / total
            sides[one.name] = _Side(known.class_bytes + one.class_bytes, rate)
    return sides


def _changes_by_rank(before: _Side, after: _Side, tolerance: float) -> NDArray[np.float64]:
    """Hotter, colder, added and removed bytes, the hottest of the one beside the hottest of the other."""
    hotter, colder = _moved(before.class_bytes, after.class_bytes, tolerance)
    more = after.size_bytes - before.size_bytes
    return np.array([hotter, colder, max(0.0, more), max(0.0, -more)])


def _compared(name: str, before: _Side, after: _Side, changes: NDArray[np.float64]) -> MappingDifference:
    hotter, colder, added, removed = changes.tolist()
    return MappingDifference(
        name=name,
        before_bytes=before.size_bytes,
        after_bytes=after.size_bytes,
        before_rate=before.access_rate,
        after_rate=after.access_rate,
        hotter_bytes=hotter,
        colder_bytes=colder,
        added_bytes=added,
        removed_bytes=removed,
    )


def _moved(before: NDArray[np.float64], after: NDArray[np.float64], tolerance: float) -> tuple[float, float]:
    """Bytes that are hotter and colder after, when both are laid side by side from the hottest class down."""
    reached = [np.cumsum(classes[::-1]) for classes in (before, after)]
    common = min(reached[0][-1], reached[1][-1])
    borders = np.unique(np.concatenate(([0.0], *reached)))
    borders = np.append(borders[borders < common], common)
    middle = (borders[1:] + borders[:-1]) / 2
    rate = [(len(before) - 1 - np.searchsorted(one, middle, side="right")) / (len(before) - 1) for one in reached]
    change = rate[1] - rate[0]
    size = np.diff(borders)
    # Classes are as wide as the finest tolerance: a change by a part of one is none.
    least = max(tolerance, 1 / (len(before) - 1)) + 1e-9
    return float(size[change > least].sum()), float(size[change < -least].sum())


def _total(mappings: list[MappingDifference]) -> MappingDifference:
    sums = {
        name: float(sum(getattr(one, name) for one in mappings))
        for name in ("before_bytes", "after_bytes", "hotter_bytes", "colder_bytes", "added_bytes", "removed_bytes")
    }
    rates = {
        side: sum(getattr(one, f"{side}_rate") * getattr(one, f"{side}_bytes") for one in mappings)
        / max(1e-9, sums[f"{side}_bytes"])
        for side in ("before", "after")
    }
    return MappingDifference(name=ALL, before_rate=rates["before"], after_rate=rates["after"], **sums)
