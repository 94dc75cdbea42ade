"""An access pattern: which regions a scheme means, by size, access rate and age."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Flags
from memtherm.core.snapshot import Regions
from memtherm.errors import InvalidInput

# Rates and ages are products of floats: 3 windows of 0.1 s are 0.30000000000000004 s.  Bounds are
# inclusive, so a value that differs from its bound by rounding alone must count as equal to it.
# Sizes are whole numbers and exact: of 8 TiB this share would be two pages.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Bounds:
    """A closed interval; None means no bound on that side."""

    minimum: float | None = None
    maximum: float | None = None

    def contain(self, values: NDArray[np.int64] | NDArray[np.float64]) -> Flags:
        inside = np.ones(len(values), np.bool_)
        rounding = 0.0 if values.dtype.kind == "i" else _ROUNDING
        if self.minimum is not None:
            inside &= values >= self.minimum - abs(self.minimum) * rounding
        if self.maximum is not None:
            inside &= values <= self.maximum + abs(self.maximum) * rounding
        return inside


ANY = Bounds()


@dataclass(frozen=True, kw_only=True)
class AccessPattern:
    """Which regions a scheme means.  All bounds are inclusive; a missing bound is no bound.

    Attributes:
        size_bytes: length of the region.
        access_rate: share of samples that found an access, 0..1.
        age_s: how long the rate has stayed about the same, seconds.

    Raises:
        InvalidInput: a minimum above its maximum, a negative bound, a rate above 1.
    """

    size_bytes: Bounds = ANY
    access_rate: Bounds = ANY
    age_s: Bounds = ANY

    def __post_init__(self) -> None:
        for name in ("size_bytes", "access_rate", "age_s"):
            bounds: Bounds = getattr(self, name)
            given = [bound for bound in (bounds.minimum, bounds.maximum) if bound is not None]
            if any(not bound >= 0 for bound in given):
                raise InvalidInput(f"{name} has a negative bound", hint="bounds are from 0 up")
            if given != sorted(given):
                raise InvalidInput(
                    f"{name}: the minimum {bounds.minimum:g} is above the maximum {bounds.maximum:g}",
                    hint="no region can match; swap the bounds",
                )
            if name == "access_rate" and any(bound > 1 for bound in given):
                raise InvalidInput("access_rate is above 100 %", hint="an access rate is from 0 to 1")

    def matches(self, regions: Regions) -> Flags:
        """Which regions fit all three bounds."""
        return (
            self.size_bytes.contain(regions.size_bytes)
            & self.access_rate.contain(regions.access_rate)
            & self.age_s.contain(regions.age_s)
        )
