"""Which method watches: census while it can be had for its share of a CPU, else the kernel's DAMON, else sampling."""

from collections.abc import Callable
from dataclasses import dataclass

from memtherm.core.attributes import IntervalGoal, MonitoringAttributes
from memtherm.errors import TargetGone
from memtherm.session.census_windows import COST_OF_LOOK
from memtherm.units import format_time

# While sampling, the cost of a census is tried again this often; it must have room to come back.
_RETRY_S = 60.0
_ROOM = 0.5
# Only a census itself shows what clearing costs, and each change loses the ages.  So a census that had to
# be given up soon is tried again after twice as long as the last time.
_SOON_S = 600.0
_LONGEST_RETRY_S = 3600.0
ASKED_FOR = "asked for"
# The probe decides at which grain there is sampling.
_ENGINES = {"smaps": "sampling"}


@dataclass(frozen=True)
class Choice:
    """A method, and why."""

    method: str
    why: str


class MethodChooser:
    """Decides before the first window, and again after each.

    Args:
        attributes: the method that is wanted, intervals, and the CPU share.
        no_census: why there can be no census; empty where there can.
        time_of_look_s: CPU seconds of one look at all pages of all targets.
        no_kernel: why the kernel's DAMON cannot be used; empty where it can.
        kernel_purpose: why the kernel's DAMON is the one for this purpose, whatever a census costs; mostly empty.
    """

    def __init__(
        self,
        attributes: MonitoringAttributes,
        *,
        no_census: str,
        time_of_look_s: Callable[[], float],
        no_kernel: str = "the kernel's DAMON was not asked for",
        kernel_purpose: str = "",
    ) -> None:
        self._attributes = attributes
        self._no_census = no_census
        self._no_kernel = no_kernel
        self._kernel_purpose = kernel_purpose
        self._time_of_look_s = time_of_look_s
        self._retry_s = _RETRY_S
        self._retry_at_s = 0.0
        self._census_began_s = 0.0
        goal = attributes.interval_goal
        self._cpu_share = (goal or IntervalGoal()).cpu_share
        self._longest_interval_s = goal.max_sampling_interval_s if goal else attributes.sampling_interval_s

    def first(self, now_s: float) -> Choice:
        """The method to begin with."""
        self._retry_at_s = now_s + self._retry_s
        self._census_began_s = now_s
        if self._attributes.method != "auto":
            return Choice(_ENGINES.get(self._attributes.method, self._attributes.method), ASKED_FOR)
        if self._kernel_purpose and not self._no_kernel:
            return Choice("kdamond", self._kernel_purpose)
        if self._no_census:
            return self._without_census(self._no_census)
        return self._tried(room=1.0) or Choice("sampling", "a target went while the cost of a census was tried")

    def without_kernel(self, reason: str, now_s: float) -> Choice:
        """Another method than the kernel's DAMON, which has turned out not to work, or no longer works."""
        self._no_kernel = reason
        return self.first(now_s)

    def next(self, method: str, *, needed_interval_s: float, now_s: float) -> Choice | None:
        """Another method, or None to go on.

        Args:
            needed_interval_s: what the running method needs between two looks to keep to its CPU share.

        The kernel's DAMON stays: it costs us next to nothing, and each change loses the ages.
        """
        if self._attributes.method != "auto" or self._no_census or method == "kdamond":
            return None
        choice: Choice | None = None
        if method == "census":
            choice = self._by_cost(needed_interval_s, room=1.0)
            if choice.method != method:
                gave_up_soon = now_s - self._census_began_s < _SOON_S
                self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S) if gave_up_soon else _RETRY_S
                self._retry_at_s = now_s + self._retry_s
        elif now_s >= self._retry_at_s:
            self._retry_at_s = now_s + self._retry_s
            self._census_began_s = now_s
            choice = self._tried(room=_ROOM)
        return choice if choice is not None and choice.method != method else None

    def _tried(self, *, room: float) -> Choice | None:
        """What one look at everything says; nothing where a target went meanwhile, which its window will tell."""
        try:
            look_s = self._time_of_look_s()
        except TargetGone:
            return None
        return self._by_cost(look_s * COST_OF_LOOK / self._cpu_share, room=room)

    def _by_cost(self, needed_interval_s: float, *, room: float) -> Choice:
        share = f"{100 * self._cpu_share:g} % of one CPU"
        if needed_interval_s <= room * self._longest_interval_s:
            return Choice("census", f"every page can be counted within {share}")
        needed, longest = format_time(needed_interval_s), format_time(self._longest_interval_s)
        return self._without_census(
            f"a census within {share} would look only every {needed}, and {longest} is the longest interval"
        )

    def _without_census(self, reason: str) -> Choice:
        """The kernel's sampling costs less than ours, and sees as much."""
        return Choice("sampling" if self._no_kernel else "kdamond", reason)
