"""The table of fields as pydantic models, so that all problems of a file are found in one pass."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator, create_model

from memtherm.core.attributes import TUNED, with_given
from memtherm.core.guard import GuardSettings
from memtherm.core.scheme import AccessPattern, Scheme
from memtherm.policy.fields import SECTIONS, fields_of
from memtherm.policy.values import Policy, TargetSelector, named

_CONFIG = ConfigDict(extra="forbid", frozen=True)


def given_values(section: str, model: BaseModel) -> dict[str, Any]:
    """What the file sets in one section, by attribute.  What it leaves out keeps the default of the attribute."""
    return {
        field.attribute: getattr(model, field.key)
        for field in fields_of(section)
        if field.key in model.model_fields_set
    }


def _build_scheme(**values: Any) -> Scheme:
    pattern = {key: values.pop(key) for key in ("size_bytes", "access_rate", "age_s") if key in values}
    return Scheme(pattern=AccessPattern(**pattern), **values)


# Each checks what concerns several keys at once, and raises InvalidInput.
BUILDERS: Mapping[str, Callable[..., Any]] = {
    "target": TargetSelector,
    "scheme": _build_scheme,
    "monitor": lambda **given: with_given(TUNED, given),
    "guard": GuardSettings,
}


def _definitions(section: str) -> dict[str, Any]:
    return {
        field.key: (Annotated[Any, PlainValidator(field.kind.parse)], ... if field.required else None)
        for field in fields_of(section)
    }


def _section_model(section: str) -> type[BaseModel]:
    return create_model(section, __config__=_CONFIG, **_definitions(section))


def _file_model() -> type[BaseModel]:
    definitions = _definitions("")
    for key, section in SECTIONS.items():
        if key:
            model: Any = _section_model(key)
            definitions[key] = (list[model], []) if section.repeated else (model | None, None)
    return create_model("policy", __config__=_CONFIG, **definitions)


PolicyFile = _file_model()


def policy_of(file: Any) -> Policy:
    """The policy that a validated PolicyFile means."""

    def built(section: str, model: BaseModel) -> Any:
        return BUILDERS[section](**given_values(section, model))

    return Policy(
        targets=tuple(built("target", target) for target in file.target),
        schemes=named(built("scheme", scheme) for scheme in file.scheme),
        attributes=built("monitor", file.monitor) if file.monitor else TUNED,
        guard=built("guard", file.guard) if file.guard else GuardSettings(),
    )
