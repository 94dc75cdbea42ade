"""A run → all that the page shows, as plain values; every number comes from `views`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import History
from memtherm.core.ranges import Counts
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.plot.colours import age_colours, heat_colours
from memtherm.plot.heat_data import heat_maps
from memtherm.plot.packing import packed, printable, thinned
from memtherm.units import format_rate, format_size, format_time
from memtherm.views.conditions import ConditionsOfRun, Share, conditions_of_run
from memtherm.views.distribution import Distribution, distributions
from memtherm.views.mappings import MappingsHeat, mappings_heat
from memtherm.views.scheme_history import SchemeHistory, scheme_histories
from memtherm.views.weighted import Histogram
from memtherm.views.working_set import WorkingSet, working_set

# Each has its own heat map and distributions; the others are in the numbers of all.
MAX_TARGETS = 8
_MAX_POINTS = 30_000
_MAX_MAPPINGS = 600
_MAX_PATH = 200
_MAX_DOUBTS = 30
_MAX_REASONS = 12
_MAX_EVENTS = 500
_MAX_SCHEMES = 24
_BINS_PER_SIDE = 7

_Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PageFacts:
    """What the page says of itself, besides what the run tells.

    Attributes:
        title: heading.
        facts: name and value of each line below "How this was measured": command, host and the like.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()


def page_data(history: History, page: PageFacts, *, selection: Selection = EVERYTHING) -> dict[str, Any]:
    """Everything for the page.  Some passes over the run, and no more of them where there are many targets.

    Raises:
        InvalidInput: nothing is selected.
    """
    begin_s, end_s = history.time_span_s
    found = working_set(history, selection=selection)
    conditions = conditions_of_run(history, selection=selection)
    schemes = scheme_histories(history, selection=selection)
    mappings = mappings_heat(history, selection=selection)
    shown, nr_hidden = _targets(found)
    heats = heat_maps(history, selection, shown)
    points = _MAX_POINTS // (4 * (len(shown) + 1 + min(len(schemes), _MAX_SCHEMES)))
    parts = [None, *shown] if len(found.targets) > 1 else shown
    means = distributions(history, parts, selection=selection)
    whole = _Whole(history=history, working_set=found, heats=heats, points=points)
    return {
        "title": printable(page.title),
        "subtitle": _subtitle(history, conditions, nr_hidden),
        "begin_s": begin_s,
        "end_s": end_s,
        "colours": {"rate": packed(heat_colours(), "u8"), "age": packed(age_colours(), "u8")},
        "belief": _belief(conditions),
        "doubts": [printable(_windows(doubt)) for doubt in conditions.doubts[:_MAX_DOUBTS]],
        "conditions": _conditions(conditions),
        "facts": [[printable(name[:1].upper() + name[1:]), printable(value)] for name, value in page.facts],
        "events": _events(history, selection),
        "schemes": [_scheme(one, begin_s, points) for one in schemes[:_MAX_SCHEMES]],
        "heats": heats,
        "mappings": _mappings(mappings, history),
        "parts": [_part(whole, target, means[target]) for target in parts],
    }


def _target_name(history: History, target: int) -> str:
    info = history.targets[target]
    return printable(f"{info.name} ({info.pid})")


def _targets(found: WorkingSet) -> tuple[list[int], int]:
    """The targets with most watched memory, in their order, and how many others there are."""
    watched = found.watched_bytes.sum(axis=0)
    largest = np.argsort(-watched, kind="stable")[:MAX_TARGETS]
    shown = [found.targets[column] for column in np.sort(largest).tolist() if watched[column] > 0]
    return shown, len(found.targets) - len(shown)


def _subtitle(history: History, conditions: ConditionsOfRun, nr_hidden: int) -> list[str]:
    begin_s, end_s = history.time_span_s
    method = ", ".join(share.text for share in conditions.methods)
    probe = ", ".join(share.text for share in conditions.probes)
    parts = [
        f"{format_time(end_s - begin_s)} in {conditions.nr_windows} windows",
        f"{method} by {probe}" if probe else method,
    ]
    if nr_hidden:
        parts.append(f"{nr_hidden} small targets have no map of their own")
    return [printable(part) for part in parts if part]


# ---- belief and conditions


def _windows(share: Share) -> str:
    return f"{share.text} ({share.nr_windows} {'window' if share.nr_windows == 1 else 'windows'})"


def _belief(conditions: ConditionsOfRun) -> str:
    if not conditions.doubts:
        return f"No doubts about these numbers in any of the {conditions.nr_windows} windows."
    return f"There is doubt about {conditions.nr_doubted} of the {conditions.nr_windows} windows."


def _interval(bounds: tuple[float, float]) -> str:
    low, high = (format_time(bound) for bound in bounds)
    return low if low == high else f"{low} to {high}"


