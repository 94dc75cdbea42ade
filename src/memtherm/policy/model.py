"""The table of fields as pydantic models, so that all problems of a file are found in one pass."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator, create_model

from memtherm.core.attributes import TUNED, with_given
from memtherm.core.filters import Filter, FilterKind
from memtherm.core.goals import Goal, GoalMetric
from memtherm.core.guard import GuardSettings
from memtherm.core.pattern import AccessPattern
from memtherm.core.quota import Quota, Weights
from memtherm.core.scheme import Destination, Scheme
from memtherm.core.watermarks import Watermarks
from memtherm.errors import InvalidInput
from memtherm.policy.fields import SECTIONS, Section, fields_of, sections_in
from memtherm.policy.kinds import goal_value
from memtherm.policy.values import Policy, TargetSelector, named

_CONFIG = ConfigDict(extra="forbid", frozen=True)


def _build_scheme(*, quota: Quota | None = None, goals: tuple[Goal, ...] = (), **values: Any) -> Scheme:
    pattern = {key: values.pop(key) for key in ("size_bytes", "access_rate", "age_s") if key in values}
    limits = quota or Quota()
    if goals:
        limits = replace(limits, goals=goals)
    return Scheme(pattern=AccessPattern(**pattern), quota=limits, **values)


def _build_goal(*, metric: GoalMetric, target: object, **where: Any) -> Goal:
    return Goal(metric=metric, target=goal_value(metric, target), **where)


def _build_filter(
    *,
    allow: FilterKind | None = None,
    reject: FilterKind | None = None,
    inverted: bool = False,
    addresses: tuple[int, int] = (0, 0),
    **values: Any,
) -> Filter:
    kind = allow or reject
    if kind is None or (allow and reject):
        what = "has both allow and reject" if kind else "has neither allow nor reject"
        raise InvalidInput(f"a filter {what}", hint='give one of the two, such as reject = "file"')
    start, end = addresses
    return Filter(kind=kind, allow=allow is not None, matching=not inverted, start=start, end=end, **values)


# Each checks what concerns several keys at once, and raises InvalidInput.
BUILDERS: Mapping[str, Callable[..., Any]] = {
    "target": TargetSelector,
    "scheme": _build_scheme,
    "scheme.quota": Quota,
    "scheme.quota.weights": Weights,
    "scheme.goals": _build_goal,
    "scheme.watermarks": Watermarks,
    "scheme.filters": _build_filter,
    "scheme.destinations": Destination,
    "monitor": lambda **given: with_given(TUNED, given),
    "guard": GuardSettings,
}


def _section_model(section: str) -> type[BaseModel]:
    definitions: dict[str, Any] = {
        field.key: (Annotated[Any, PlainValidator(field.kind.parse)], ... if field.required else None)
        for field in fields_of(section)
    }
    for inner in sections_in(section):
        model: Any = _section_model(inner.path)
        definitions[inner.key] = (list[model], []) if inner.repeated else (model | None, None)
    return create_model(section or "policy", __config__=_CONFIG, **definitions)


_MODELS = {path: _section_model(path) for path in SECTIONS}
PolicyFile = _MODELS[""]


def build(section: str, model: BaseModel) -> Any:
    """The value that one table of a file means.  What the file leaves out keeps the default of the attribute."""
    given = {
        field.attribute: getattr(model, field.key)
        for field in fields_of(section)
        if field.key in model.model_fields_set
    }
    for inner in sections_in(section):
        value: Any = getattr(model, inner.key)
        if inner.key in model.model_fields_set and value is not None:
            several = value if inner.repeated else [value]
            built = tuple(build(inner.path, one) for one in several)
            given[inner.attribute] = built if inner.repeated else built[0]
    return BUILDERS[section](**given)


def read_table(section: Section, value: object) -> Any:
    """What a table, or a list of tables, of a file means.  Raises ValueError: InvalidInput, or pydantic's."""
    if not section.repeated:
        return build(section.path, _MODELS[section.path].model_validate(value))
    several = value if isinstance(value, list) else [value]
    return tuple(build(section.path, _MODELS[section.path].model_validate(one)) for one in several)


def policy_of(file: Any) -> Policy:
    """The policy that a validated PolicyFile means."""
    return Policy(
        targets=tuple(build("target", target) for target in file.target),
        schemes=named(build("scheme", scheme) for scheme in file.scheme),
        attributes=build("monitor", file.monitor) if file.monitor else TUNED,
        guard=build("guard", file.guard) if file.guard else GuardSettings(),
    )
