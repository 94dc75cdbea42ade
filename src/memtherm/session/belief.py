"""Whether the numbers of a window can be believed, and if not, why."""

from memtherm.core.snapshot import Conditions
from memtherm.probe.choose import WRITES_ONLY
from memtherm.units import format_rate, format_time

# A late look has watched for longer than it says, so its page is found accessed too often.
_TOO_MANY_LATE = 0.1
# What does not clear counts as accessed; more of it than this changes the picture.
_TOO_MUCH_UNCLEAR = 0.1
_TOO_MUCH_UNCOVERED = 0.05


def doubts(conditions: Conditions, *, canary_failure: str) -> tuple[str, ...]:
    """Sentences; none where the numbers can be believed."""
    found = []
    if canary_failure:
        found.append(f"the canary failed while watching, and schemes are stopped: {canary_failure}")
    if conditions.grain == "mapping":
        found.append("there is one answer for each whole mapping: less may have been accessed than is shown, not more")
    if conditions.probe in WRITES_ONLY:
        found.append("this probe sees writes only: memory that is only read looks idle")
    late = conditions.late_samples / max(1, conditions.samples)
    if late > _TOO_MANY_LATE:
        found.append(
            f"{format_rate(late)} of the looks came late: this host is too busy for looks every "
            f"{format_time(conditions.sampling_interval_s)}"
        )
    if conditions.unclear_share > _TOO_MUCH_UNCLEAR:
        found.append(
            f"{format_rate(conditions.unclear_share)} of the memory is shared with other processes or locked: "
            "its accessed bits cannot be cleared, and it counts as accessed"
        )
    if conditions.uncovered_share > _TOO_MUCH_UNCOVERED:
        found.append(
            f"{format_rate(conditions.uncovered_share)} of the looks could not tell: the CPU share does not allow "
            "to clear all that is accessed, and rates are estimates"
        )
    return tuple(found)
