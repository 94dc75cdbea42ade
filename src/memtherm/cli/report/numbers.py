"""Numbers of the command line; what is wrong with one is said with the name of its option."""

from memtherm.errors import InvalidInput
from memtherm.policy.bounds import parse_percentage
from memtherm.units import shown

_MOST = 1000


def parse_rate_of(option: str, text: str) -> float:
    """The access rate (0..1) that an option says in percent.  Raises InvalidInput."""
    try:
        return parse_percentage(text)
    except InvalidInput as problem:
        raise InvalidInput(f"{option} {problem}", hint=problem.hint) from None


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