def _conditions(one: ConditionsOfRun) -> list[list[str]]:
    def shares(found: tuple[Share, ...]) -> str:
        return found[0].text if len(found) == 1 else "; ".join(_windows(share) for share in found)

    rows = [
        ("Method", shares(one.methods)),
        ("Why", shares(one.reasons)),
        ("Accesses seen by", shares(one.probes)),
        ("Accessed bits cleared by", shares(one.clearings)),
        ("Grain", shares(one.grains)),
        ("Looks every", _interval(one.sampling_interval_s)),
        ("Windows of", _interval(one.aggregation_interval_s)),
        ("Late looks", f"{one.late_samples} of {one.samples} ({format_rate(one.late_samples / max(1, one.samples))})"),
        ("Cannot be cleared", f"at most {format_rate(one.unclear_share)} of the pages, counted as accessed"),
        ("Not looked at each time", f"at most {format_rate(one.uncovered_share)} of the memory"),
        ("CPU of memtherm", f"{one.agent_cpu_percent:.2f} % of one CPU"),
    ]
    return [[name, printable(value)] for name, value in rows if value]


def _events(history: History, selection: Selection) -> dict[str, Any]:
    begin_s = history.time_span_s[0]
    rows: list[dict[str, Any]] = []
    more = 0
    for event in history.events(selection):
        if len(rows) < _MAX_EVENTS:
            rows.append({"time_s": event.time_s - begin_s, "text": printable(event.text)})
        else:
            more += 1
    return {"rows": rows, "note": f"{more} later events are left out" if more else ""}


# ---- schemes


def _scheme(one: SchemeHistory, begin_s: float, points: int) -> dict[str, Any]:
    resting = len(one.is_active) - int(one.is_active.sum())
    lines = {"matched": one.matched_bytes, "tried": one.tried_bytes, "applied": one.applied_bytes}
    most_matched, most_tried = (int(lines[name].max(initial=0)) for name in ("matched", "tried"))
    return {
        "name": printable(one.name or str(one.action)),
        "action": printable(str(one.action)),
        "totals": [
            ["Tried", _total(one.tried_bytes)],
            ["Applied, as found afterwards", _total(one.applied_bytes)],
            ["Refused", _total(one.refused_bytes)],
            ["Left out by filters", _total(one.filtered_bytes)],
            ["Rested", f"{resting} of {len(one.is_active)} windows"],
        ],
        # Beside much that is matched the others would be flat: it is drawn when it is asked for.
        "is_mostly_matched": 0 < 4 * most_tried < most_matched,
        "refused": [
            [printable(refusal.reason), format_size(refusal.size_bytes)] for refusal in one.refused[:_MAX_REASONS]
        ],
        "states": [[printable(state.text), str(state.nr_windows)] for state in one.states[:_MAX_REASONS]],
        "lines": [
            {"name": name.capitalize(), **_line(one.time_s - begin_s, values.astype(np.float64), points)}
            for name, values in (lines | {"refused": one.refused_bytes}).items()
        ],
    }


def _total(windows: Counts) -> str:
    return format_size(int(windows.sum()))


def _line(time_s: _Numbers, values: _Numbers, points: int) -> dict[str, Any]:
    times, chosen = thinned(time_s, values, points=max(points, 64))
    return {"time_s": packed(times, "f64"), "values": packed(chosen, "f64")}


# ---- what is shown of one target, or of all


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """What all parts of the page are made from."""

    history: History
    working_set: WorkingSet
    heats: list[dict[str, Any]]
    points: int


def _part(whole: _Whole, target: int | None, found: Distribution) -> dict[str, Any]:
    """Of one target, or of all of them (None)."""
    name = f"all {len(whole.working_set.targets)} targets" if target is None else _target_name(whole.history, target)
    return {
        "name": name,
        "target": target,
        "heats": [index for index, heat in enumerate(whole.heats) if target in (None, heat["target"])],
        "tiles": _tiles(whole.working_set, target, found),
        "working_set": _working_set(whole, target, name),
        "distribution_note": f"means over {format_time(found.window_s)}",
        "distributions": _distributions(found),
        "idle": [
            [f"{point:g} %", _time(value)] for point, value in zip(found.idle.points, found.idle.values, strict=True)
        ],
    }


def _tiles(found: WorkingSet, target: int | None, means: Distribution) -> list[list[str]]:
    percentiles = found.percentiles(target, points=(50.0, 95.0))
    idle_bytes = means.watched_bytes - means.accessed_bytes
    tiles = [
        ["Working set", format_size(percentiles.size_bytes[0]), "median over time"],
        ["Working set, 95 %", format_size(percentiles.size_bytes[1]), "of the time at most this"],
        ["Idle", format_size(idle_bytes), f"of {format_size(means.watched_bytes)} watched, mean"],
        ["Bandwidth", f"{format_size(means.bandwidth_bytes_per_s)}/s", "a rough guess from the accesses"],
    ]
    resident = found.resident_of(target)
    if len(known := resident[np.isfinite(resident)]):
        note = f"at the end; at most {format_size(float(known.max()))}"
        tiles.insert(2, ["RSS", format_size(float(known[-1])), note])
    return tiles


