"""Lists of numbers of the command line."""

from memtherm.errors import InvalidInput
from memtherm.units import shown

_MOST = 1000


def parse_points(text: str) -> tuple[float, ...]:
    """Percentiles such as `0,50,99.9`, or FROM:TO:STEP such as `0:100:5`.  Raises InvalidInput."""
    wrong = InvalidInput(f"--percentiles {shown(text)}: not percentiles", hint="write them like 0,50,99 or 0:100:10")
    try:
        if ":" in text:
            first, last, step = (float(word) for word in text.split(":"))
            if not (step > 0 and (last - first) / step < _MOST):
                raise wrong
            points = tuple(first + step * index for index in range(int((last - first) / step + 1e-9) + 1))
        else:
            points = tuple(float(word) for word in text.split(","))
    except ValueError:
        raise wrong from None
    if not points or any(not 0 <= point <= 100 for point in points):
        raise wrong
    return points
