"""Kinds of values of a policy file: what each is called, how it is written, and how its text is read."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from memtherm.core.attributes import METHODS
from memtherm.core.filters import FilterKind
from memtherm.core.goals import GoalMetric, Tuner
from memtherm.core.pattern import Bounds
from memtherm.core.quota import Quota
from memtherm.core.scheme import Action
from memtherm.core.watermarks import WatermarkMetric
from memtherm.errors import InvalidInput
from memtherm.policy.bounds import parse_bounds, parse_percentage
from memtherm.policy.values import MAX_PID, MAX_USER
from memtherm.units import exact_time, parse_size, parse_time, shown

VERSION = 1
_MAX_TEXT_CHARACTERS = 200
_MAX_PATH_CHARACTERS = 4096
_MAX_NR_REGIONS = 1_000_000
_MAX_COUNT = 2**32 - 1
_MAX_NODE = 1023  # MAX_NUMNODES of the largest kernels
_MAX_ADDRESS = 2**64 - 1
_MAX_GOAL = 1e12
_FRACTION = re.compile(r"(\d{1,10})\s*/\s*(\d{1,10})")
_ADDRESSES = re.compile(r"\s*(\w[\w ]*?)\s*(?:-|\.\.)\s*(\w[\w ]*?)\s*")
# DAMON takes 0.  In user space one look takes about this long: anything shorter is a busy loop.
SHORTEST_SAMPLING_S = 1e-4


@dataclass(frozen=True)
class Kind:
    """How values of one kind are written.

    Attributes:
        noun: what a value is called in messages and in the docs.
        example: one value, as TOML.
        parse: the inner value of a TOML value; raises InvalidInput.
        schema: the JSON types: `string`, `integer`, `number`, `boolean` or `array` (of strings).
        choices: all values, where there are few.
    """

    noun: str
    example: str
    parse: Callable[[object], object]
    schema: tuple[str, ...]
    choices: tuple[str, ...] = ()


def toml_type(value: object) -> str:
    """What a wrong value is, in words."""
    words = ((bool, "true or false"), (str, "text"), ((int, float), "a number"), (list, "a list"), (dict, "a table"))
    for python_type, word in words:
        if isinstance(value, python_type):
            return word
    return "a date or time"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wrong_type(value: object, noun: str, example: str) -> InvalidInput:
    return InvalidInput(f"is {toml_type(value)}, and must be {noun}", hint=f"write it like {example}")


def _from_text(noun: str, example: str, parse: Callable[[str], object], *, choices: tuple[str, ...] = ()) -> Kind:
    def parse_text(value: object) -> object:
        if not isinstance(value, str):
            raise _wrong_type(value, noun, example)
        return parse(value)

    return Kind(noun, example, parse_text, ("string",), choices)


def _choice(noun: str, example: str, words: type[StrEnum]) -> Kind:
    choices = tuple(word.value for word in words)

    def parse(text: str) -> object:
        if text not in choices:
            raise InvalidInput(f"{shown(text)} is not {noun}", hint=f"use one of {', '.join(choices)}")
        return words(text)

    return _from_text(noun, f'"{example}"', parse, choices=choices)


def _whole_number(noun: str, example: str, minimum: int, maximum: int) -> Kind:
    def parse_number(value: object) -> object:
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong_type(value, noun, example)
        if not minimum <= value <= maximum:
            raise InvalidInput("is out of range", hint=f"it is from {minimum} to {maximum}")
        return value

    return Kind(noun, example, parse_number, ("integer",))


def _parse_truth(value: object) -> object:
    if not isinstance(value, bool):
        raise InvalidInput(f"is {toml_type(value)}, and must be true or false", hint="write it like false")
    return value


def _parse_version(value: object) -> object:
    if value != VERSION or isinstance(value, (bool, float)):
        raise InvalidInput(f"is {shown(str(value))}", hint=f"this memtherm reads version = {VERSION}")
    return value


def _text_parser(what: str, maximum: int) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not text.strip():
            raise InvalidInput("is empty", hint=f"give {what}, or leave the key out")
        if not text.isprintable() or len(text) > maximum:
            raise InvalidInput(
                f"{shown(text)} is not {what}", hint=f"printable characters, at most {maximum}, on one line"
            )
        return text

    return parse


_parse_name = _text_parser("a name", _MAX_TEXT_CHARACTERS)


def parse_action(text: str) -> Action:
    """An action by its name.  Raises InvalidInput."""
    ACTION.parse(text)
    return Action(text)


def _parse_size_bounds(text: str) -> Bounds:
    return parse_bounds(text, parse_size)


def _parse_rate_bounds(text: str) -> Bounds:
    return parse_bounds(text, parse_percentage)


def _parse_time_bounds(text: str) -> Bounds:
    return parse_bounds(text, parse_time)


def _parse_quota_size(text: str) -> int:
    return Quota(size_bytes=parse_size(text)).size_bytes


def _parse_sampling_time(text: str) -> float:
    time_s = parse_time(text)
    if time_s < SHORTEST_SAMPLING_S:
        raise InvalidInput(
            f"{shown(text)} leaves the monitor no rest", hint=f"{exact_time(SHORTEST_SAMPLING_S)} is the least"
        )
    return time_s


def _parse_method(text: str) -> object:
    if text not in METHODS:
        raise InvalidInput(f"{shown(text)} is no method", hint=f"one of {', '.join(METHODS)}")
    return text


def parse_share(text: str) -> float:
    """A part of a whole that is written with its sign, `5%`, as 0..1.  Raises InvalidInput."""
    try:
        return parse_percentage(text)
    except InvalidInput as refusal:
        raise InvalidInput(refusal.message, hint="write it from 0% to 100%, such as 5%") from refusal


def _parse_fraction(text: str) -> tuple[int, int]:
    match = _FRACTION.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"{shown(text)} is not a fraction", hint='write it like "1/1024"')
    return Quota(fail_charge=(int(match[1]), int(match[2]))).fail_charge


def _parse_address(text: str) -> int:
    if text.lower().startswith("0x"):
        try:
            return int(text, 16)
        except ValueError as refusal:
            raise InvalidInput(f"{shown(text)} is not an address", hint="write it like 0x7f0000000000") from refusal
    return parse_size(text)


def parse_addresses(text: str) -> tuple[int, int]:
    """Start and end of `0x7f00000-0x7f80000`, half-open.  Raises InvalidInput."""
    match = _ADDRESSES.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{shown(text)} is not a range of addresses", hint='write it like "0x7f00000-0x7f80000"')
    start, end = _parse_address(match[1]), _parse_address(match[2])
    if not start < end <= _MAX_ADDRESS:
        raise InvalidInput(f"{shown(text)} ends before it starts, or is no address", hint="the end is not part of it")
    return start, end


def _parse_user(value: object) -> object:
    if isinstance(value, str):
        return _parse_name(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(value, "a user's name or number", '"postgres"')
    if not 0 <= value <= MAX_USER:
        raise InvalidInput("is out of range", hint=f"it is from 0 to {MAX_USER}")
    return value


def _parse_labels(value: object) -> object:
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise InvalidInput(
            f"is {'a list of other things' if isinstance(value, list) else toml_type(value)}, "
            "and must be a list of labels", hint='write it like ["redis-server"]',
        )  # fmt: skip
    if not value:
        raise InvalidInput("is empty", hint="leave the key out for all targets")
    return tuple(_parse_name(label) for label in value)


def _parse_address_ranges(value: object) -> object:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise InvalidInput("is no list of ranges of addresses", hint='write it like ["0x7f0000000000-0x7f8000000000"]')
    return tuple(parse_addresses(one) for one in value)


def _parse_goal_value(value: object) -> object:
    """What the unit is hangs on the goal's metric: see `goal_value`."""
    if not isinstance(value, str) and not _is_number(value):
        raise _wrong_type(value, "the value of a goal", '"10ms", "20%" or 5')
    return value


