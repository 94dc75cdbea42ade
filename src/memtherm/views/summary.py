"""What a report is about, in a few words: time, targets, method, and whether it can be believed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from memtherm.core.history import History
from memtherm.core.selection import EVERYTHING, Selection


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Of all windows that ended within the selected time.

    Attributes:
        since_s, until_s: the selected time, no longer than the run, seconds since the epoch.
        targets: indices into `History.targets` of what is selected.
        methods: `census by bpf` and the like, most windows first.
        nr_windows: how many there are.
        nr_doubted: how many of them are in doubt.
        doubts: why not to believe them, with the number of windows, most first; numbers within are of the last.
    """

    since_s: float
    until_s: float
    targets: tuple[int, ...]
    methods: tuple[str, ...]
    nr_windows: int
    nr_doubted: int
    doubts: tuple[tuple[str, int], ...]


def summary(history: History, *, selection: Selection = EVERYTHING) -> Summary:
    """Reads conditions, and no regions; an empty selection has a summary, too."""
    begin_s, end_s = history.time_span_s
    methods: Counter[tuple[str, str]] = Counter()
    doubted: Counter[tuple[str, ...]] = Counter()
    for one in history.conditions(selection):
        methods[one.method, one.probe] += 1
        if one.doubts:
            # What was seen last comes last.
            doubted[one.doubts] = doubted.pop(one.doubts, 0) + 1
    return Summary(
        since_s=begin_s if selection.since_s is None else max(begin_s, selection.since_s),
        until_s=end_s if selection.until_s is None else min(end_s, selection.until_s),
        targets=tuple(
            index for index in range(len(history.targets)) if selection.targets is None or index in selection.targets
        ),
        methods=tuple(f"{method} by {probe}" for (method, probe), _ in methods.most_common()),
        nr_windows=methods.total(),
        nr_doubted=doubted.total(),
        doubts=_doubts(doubted),
    )


def _doubts(doubted: Counter[tuple[str, ...]]) -> tuple[tuple[str, int], ...]:
    """Doubts that differ in their numbers alone are one."""
    count: Counter[str] = Counter()
    text: dict[str, str] = {}
    for doubts, windows in doubted.items():
        for doubt in doubts:
            kind = "".join(character for character in doubt if not character.isdigit())
            count[kind] += windows
            text[kind] = doubt
    return tuple((text[kind], number) for kind, number in count.most_common())
