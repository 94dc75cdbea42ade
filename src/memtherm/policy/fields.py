"""The one table of a policy file's fields.  Parser, error texts, docs table and JSON schema come from it."""

from collections.abc import Callable
from dataclasses import dataclass

from memtherm.core.attributes import METHODS, MonitoringAttributes
from memtherm.core.guard import GuardSettings
from memtherm.core.scheme import Action, Bounds
from memtherm.errors import InvalidInput
from memtherm.policy.bounds import parse_bounds, parse_percentage
from memtherm.policy.values import MAX_PID
from memtherm.units import exact_size, exact_time, parse_size, parse_time, shown

VERSION = 1
_MAX_NAME_CHARACTERS = 200
_MAX_NR_REGIONS = 1_000_000
# DAMON takes 0.  In user space one look takes about this long: anything shorter is a busy loop.
SHORTEST_SAMPLING_S = 1e-4


@dataclass(frozen=True)
class Kind:
    """How values of one kind are written.

    Attributes:
        noun: what a value is called in messages and in the docs.
        example: one value, as TOML.
        parse: the inner value of a TOML value; raises InvalidInput.
        schema: the JSON type: `string`, `integer` or `boolean`.
        choices: all values, where there are few.
    """

    noun: str
    example: str
    parse: Callable[[object], object]
    schema: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Field:
    """One key of one section.

    Attributes:
        section: key of the section in SECTIONS; empty for the top of the file.
        attribute: name of the value that it sets in `memtherm.policy.values` or `memtherm.core`.
        default: for people; the value itself is the default of the attribute.
    """

    section: str
    key: str
    attribute: str
    kind: Kind
    sentence: str
    default: str = ""
    required: bool = False


@dataclass(frozen=True)
class Section:
    """A table of the file; `repeated` ones are written `[[key]]`.

    Attributes:
        later: keys of DAMON or of memtherm's design that this version does not have.  They are
            named so that nobody takes a refused limit for a spelling mistake.
        together: groups of keys whose values must agree with each other.
    """

    key: str
    repeated: bool
    sentence: str
    later: tuple[str, ...] = ()
    together: tuple[tuple[str, ...], ...] = ()

    @property
    def header(self) -> str:
        return f"[[{self.key}]]" if self.repeated else f"[{self.key}]"


def toml_type(value: object) -> str:
    """What a wrong value is, in words."""
    words = ((bool, "true or false"), (str, "text"), ((int, float), "a number"), (list, "a list"), (dict, "a table"))
    for python_type, word in words:
        if isinstance(value, python_type):
            return word
    return "a date or time"


def _from_text(noun: str, example: str, parse: Callable[[str], object], *, choices: tuple[str, ...] = ()) -> Kind:
    def parse_text(value: object) -> object:
        if not isinstance(value, str):
            raise InvalidInput(f"is {toml_type(value)}, and must be {noun}", hint=f"write it like {example}")
        return parse(value)

    return Kind(noun, example, parse_text, "string", choices)


def _whole_number(noun: str, example: str, minimum: int, maximum: int) -> Kind:
    def parse_number(value: object) -> object:
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidInput(f"is {toml_type(value)}, and must be {noun}", hint=f"write it like {example}")
        if not minimum <= value <= maximum:
            raise InvalidInput("is out of range", hint=f"it is from {minimum} to {maximum}")
        return value

    return Kind(noun, example, parse_number, "integer")


def _parse_truth(value: object) -> object:
    if not isinstance(value, bool):
        raise InvalidInput(f"is {toml_type(value)}, and must be true or false", hint="write it like false")
    return value


def _parse_version(value: object) -> object:
    if value != VERSION or isinstance(value, (bool, float)):
        raise InvalidInput(f"is {shown(str(value))}", hint=f"this memtherm reads version = {VERSION}")
    return value


def _parse_name(text: str) -> str:
    if not text.strip():
        raise InvalidInput("is empty", hint="give a name, or leave the key out")
    if not text.isprintable() or len(text) > _MAX_NAME_CHARACTERS:
        raise InvalidInput(
            f"{shown(text)} is not a name", hint=f"printable characters, at most {_MAX_NAME_CHARACTERS}, on one line"
        )
    return text


ACTIONS = tuple(action.value for action in Action)


def parse_action(text: str) -> Action:
    """An action by its name.  Raises InvalidInput."""
    if text not in ACTIONS:
        raise InvalidInput(f"{shown(text)} is not an action", hint=f"use one of {', '.join(ACTIONS)}")
    return Action(text)


def _parse_size_bounds(text: str) -> Bounds:
    return parse_bounds(text, parse_size)


def _parse_rate_bounds(text: str) -> Bounds:
    return parse_bounds(text, parse_percentage)


def _parse_time_bounds(text: str) -> Bounds:
    return parse_bounds(text, parse_time)


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