def goal_value(metric: GoalMetric, value: object) -> float:
    """A goal's value in the unit of its metric: a time, a percentage, or a plain number.  Raises InvalidInput."""
    try:
        if metric is GoalMetric.USER_INPUT:
            if isinstance(value, str):
                raise InvalidInput(f"{shown(value)} is text", hint=f"{metric} is a plain number, such as 5")
            number = float(str(value))
            if not 0 < number <= _MAX_GOAL:
                raise InvalidInput(
                    f"{shown(str(value))} is out of range", hint=f"it is above 0 and at most {_MAX_GOAL:g}"
                )
            return number
        parse = parse_time if metric is GoalMetric.MEMORY_PRESSURE else parse_share
        if not isinstance(value, str):
            example = '"10ms"' if metric is GoalMetric.MEMORY_PRESSURE else '"20%"'
            raise InvalidInput(f"{shown(str(value))} has no unit", hint=f"{metric} is written like {example}")
        return parse(value)
    except InvalidInput as refusal:
        raise InvalidInput(f"target: {refusal.message}", hint=refusal.hint) from refusal


NAME = _from_text("a name", '"redis-server"', _parse_name)
LABEL = _from_text("a label", '"database"', _parse_name)
SCHEME_NAME = _from_text("a name", '"page out what is cold"', _parse_name)
CGROUP = _from_text(
    "the path of a cgroup", '"/system.slice/db.service"', _text_parser("the path of a cgroup", _MAX_PATH_CHARACTERS)
)
PATH_PATTERN = _from_text("a shell pattern", '"*/libc.so*"', _text_parser("a pattern", _MAX_PATH_CHARACTERS))
LABELS = Kind("a list of labels", '["redis-server"]', _parse_labels, ("array",))
USER = Kind("a user's name or number", '"postgres"', _parse_user, ("string", "integer"))
ACTION = _choice("an action", "pageout", Action)
METRIC = _choice("a metric", "memory_pressure", GoalMetric)
TUNER = _choice("a tuner", "consist", Tuner)
WATERMARK_METRIC = _choice("a metric", "free_memory", WatermarkMetric)
FILTER_KIND = _choice("a kind of filter", "file", FilterKind)
SIZE = _from_text("a size", '"64MiB"', parse_size)
QUOTA_SIZE = _from_text("a size", '"128MiB"', _parse_quota_size)
SAMPLING_TIME = _from_text("a time", '"5ms"', _parse_sampling_time)
TIME = _from_text("a time", '"100ms"', parse_time)
SIZE_BOUNDS = _from_text("bounds of a size", '">= 4KiB"', _parse_size_bounds)
RATE_BOUNDS = _from_text("bounds of an access rate", '"<= 5%"', _parse_rate_bounds)
TIME_BOUNDS = _from_text("bounds of a time", '">= 2min"', _parse_time_bounds)
SHARE = _from_text("a percentage", '"5%"', parse_share)
FRACTION = _from_text("a fraction", '"1/1024"', _parse_fraction)
ADDRESSES = _from_text("a range of addresses", '"0x7f0000000000-0x7f8000000000"', parse_addresses)
ADDRESS_RANGES = Kind(
    "a list of ranges of addresses", '["0x7f0000000000-0x7f8000000000"]', _parse_address_ranges, ("array",)
)
METHOD = _from_text("a method", '"census"', _parse_method, choices=METHODS)
GOAL_VALUE = Kind("a value in the metric's unit", '"10ms"', _parse_goal_value, ("string", "number"))
PID = _whole_number("a pid", "4242", 1, MAX_PID)
REGION_COUNT = _whole_number("a number of regions", "1000", 3, _MAX_NR_REGIONS)
COUNT = _whole_number("a whole number", "1", 0, _MAX_COUNT)
NODE = _whole_number("the number of a NUMA node", "0", 0, _MAX_NODE)
TRUTH = Kind("true or false", "false", _parse_truth, ("boolean",))
VERSION_NUMBER = Kind("the version of the format", str(VERSION), _parse_version, ("integer",))
