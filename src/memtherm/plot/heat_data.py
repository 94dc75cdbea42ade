"""Heat maps of the targets → codes for the page, as fine as its size allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import History
from memtherm.core.selection import Selection
from memtherm.plot.colours import top_rate
from memtherm.plot.packing import age_codes, halved, packed, printable, rate_codes
from memtherm.units import PAGE_SIZE
from memtherm.views.heatmap import HeatMap, heat_maps_of_targets

COLUMNS = 1440
_ROWS = 1024
_LEAST_ROWS = 96
# Of the base64 text of all heat maps together; the rest of the page is below 1.2 MiB.
_MAX_BYTES = 1_700_000
_MAX_NAMES = 3000
_MAX_NAME = 60
_LEAST_AGE_S = 0.05
_PAGES = ~np.uint64(PAGE_SIZE - 1)


def heat_maps(
    history: History, selection: Selection, targets: Sequence[int], *, max_bytes: int = _MAX_BYTES
) -> list[dict[str, Any]]:
    """For each target with regions its heat map in codes; all have the same columns.

    Args:
        targets: each is drawn as a map of its own, so that a small one beside a large one can be seen.
        max_bytes: columns are halved until the packed codes of all maps are within it.
    """
    rows = max(_LEAST_ROWS, _ROWS // max(1, len(targets)))
    found = heat_maps_of_targets(history, targets, selection=selection, rows=rows, columns=COLUMNS, ages=True)
    maps = list(found.items())
    if not maps:
        return []
    begin_s = min(float(one.time_s[0]) for _, one in maps)
    edges = np.linspace(
        begin_s,
        max(float(one.time_s[-1]) for _, one in maps),
        1 + max(len(one.time_s) - 1 for _, one in maps),
    )
    made = [_Codes(target, _on_columns(one, edges), history) for target, one in maps]
    while sum(one.nr_bytes for one in made) > max_bytes and made[0].columns > 1:
        for one in made:
            one.halve()
    origin_s = history.time_span_s[0]
    return [one.data(begin_s - origin_s, len(made)) for one in made]


def _on_columns(heat: HeatMap, edges: NDArray[np.float64]) -> HeatMap:
    """The same map on other columns, each taken from the one that holds its middle."""
    if len(heat.time_s) == len(edges) and np.allclose(heat.time_s, edges, rtol=0, atol=1e-6):
        return heat
    middle = (edges[:-1] + edges[1:]) / 2
    column = np.searchsorted(heat.time_s, middle, side="right") - 1
    is_outside = (column < 0) | (column >= heat.heat.shape[1])
    column = np.clip(column, 0, heat.heat.shape[1] - 1)

    def moved(values: NDArray[np.float64], blank: float) -> NDArray[np.float64]:
        return np.where(is_outside, blank, values[:, column])

    age_s = None if heat.age_s is None else moved(heat.age_s, np.nan)
    return replace(heat, heat=moved(heat.heat, np.nan), watched=moved(heat.watched, 0.0), age_s=age_s, time_s=edges)


class _Codes:
    """One target's map, which can be made coarser."""

    def __init__(self, target: int, heat: HeatMap, history: History) -> None:
        info = history.targets[target]
        self._target, self._heat, self._name = target, heat, printable(f"{info.name} ({info.pid})")
        self._rate, self._watched = heat.heat, heat.watched
        # Halved, there may be half a column beyond the end.
        self._column_s = float(heat.time_s[1] - heat.time_s[0])
        self._age = heat.heat * np.nan if heat.age_s is None else heat.age_s
        self._top_age_s = float(np.nanmax(self._age, initial=1.0))
        self._pack()

    @property
    def columns(self) -> int:
        return int(self._rate.shape[1])

    @property
    def nr_bytes(self) -> int:
        return len(self._packed_rate["data"]) + len(self._packed_age["data"])

    def halve(self) -> None:
        self._age, _ = halved(self._age, self._watched)
        self._rate, self._watched = halved(self._rate, self._watched)
        self._column_s *= 2
        self._pack()

    def _pack(self) -> None:
        self._packed_rate = packed(rate_codes(self._rate), "u8")
        codes = age_codes(self._age, least_age_s=_LEAST_AGE_S, top_age_s=self._top_age_s)
        self._packed_age = packed(codes, "u8")

    def data(self, first_s: float, nr_maps: int) -> dict[str, Any]:
        heat = self._heat
        return {
            "target": self._target,
            "target_name": self._name,
            "rows": len(heat.row_start),
            "columns": self.columns,
            "first_s": first_s,
            "last_s": first_s + self.columns * self._column_s,
            "top_rate": top_rate(heat.heat),
            "top_age_s": self._top_age_s,
            "least_age_s": _LEAST_AGE_S,
            "rate": self._packed_rate,
            "age": self._packed_age,
            # Rows end anywhere; memory is in pages.
            "row_start": packed(heat.row_start & _PAGES, "u64"),
            "row_end": packed(heat.row_end & _PAGES, "u64"),
            "pieces": _pieces(heat),
            "names": _names(heat, _MAX_NAMES // nr_maps),
            "cell_bytes": float(np.median((heat.row_end - heat.row_start).astype(np.float64))),
            "left_out_bytes": heat.left_out_bytes,
        }


def _pieces(heat: HeatMap) -> list[dict[str, Any]]:
    """Runs of rows with one name, from the lowest address up; none reaches over a fold."""
    pieces: list[dict[str, Any]] = []
    for shown in heat.ranges:
        rows = slice(shown.first_row, shown.end_row)
        starts, ends = heat.row_start[rows].astype(np.float64), heat.row_end[rows].astype(np.float64)
        owner = np.full(len(starts), -1, np.int64)
        most = np.zeros(len(starts))
        for index, part in enumerate(shown.parts):
            first = int(np.searchsorted(ends, part.start, side="right"))
            last = int(np.searchsorted(starts, part.end, side="left"))
            inside = slice(first, last)
            overlap = np.minimum(ends[inside], part.end) - np.maximum(starts[inside], part.start)
            owner[inside] = np.where(overlap > most[inside], index, owner[inside])
            most[inside] = np.maximum(overlap, most[inside])
        borders = np.flatnonzero(np.append(True, np.diff(owner) != 0)).tolist()
        for first, end in zip(borders, [*borders[1:], len(owner)], strict=True):
            name = shown.parts[owner[first]].name if owner[first] >= 0 else shown.name if not shown.parts else ""
            rows_of_piece = {"first_row": shown.first_row + first, "end_row": shown.first_row + end}
            pieces.append({"name": printable(name, most=_MAX_NAME), **rows_of_piece})
    return pieces


def _names(heat: HeatMap, most: int) -> dict[str, Any]:
    """What mapping is where: addresses, and for each the number of its name; of too many the largest."""
    parts = sorted((part for shown in heat.ranges for part in shown.parts), key=lambda part: part.start - part.end)
    parts = sorted(parts[:most], key=lambda part: part.start)
    names = {name: index for index, name in enumerate(dict.fromkeys(part.name for part in parts))}
    return {
        "start": packed(np.array([part.start for part in parts], np.uint64), "u64"),
        "end": packed(np.array([part.end for part in parts], np.uint64), "u64"),
        "name": packed(np.array([names[part.name] for part in parts], np.uint32), "u32"),
        "texts": [printable(name, most=_MAX_NAME) for name in names],
    }
