"""What a report is about, in a few words: time, targets, method, and whether it can be believed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from memtherm.core.history import History
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.core.snapshot import Conditions

# So many snapshots are asked, spread over the time: reading all of them would cost as much as the report.
_MOMENTS = 12


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Of some moments, evenly spread over the selected time.

    Attributes:
        since_s, until_s: the selected time, no longer than the run, seconds since the epoch.
        targets: indices into `History.targets` of what is selected.
        conditions: of the last of these moments; None where nothing is selected.
        methods: `census by bpf` and the like, most moments first.
        nr_moments: how many there are.
        doubts: why not to believe it, with the number of moments, most first; numbers within are of the last.
    """

    since_s: float
    until_s: float
    targets: tuple[int, ...]
    conditions: Conditions | None
    methods: tuple[str, ...]
    nr_moments: int
    doubts: tuple[tuple[str, int], ...]


def summary(history: History, *, selection: Selection = EVERYTHING) -> Summary:
    """Reads a few snapshots only; an empty selection has a summary, too."""
    begin_s, end_s = history.time_span_s
    since_s = begin_s if selection.since_s is None else max(begin_s, selection.since_s)
    until_s = end_s if selection.until_s is None else min(end_s, selection.until_s)
    conditions: list[Conditions] = []
    last_s = -np.inf
    for moment_s in np.linspace(since_s, until_s, _MOMENTS).tolist():
        if moment_s <= last_s or moment_s > until_s:
            continue
        report = next(iter(history.reports(replace(selection, since_s=moment_s))), None)
        if report is not None:
            conditions.append(report.snapshot.conditions)
            last_s = report.snapshot.time_s
    methods = Counter(f"{one.method} by {one.probe}" for one in conditions)
    return Summary(
        since_s=since_s,
        until_s=until_s,
        targets=tuple(
            index for index in range(len(history.targets)) if selection.targets is None or index in selection.targets
        ),
        conditions=conditions[-1] if conditions else None,
        methods=tuple(method for method, _ in methods.most_common()),
        nr_moments=len(conditions),
        doubts=_doubts(conditions),
    )


def _doubts(conditions: list[Conditions]) -> tuple[tuple[str, int], ...]:
    """Doubts that differ in their numbers alone are one."""
    count: Counter[str] = Counter()
    text: dict[str, str] = {}
    for one in conditions:
        for doubt in one.doubts:
            kind = "".join(character for character in doubt if not character.isdigit())
            count[kind] += 1
            text[kind] = doubt
    return tuple((text[kind], number) for kind, number in count.most_common())
