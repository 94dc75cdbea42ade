"""Options of `memtherm kernel reclaim` and `lru-sort`: one for each parameter that a kernel may have."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from memtherm.cli.options import Time
from memtherm.errors import InvalidInput
from memtherm.units import parse_rate, parse_size, shown

_Command = TypeVar("_Command", bound=Callable[..., Any])
_MOST_FEEDBACK_PERCENT = 1e6


class _Parsed(click.ParamType[float]):
    """A text with a unit → a number."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return self._parse(str(value))
        except InvalidInput as problem:
            self.fail(f"{problem}; {problem.hint}", param, ctx)


def _parse_feedback(text: str) -> float:
    """How near a goal is; beyond it, above 100 %, the kernel lowers the quota.  Raises InvalidInput."""
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = math.nan
    if not text.endswith("%") or not 0 <= percent <= _MOST_FEEDBACK_PERCENT:
        raise InvalidInput(f"{shown(text)} is no share of a goal", hint="write it like 80%; above 100% it is exceeded")
    return percent / 100


def _parse_address(text: str) -> float:
    """A whole number, `0x` for hexadecimal.  Raises InvalidInput."""
    try:
        address = int(text, 0)
    except ValueError:
        address = -1
    if not 0 <= address < 1 << 64:
        raise InvalidInput(f"{shown(text)} is no address", hint="write it like 0x100000000, as in /proc/iomem")
    return address


_SIZE = _Parsed("size", parse_size)
_RATE = _Parsed("rate", parse_rate)
_FEEDBACK = _Parsed("feedback", _parse_feedback)
_ADDRESS = _Parsed("address", _parse_address)
_REGIONS = click.IntRange(min=3)

# option, parameter of the kernel, type (None: a switch), help
_Row = tuple[str, str, click.ParamType[Any] | None, str]
_BOTH: tuple[_Row, ...] = (
    ("--quota-time", "quota_ms", Time(), "Most CPU time in each reset interval."),
    ("--quota-reset", "quota_reset_interval_ms", Time(), "Length of that interval."),
    ("--watermark-interval", "wmarks_interval", Time(), "Time between looks at the free memory."),
    ("--watermark-high", "wmarks_high", _RATE, "Rest while more than this share of the memory is free."),
    ("--watermark-mid", "wmarks_mid", _RATE, "Start below this share of free memory."),
    ("--watermark-low", "wmarks_low", _RATE, "Rest below this share, too: then the kernel itself reclaims."),
    ("--sampling", "sample_interval", Time(), "Time between looks."),
    ("--aggregation", "aggr_interval", Time(), "Length of a window."),
    ("--autotune", "autotune_monitoring_intervals", None, "Let the intervals fit themselves."),
    ("--min-regions", "min_nr_regions", _REGIONS, "Fewest regions."),
    ("--max-regions", "max_nr_regions", _REGIONS, "Most regions."),
    ("--region-start", "monitor_region_start", _ADDRESS, "First physical address, in address units."),
    ("--region-end", "monitor_region_end", _ADDRESS, "End of the physical addresses; 0 with start 0: all memory."),
    ("--address-unit", "addr_unit", click.IntRange(min=1), "Bytes for each unit of an address."),
)
RECLAIM: tuple[_Row, ...] = (
    ("--min-age", "min_age", Time(), "Reclaim what has not been accessed for so long."),
    ("--quota", "quota_sz", _SIZE, "Most memory in each reset interval."),
    *_BOTH,
    ("--skip-anon", "skip_anon", None, "Leave anonymous memory alone."),
    ("--pressure-goal", "quota_mem_pressure_us", Time(), "Fit the quota to so much memory pressure in each interval."),
    ("--feedback", "quota_autotune_feedback", _FEEDBACK, "How near your own goal is; fits the quota."),
)
LRU_SORT: tuple[_Row, ...] = (
    ("--hot-access-rate", "hot_thres_access_freq", _RATE, "Prioritise what is accessed at least this often."),
    ("--cold-min-age", "cold_min_age", Time(), "Deprioritise what has not been accessed for so long."),
    *_BOTH,
    ("--active-share", "active_mem_bp", _RATE, "Fit the quota until so much memory is active."),
    ("--filter-young", "filter_young_pages", None, "Look at the pages themselves before they are moved."),
)


def parameter_options(rows: tuple[_Row, ...]) -> Callable[[_Command], _Command]:
    """One option for each row; its value arrives under the name of the kernel's parameter, None if not given."""

    def decorate(command: _Command) -> _Command:
        for flag, parameter, kind, text in reversed(rows):
            if kind is None:
                option = click.option(f"{flag}/--no-{flag[2:]}", parameter, default=None, help=text)
            else:
                option = click.option(flag, parameter, type=kind, default=None, help=text)
            command = option(command)
        return command

    return decorate


def change_options(command: _Command) -> _Command:
    """`--enable/--disable`, `--apply` and `--json`."""
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("--apply", is_flag=True, help="Write.  Without it nothing is written."),
        click.option("--enable/--disable", default=None, help="Start or stop the module."),
    ):
        command = decorate(command)
    return command
