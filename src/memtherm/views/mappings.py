"""Which file, heap or stack is hot or cold, and how large it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtherm.core.history import History
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.errors import InvalidInput
from memtherm.units import format_rate
from memtherm.views.attribution import Attributed, attribute

HOT_ACCESS_RATE = 0.5
# What separates accessed from not accessed: the least rate that is above 0.
ANY_ACCESS = 1e-12


@dataclass(frozen=True, kw_only=True)
class MappingHeat:
    """All mappings of one path in one target; bytes are means over the time in which the target was watched.

    Attributes:
        target: index into `History.targets`.
        name: last part of the path, or `heap`, `stack`, `anonymous`; `unknown` outside of all known mappings.
        path: as in /proc/PID/maps; empty for anonymous and for unknown memory.
        size_bytes: of the mappings.
        hot_bytes, warm_bytes, cold_bytes: in regions from the hot rate up, below it, and without any access.
        unwatched_bytes: the rest: in no selected region.
        access_rate: mean over the watched bytes (0..1).
        idle_s: mean time since the last access of the watched bytes; those accessed in the window count 0.
    """

    target: int
    name: str
    path: str
    size_bytes: float
    hot_bytes: float
    warm_bytes: float
    cold_bytes: float
    unwatched_bytes: float
    access_rate: float
    idle_s: float


@dataclass(frozen=True, kw_only=True)
class MappingsHeat:
    """Of all mappings, those with most hot bytes first.

    Attributes:
        hot_access_rate: from which rate up memory is hot (0..1).
        window_s: all windows together.
        has_mappings: false where the run knows no mappings; then all memory is one of name `unknown`.
    """

    hot_access_rate: float
    window_s: float
    has_mappings: bool
    mappings: tuple[MappingHeat, ...]


def mappings_heat(
    history: History, *, selection: Selection = EVERYTHING, hot_access_rate: float = HOT_ACCESS_RATE
) -> MappingsHeat:
    """How much of each mapping is hot, warm, cold or not watched.

    Args:
        hot_access_rate: from which rate up memory is hot (above 0, to 1).

    Raises:
        InvalidInput: nothing is selected; a rate that is not above 0 or above 1.
    """
    if not 0 < hot_access_rate <= 1:
        raise InvalidInput(
            f"an access rate of {format_rate(hot_access_rate)} as hot", hint="it is above 0 % and up to 100 %"
        )
    found, window_s = attribute(history, selection, class_rates=np.array([ANY_ACCESS, hot_access_rate]))
    mappings = sorted(
        (_heat_of(one) for one in found), key=lambda one: (-one.hot_bytes, -one.warm_bytes, -one.size_bytes, one.name)
    )
    return MappingsHeat(
        hot_access_rate=hot_access_rate,
        window_s=window_s,
        has_mappings=any(one.path is not None for one in found),
        mappings=tuple(mappings),
    )


def _heat_of(one: Attributed) -> MappingHeat:
    cold, warm, hot = one.class_bytes.tolist()
    return MappingHeat(
        target=one.target,
        name=one.name,
        path=one.path or "",
        size_bytes=one.size_bytes,
        hot_bytes=hot,
        warm_bytes=warm,
        cold_bytes=cold,
        unwatched_bytes=max(0.0, one.size_bytes - one.watched_bytes),
        access_rate=one.access_rate,
        idle_s=one.idle_s,
    )