NAME = _from_text("a name", '"redis-server"', _parse_name)
SCHEME_NAME = _from_text("a name", '"page out what is cold"', _parse_name)
ACTION = _from_text("an action", '"pageout"', parse_action, choices=ACTIONS)
SIZE = _from_text("a size", '"64MiB"', parse_size)
SAMPLING_TIME = _from_text("a time", '"5ms"', _parse_sampling_time)
TIME = _from_text("a time", '"100ms"', parse_time)
SIZE_BOUNDS = _from_text("bounds of a size", '">= 4KiB"', _parse_size_bounds)
RATE_BOUNDS = _from_text("bounds of an access rate", '"<= 5%"', _parse_rate_bounds)
TIME_BOUNDS = _from_text("bounds of a time", '">= 2min"', _parse_time_bounds)
METHOD = _from_text("a method", '"census"', _parse_method, choices=METHODS)
PID = _whole_number("a pid", "4242", 1, MAX_PID)
REGION_COUNT = _whole_number("a number of regions", "1000", 3, _MAX_NR_REGIONS)
TRUTH = Kind("true or false", "false", _parse_truth, "boolean")
VERSION_NUMBER = Kind("the version of the format", str(VERSION), _parse_version, "integer")

SECTIONS = {
    section.key: section
    for section in (
        Section("", False, "The top of the file."),
        Section(
            "target", True, "A process, or all processes of one name.  May be left out: `--pid` and the like name "
            "targets too.", ("cgroup", "user", "uid", "command", "children"), (("name", "pid"),),
        ),
        Section(
            "scheme", True, "Which memory, and what to do with it.  A region must fit all bounds that are given.",
            ("quota", "quotas", "watermarks", "goals", "goal", "filters", "filter", "apply_interval", "targets",
             "max_nr_snapshots", "destinations", "target_nid", "weights"),
        ),
        Section(
            "monitor", False, "How closely the targets are watched.",
            ("probe", "intervals_goal", "cpu_budget", "allow_stretching"),
            (("sampling_interval", "aggregation_interval"), ("min_nr_regions", "max_nr_regions")),
        ),
        Section(
            "guard", False, "What must not be touched.",
            ("allow_ptrace", "refault", "max_refault_rate", "pressure", "rate_limit"),
        ),
    )
}  # fmt: skip

_MONITOR = MonitoringAttributes()
_GUARD = GuardSettings()

FIELDS = (
    Field(
        section="", key="version", attribute="version", kind=VERSION_NUMBER, required=True,
        sentence="Version of the format of this file.",
    ),
    Field(
        section="target", key="name", attribute="name", kind=NAME,
        sentence="Name of the processes, as in `/proc/PID/comm`.",
    ),
    Field(section="target", key="pid", attribute="pid", kind=PID, sentence="One process, instead of a name."),
    Field(
        section="scheme", key="name", attribute="name", kind=SCHEME_NAME, default='such as "scheme 2 (pageout)"',
        sentence="What the scheme is called in results; no two schemes have the same.",
    ),
    Field(
        section="scheme", key="size", attribute="size_bytes", kind=SIZE_BOUNDS, default='"any"',
        sentence="Length of a region.",
    ),
    Field(
        section="scheme", key="access_rate", attribute="access_rate", kind=RATE_BOUNDS, default='"any"',
        sentence='Share of looks that found an access; `"0%"` is never.',
    ),
    Field(
        section="scheme", key="age", attribute="age_s", kind=TIME_BOUNDS, default='"any"',
        sentence="How long the access rate has stayed about the same.",
    ),
    Field(
        section="scheme", key="action", attribute="action", kind=ACTION, required=True,
        sentence="What is done with memory that fits.",
    ),
    Field(
        section="monitor", key="method", attribute="method", kind=METHOD, default=f'"{_MONITOR.method}"',
        sentence="Count every page (census), let one speak for its region (sampling), or what the CPU share allows.",
    ),
    Field(
        section="monitor", key="sampling_interval", attribute="sampling_interval_s", kind=SAMPLING_TIME,
        default="it fits itself to the target", sentence="Time between two looks.",
    ),
    Field(
        section="monitor", key="aggregation_interval", attribute="aggregation_interval_s", kind=TIME,
        default="it fits itself to the target",
        sentence="Length of a window; its looks make one access rate, and schemes decide at its end.",
    ),
    Field(
        section="monitor", key="regions_update_interval", attribute="regions_update_interval_s", kind=TIME,
        default=f'"{exact_time(_MONITOR.regions_update_interval_s)}"',
        sentence="Time between two looks at the target's mappings.",
    ),
    Field(
        section="monitor", key="min_nr_regions", attribute="min_nr_regions", kind=REGION_COUNT,
        default=str(_MONITOR.min_nr_regions), sentence="The monitor keeps at least so many regions.",
    ),
    Field(
        section="monitor", key="max_nr_regions", attribute="max_nr_regions", kind=REGION_COUNT,
        default=str(_MONITOR.max_nr_regions), sentence="The monitor keeps at most so many regions.",
    ),
    Field(
        section="guard", key="min_target_bytes", attribute="min_target_bytes", kind=SIZE,
        default=f'"{exact_size(_GUARD.min_target_bytes)}"',
        sentence="Targets with less resident memory than this are left alone.",
    ),
    Field(
        section="guard", key="override_application_hints", attribute="override_application_hints", kind=TRUTH,
        default=str(_GUARD.override_application_hints).lower(),
        sentence="Act against huge page advice that the application gave itself.",
    ),
)  # fmt: skip


def fields_of(section: str) -> tuple[Field, ...]:
    """The fields of one section, in the order of the table."""
    return tuple(field for field in FIELDS if field.section == section)