def _working_set(whole: _Whole, target: int | None, name: str) -> dict[str, Any]:
    found, begin_s = whole.working_set, whole.history.time_span_s[0]
    percentiles = found.percentiles(target)
    window_s, vitals_s = found.time_s - begin_s, found.vitals_time_s - begin_s
    swap = found.swap_bytes if target is None else found.swap_bytes[:, [found.targets.index(target)]]
    lines = [
        ("Working set", window_s, found.of_target(target, found.size_bytes).astype(np.float64)),
        ("RSS", vitals_s, found.resident_of(target)),
        ("Watched", window_s, found.of_target(target, found.watched_bytes).astype(np.float64)),
        ("Swap", vitals_s, np.where(np.isfinite(swap).any(axis=1), np.nansum(swap, axis=1), np.nan)),
    ]
    columns = (percentiles.size_bytes, percentiles.sure_bytes, percentiles.possible_bytes)
    rows = zip(percentiles.points, zip(*columns, strict=True), strict=True)
    least = f"at a rate of {format_rate(found.min_access_rate)} or more" if found.min_access_rate else ""
    return {
        "label": f"Working set and RSS of {name} over time",
        "note": " ".join(["bytes in regions that were accessed in their window", least]).strip(),
        "percentile_titles": ["Of the time", "at most", "surely", "possibly"],
        "percentiles": [[f"{point:g} %", *map(format_size, sizes)] for point, sizes in rows]
        + [["mean", format_size(percentiles.mean_bytes), "", ""]],
        "lines": [
            {"name": title, **_line(time_s, values, whole.points)}
            for title, time_s, values in lines
            if np.isfinite(values).any()
        ],
    }


def _mappings(found: MappingsHeat, history: History) -> dict[str, Any]:
    largest = sorted(found.mappings, key=lambda row: (-row.hot_bytes, -row.size_bytes))[:_MAX_MAPPINGS]
    more = len(found.mappings) - len(largest)
    notes = [
        f"means over time; hot: {format_rate(found.hot_access_rate)} or more, cold: not accessed",
        "" if found.has_mappings else "the record knows no mappings",
        f"{more} smaller ones are left out" if more else "",
    ]
    return {
        "note": "; ".join(filter(None, notes)),
        "rows": [
            {
                "target": row.target,
                "target_name": _target_name(history, row.target),
                "name": printable(row.name, most=_MAX_PATH),
                "path": printable(row.path, most=_MAX_PATH),
                "size_bytes": round(row.size_bytes),
                "hot_bytes": round(row.hot_bytes),
                "warm_bytes": round(row.warm_bytes),
                "cold_bytes": round(row.cold_bytes),
                "access_rate": round(row.access_rate, 6),
                "idle_s": round(row.idle_s, 3),
            }
            for row in largest
        ],
    }


def _distributions(one: Distribution) -> list[dict[str, Any]]:
    return [
        {
            "title": "Access rate",
            "note": "of the bytes that were accessed",
            "rows": _bars(one.access_rate, format_rate, "hot"),
        },
        {
            "title": "Idle time",
            "note": "of the bytes that were not",
            "rows": _bars(_coarse(one.idle_log), _time, "cold"),
        },
        {
            "title": "Temperature",
            "note": "of all bytes: seconds in use (+), idle (−)",
            "rows": _bars(_coarse(one.temperature_log), _time, "both"),
        },
    ]


def _coarse(histogram: Histogram) -> Histogram:
    """The largest bins on each side of 0, and one for all that is nearer to it: short times fill many bins."""
    edges = histogram.edges
    outer = np.concatenate((edges[edges < 0][:_BINS_PER_SIDE], [0.0], edges[edges > 0][-_BINS_PER_SIDE:]))
    total = np.concatenate(([0.0], np.cumsum(histogram.size_bytes)))
    return Histogram(outer, np.diff(total[np.searchsorted(edges, outer)]))


def _time(value_s: float) -> str:
    if value_s == 0:
        return "0 s"
    return f"−{format_time(-value_s)}" if value_s < 0 else format_time(value_s)


def _bars(histogram: Histogram, text: Callable[[float], str], kind: str) -> list[dict[str, Any]]:
    edges, sizes = histogram.edges.tolist(), histogram.size_bytes.tolist()
    return [
        {
            "label": f"{text(low)} to {text(high)}",
            "bytes": round(size),
            "kind": kind if kind != "both" else "hot" if low >= 0 else "cold",
        }
        for low, high, size in zip(edges[:-1], edges[1:], sizes, strict=True)
    ]
