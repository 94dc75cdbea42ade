"""phases.py FIELD_MIB SWEEPS: numpy smooths four fields, one after the other; all are made at the start."""

import json
import sys

import numpy as np
from numpy.typing import NDArray

_FIELDS = 4
_COLUMNS = 4096
_ROWS_AT_ONCE = 64


def _new_field(size_bytes: int, seed: int) -> NDArray[np.float64]:
    rows = size_bytes // 8 // _COLUMNS
    field = np.random.default_rng(seed).integers(0, 4000, (rows, _COLUMNS)).astype(np.float64)
    field /= 16  # measured values have few digits, which is why they compress
    return field


def _smooth(field: NDArray[np.float64], space: NDArray[np.float64]) -> None:
    """One sweep in place, a band of rows at a time."""
    for top in range(1, len(field) - 1, len(space)):
        bottom = min(top + len(space), len(field) - 1)
        band, mean = field[top:bottom], space[: bottom - top]
        np.add(field[top - 1 : bottom - 1], field[top + 1 : bottom + 1], out=mean)
        mean += band
        mean *= 16 / 3
        np.add(mean, np.hypot(mean, 16.0), out=mean)
        mean *= 0.5
        np.round(mean, out=mean)
        np.multiply(mean, 1 / 16, out=band)


def main() -> None:
    field_bytes, sweeps = int(sys.argv[1]) << 20, int(sys.argv[2])
    fields = [_new_field(field_bytes, seed) for seed in range(_FIELDS)]
    space = np.empty((_ROWS_AT_ONCE, _COLUMNS))
    for field in fields:
        for _ in range(sweeps):
            _smooth(field, space)
    print(json.dumps({"sweeps": sweeps * _FIELDS, "mean": round(float(fields[-1].mean()), 6)}))


if __name__ == "__main__":
    main()
