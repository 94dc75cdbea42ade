"""The one table of a policy file's fields.  Parser, error texts, docs table and JSON schema come from it."""

from dataclasses import dataclass

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.guard import GuardSettings
from memtherm.core.quota import Quota
from memtherm.core.watermarks import Watermarks
from memtherm.policy import kinds
from memtherm.policy.kinds import Kind
from memtherm.units import exact_rate, exact_size, exact_time


@dataclass(frozen=True, kw_only=True)
class Field:
    """One key of one section.

    Attributes:
        section: path of the section in SECTIONS; empty for the top of the file.
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


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table of the file; `repeated` ones are written `[[path]]`, and those within others also inline.

    Attributes:
        path: its keys from the top of the file, with dots between.
        attribute: of a table within another: name of the value that it sets.
        example: of a table within another: itself inline, as TOML.
        later: keys of DAMON or of memtherm's design that this version does not have.  They are
            named so that nobody takes a refused limit for a spelling mistake.
        together: groups of keys whose values must agree with each other.
    """

    path: str
    sentence: str
    repeated: bool = False
    attribute: str = ""
    example: str = ""
    later: tuple[str, ...] = ()
    together: tuple[tuple[str, ...], ...] = ()

    @property
    def key(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def parent(self) -> str:
        return self.path.rpartition(".")[0]

    @property
    def is_nested(self) -> bool:
        return "." in self.path

    @property
    def header(self) -> str:
        return f"[[{self.path}]]" if self.repeated else f"[{self.path}]"

    @property
    def form(self) -> str:
        """How it is written, for hints."""
        return f"{self.key} = {self.example}" if self.is_nested else self.header


SECTIONS = {
    section.path: section
    for section in (
        Section(path="", sentence="The top of the file."),
        Section(
            path="target", repeated=True,
            sentence="Processes, or physical memory.  Each target has exactly one of `name`, `pid`, `user`, `cgroup`, "
            "`physical`.  May be left out: `--pid` and the like name targets too.",
            later=("command", "uid"), together=(("name", "pid", "user", "cgroup", "physical", "children", "ranges"),),
        ),
        Section(
            path="scheme", repeated=True,
            sentence="Which memory, and what to do with it.  A region must fit all bounds that are given.",
            later=("probes", "tried_regions"), together=(("action", "destinations"),),
        ),
        Section(
            path="scheme.quota", attribute="quota", example='{ bytes = "128MiB", time = "10ms" }',
            sentence="What limits the scheme.  Where several limits are given, the lowest counts.",
        ),
        Section(
            path="scheme.quota.weights", attribute="weights", example="{ age = 1 }",
            sentence="What comes first when the quota does not reach for all: how much each property counts.",
        ),
        Section(
            path="scheme.goals", attribute="goals", repeated=True,
            example='[{ metric = "memory_pressure", target = "10ms" }]',
            sentence="The quota follows measured values, up to its own limits; of several goals the one that is "
            "reached best counts.",
            together=(("metric", "target", "node", "cgroup"),),
        ),
        Section(
            path="scheme.watermarks", attribute="watermarks", example='{ high = "50%", mid = "40%", low = "20%" }',
            sentence="When the scheme is active: it starts below `mid`, and rests above `high` and below `low`.",
            together=(("high", "mid", "low"),),
        ),
        Section(
            path="scheme.filters", attribute="filters", repeated=True, example='[{ reject = "file" }]',
            sentence="What is left out of the memory that fits the bounds.  The first filter that matches decides; "
            "after a last one that allows, all else is rejected.  Each has exactly one of `allow` and `reject`.",
            together=(("allow", "reject", "not", "range", "target", "pattern", "size", "cgroup"),),
        ),
        Section(
            path="scheme.destinations", attribute="destinations", repeated=True, example="[{ node = 1 }]",
            sentence="Where migrate_hot and migrate_cold move memory to; of several each gets its share.",
        ),
        Section(
            path="monitor", sentence="How closely the targets are watched.",
            later=("probe", "intervals_goal", "cpu_budget", "allow_stretching"),
            together=(("sampling_interval", "aggregation_interval"), ("min_nr_regions", "max_nr_regions")),
        ),
        Section(path="guard", sentence="What must not be touched, and when to slow down and to stop."),
    )
}  # fmt: skip

_MONITOR = MonitoringAttributes()
_GUARD = GuardSettings()
_QUOTA = Quota()
_WATERMARKS = Watermarks(high=0, mid=0, low=0)


def _text(value: str) -> str:
    return f'"{value}"'


def _word(*, truth: bool) -> str:
    return str(truth).lower()


_OF_TARGETS = (
    Field(
        section="target", key="name", attribute="name", kind=kinds.NAME,
        sentence="Name of the processes, as in `/proc/PID/comm`; or a shell pattern such as `worker-*`.",
    ),
    Field(section="target", key="pid", attribute="pid", kind=kinds.PID, sentence="One process."),
    Field(
        section="target", key="user", attribute="user", kind=kinds.USER,
        sentence="Processes that run as this user.",
    ),
    Field(
        section="target", key="cgroup", attribute="cgroup", kind=kinds.CGROUP,
        sentence="Processes in this control group and those below it.",
    ),
    Field(
        section="target", key="children", attribute="children", kind=kinds.TRUTH, default=_word(truth=False),
        sentence="The processes that these start are targets, too, and what those start.",
    ),
    Field(
        section="target", key="physical", attribute="physical", kind=kinds.TRUTH, default=_word(truth=False),
        sentence="All memory of the host, whoever uses it.  Only the kernel's DAMON sees it (`method = \"kdamond\"`).",
    ),
    Field(
        section="target", key="ranges", attribute="ranges", kind=kinds.ADDRESS_RANGES, default="all",
        sentence="Only these addresses, of each process or of physical memory.  Only the kernel's DAMON keeps to them.",
    ),
    Field(
        section="target", key="label", attribute="label", kind=kinds.LABEL, default="the text of what selects them",
        sentence="By which schemes and filters mean these processes.",
    ),
)  # fmt: skip

_OF_SCHEMES = (
    Field(
        section="scheme", key="name", attribute="name", kind=kinds.SCHEME_NAME, default='such as "scheme 2 (pageout)"',
        sentence="What the scheme is called in results; no two schemes have the same.",
    ),
    Field(
        section="scheme", key="size", attribute="size_bytes", kind=kinds.SIZE_BOUNDS, default=_text("any"),
        sentence="Length of a region.",
    ),
    Field(
        section="scheme", key="access_rate", attribute="access_rate", kind=kinds.RATE_BOUNDS, default=_text("any"),
        sentence='Share of looks that found an access; `"0%"` is never.',
    ),
    Field(
        section="scheme", key="age", attribute="age_s", kind=kinds.TIME_BOUNDS, default=_text("any"),
        sentence="How long the access rate has stayed about the same.",
    ),
    Field(
        section="scheme", key="action", attribute="action", kind=kinds.ACTION, required=True,
        sentence="What is done with memory that fits.",
    ),
    Field(
        section="scheme", key="apply_interval", attribute="apply_interval_s", kind=kinds.TIME,
        default="each window", sentence="Time between two applies.",
    ),
    Field(
        section="scheme", key="max_nr_snapshots", attribute="max_nr_snapshots", kind=kinds.COUNT, default="0",
        sentence="The scheme ends after so many applies; 0 is never.",
    ),
    Field(
        section="scheme", key="targets", attribute="targets", kind=kinds.LABELS, default="all targets",
        sentence="Labels of the targets that the scheme is for.",
    ),
)  # fmt: skip

_OF_QUOTAS = (
    Field(
        section="scheme.quota", key="bytes", attribute="size_bytes", kind=kinds.QUOTA_SIZE, default="no such limit",
        sentence="The scheme is tried on so much in each `every`.",
    ),
    Field(
        section="scheme.quota", key="time", attribute="time_s", kind=kinds.TIME, default="no such limit",
        sentence="Its action takes so much time in each `every`.",
    ),
    Field(
        section="scheme.quota", key="every", attribute="reset_interval_s", kind=kinds.TIME,
        default=_text(exact_time(_QUOTA.reset_interval_s)), sentence="After this time a full quota is empty again.",
    ),
    Field(
        section="scheme.quota", key="tuner", attribute="tuner", kind=kinds.TUNER, default=_text(_QUOTA.tuner),
        sentence="How the quota follows the goals: by their distance (consist), or all or nothing (temporal).",
    ),
    Field(
        section="scheme.quota", key="fail_charge", attribute="fail_charge", kind=kinds.FRACTION,
        default="a whole byte", sentence="What a byte that was tried in vain takes of the quota.",
    ),
    Field(
        section="scheme.quota.weights", key="size", attribute="size", kind=kinds.COUNT, default="0",
        sentence="Length of the region; counts for nothing, as in DAMON.",
    ),
    Field(
        section="scheme.quota.weights", key="access_rate", attribute="access_rate", kind=kinds.COUNT, default="0",
        sentence="Access rate.",
    ),
    Field(
        section="scheme.quota.weights", key="age", attribute="age", kind=kinds.COUNT, default="0", sentence="Age.",
    ),
    Field(
        section="scheme.goals", key="metric", attribute="metric", kind=kinds.METRIC, required=True,
        sentence="What is measured, of the system if nothing else is said; `user_input` is set by a program.",
    ),
    Field(
        section="scheme.goals", key="target", attribute="target", kind=kinds.GOAL_VALUE, required=True,
        sentence="The value to be reached: of memory_pressure the time in each `every` of the quota in which some task "
        'waits for memory (`"10ms"`), of memory a percentage (`"20%"`), of user_input a number (`5`).',
    ),
    Field(
        section="scheme.goals", key="node", attribute="node", kind=kinds.NODE, default="the system",
        sentence="Measure free or used memory of this NUMA node.",
    ),
    Field(
        section="scheme.goals", key="cgroup", attribute="cgroup", kind=kinds.CGROUP, default="the system",
        sentence="Measure pressure, free or used memory of this control group and those below it.",
    ),
    Field(
        section="scheme.watermarks", key="metric", attribute="metric", kind=kinds.WATERMARK_METRIC,
        default=_text(_WATERMARKS.metric), sentence="Share of the system's memory that nothing uses.",
    ),
    Field(
        section="scheme.watermarks", key="high", attribute="high", kind=kinds.SHARE, required=True,
        sentence="Above this the scheme rests.",
    ),
    Field(
        section="scheme.watermarks", key="mid", attribute="mid", kind=kinds.SHARE, required=True,
        sentence="Below this a scheme that rests starts.",
    ),
    Field(
        section="scheme.watermarks", key="low", attribute="low", kind=kinds.SHARE, required=True,
        sentence="Below this the scheme rests.",
    ),
    Field(
        section="scheme.watermarks", key="every", attribute="interval_s", kind=kinds.TIME,
        default=_text(exact_time(_WATERMARKS.interval_s)), sentence="Time between two looks at the metric.",
    ),
)  # fmt: skip

_OF_FILTERS = (
    Field(
        section="scheme.filters", key="allow", attribute="allow", kind=kinds.FILTER_KIND,
        sentence="The scheme is for memory of this kind.",
    ),
    Field(
        section="scheme.filters", key="reject", attribute="reject", kind=kinds.FILTER_KIND,
        sentence="The scheme is not for memory of this kind.",
    ),
    Field(
        section="scheme.filters", key="not", attribute="inverted", kind=kinds.TRUTH, default=_word(truth=False),
        sentence="The filter is by memory that is not of this kind.",
    ),
    Field(
        section="scheme.filters", key="range", attribute="addresses", kind=kinds.ADDRESSES,
        sentence="Of `address`: where; the end is not part of it.",
    ),
    Field(
        section="scheme.filters", key="target", attribute="target", kind=kinds.LABEL,
        sentence="Of `target`: its label.",
    ),
    Field(
        section="scheme.filters", key="pattern", attribute="pattern", kind=kinds.PATH_PATTERN,
        sentence="Of `mapping`: a shell pattern for its path, or its name such as `[heap]`.",
    ),
    Field(
        section="scheme.filters", key="size", attribute="size_bytes", kind=kinds.SIZE_BOUNDS,
        sentence="Of `huge_page`: size of the page that the memory is part of.",
    ),
    Field(
        section="scheme.filters", key="cgroup", attribute="cgroup", kind=kinds.CGROUP,
        sentence="Of `cgroup`: the control group that the memory is charged to; those below it do not match.",
    ),
    Field(
        section="scheme.destinations", key="node", attribute="node", kind=kinds.NODE, required=True,
        sentence="Number of the NUMA node.",
    ),
    Field(
        section="scheme.destinations", key="weight", attribute="weight", kind=kinds.COUNT, default="1",
        sentence="Its share is its weight of the sum of all weights.",
    ),
)  # fmt: skip

_OF_MONITORS = (
    Field(
        section="monitor", key="method", attribute="method", kind=kinds.METHOD, default=_text(_MONITOR.method),
        sentence="Count every page (census), let one speak for its region (sampling), or what the CPU share allows.",
    ),
    Field(
        section="monitor", key="sampling_interval", attribute="sampling_interval_s", kind=kinds.SAMPLING_TIME,
        default="it fits itself to the target", sentence="Time between two looks.",
    ),
    Field(
        section="monitor", key="aggregation_interval", attribute="aggregation_interval_s", kind=kinds.TIME,
        default="it fits itself to the target",
        sentence="Length of a window; its looks make one access rate, and schemes decide at its end.",
    ),
    Field(
        section="monitor", key="regions_update_interval", attribute="regions_update_interval_s", kind=kinds.TIME,
        default=_text(exact_time(_MONITOR.regions_update_interval_s)),
        sentence="Time between two looks at the target's mappings.",
    ),
    Field(
        section="monitor", key="min_nr_regions", attribute="min_nr_regions", kind=kinds.REGION_COUNT,
        default=str(_MONITOR.min_nr_regions), sentence="The monitor keeps at least so many regions.",
    ),
    Field(
        section="monitor", key="max_nr_regions", attribute="max_nr_regions", kind=kinds.REGION_COUNT,
        default=str(_MONITOR.max_nr_regions), sentence="The monitor keeps at most so many regions.",
    ),
)  # fmt: skip

_OF_GUARDS = (
    Field(
        section="guard", key="min_target_bytes", attribute="min_target_bytes", kind=kinds.SIZE,
        default=_text(exact_size(_GUARD.min_target_bytes)),
        sentence="Targets with less memory than this, resident and in swap together, are left alone.",
    ),
    Field(
        section="guard", key="override_application_hints", attribute="override_application_hints", kind=kinds.TRUTH,
        default=_word(truth=_GUARD.override_application_hints),
        sentence="Act against huge page advice that the application gave itself.",
    ),
    Field(
        section="guard", key="allow_ptrace", attribute="allow_ptrace", kind=kinds.TRUTH,
        default=_word(truth=_GUARD.allow_ptrace),
        sentence="Let a target be stopped for a moment and made to give huge page advice itself; hugepage and "
        "nohugepage need it.",
    ),
    Field(
        section="guard", key="keep_huge_page_advice", attribute="keep_huge_page_advice", kind=kinds.TRUTH,
        default=_word(truth=_GUARD.keep_huge_page_advice),
        sentence="Leave the huge page advice that was given in place at the end.",
    ),
    Field(
        section="guard", key="max_refault_rate", attribute="max_refault_rate", kind=kinds.SHARE,
        default=_text(exact_rate(_GUARD.max_refault_rate)),
        sentence="Share of the working set that may come back from pageout within a minute, per minute; a scheme slows "
        "down at half of it and stops above it.  0% is no such guard.",
    ),
    Field(
        section="guard", key="max_memory_pressure", attribute="max_memory_pressure", kind=kinds.SHARE,
        default=_text(exact_rate(_GUARD.max_memory_pressure)),
        sentence="Share of time in which some task may wait for memory; a scheme slows down at half of it and stops "
        "above it.  0% is no such guard.",
    ),
    Field(
        section="guard", key="max_bytes_per_s", attribute="max_bytes_per_s", kind=kinds.SIZE,
        default=_text(exact_size(_GUARD.max_bytes_per_s)),
        sentence="Most bytes of one target that all schemes together page out, bring back, move or collapse in a "
        "second, on average; up to 5 s' worth at once.  0B is no such limit.",
    ),
    Field(
        section="guard", key="min_free_swap", attribute="min_free_swap", kind=kinds.SHARE,
        default=_text(exact_rate(_GUARD.min_free_swap)), sentence="Share of all swap that is left free.",
    ),
)  # fmt: skip

FIELDS = (
    Field(
        section="", key="version", attribute="version", kind=kinds.VERSION_NUMBER, required=True,
        sentence="Version of the format of this file.",
    ),
    *_OF_TARGETS,
    *_OF_SCHEMES,
    *_OF_QUOTAS,
    *_OF_FILTERS,
    *_OF_MONITORS,
    *_OF_GUARDS,
)  # fmt: skip


def fields_of(section: str) -> tuple[Field, ...]:
    """The fields of one section, in the order of the table."""
    return tuple(field for field in FIELDS if field.section == section)


def sections_in(section: str) -> tuple[Section, ...]:
    """The tables right within one section, in the order of the table."""
    return tuple(one for one in SECTIONS.values() if one.path and one.parent == section)


def section_at(path: tuple[str | int, ...]) -> str:
    """The path of the section that a path of keys and indices leads into; empty for the top of the file."""
    section = ""
    for key in path:
        if isinstance(key, int):
            continue
        inner = f"{section}.{key}" if section else key
        if "." in key or inner not in SECTIONS:
            break
        section = inner
    return section
