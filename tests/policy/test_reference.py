"""The docs table and the JSON schema say what the parser does."""

import json
import re
from typing import Any

import pytest

from memtherm.core.attributes import TUNED
from memtherm.core.guard import GuardSettings
from memtherm.errors import InvalidPolicy
from memtherm.policy.fields import FIELDS, SECTIONS, Field
from memtherm.policy.file import parse_policy
from memtherm.policy.reference import field_table_markdown, json_schema

MARKS = {"high": '"90%"', "mid": '"5%"', "low": '"1%"'}
# What else a table needs so that one of its fields means something: by section, or by section and key.
COMPANIONS: dict[str, dict[str, str]] = {
    "target": {},
    "target.children": {"name": '"redis-server"'},
    "target.label": {"name": '"redis-server"'},
    "target.physical": {"name": '"redis-server"'},
    "target.ranges": {"name": '"redis-server"'},
    "scheme": {"action": '"stat"'},
    "scheme.goals": {"metric": '"memory_pressure"', "target": '"10ms"'},
    "scheme.goals.node": {"metric": '"free_memory"', "target": '"20%"'},
    "scheme.watermarks": MARKS,
    "scheme.watermarks.low": MARKS | {"mid": '"50%"'},
    "scheme.filters.allow": {},
    "scheme.filters.reject": {},
    "scheme.filters.not": {"allow": '"file"'},
    "scheme.filters.range": {"reject": '"address"'},
    "scheme.filters.target": {"reject": '"target"'},
    "scheme.filters.pattern": {"reject": '"mapping"'},
    "scheme.filters.size": {"reject": '"huge_page"'},
    "scheme.filters.cgroup": {"reject": '"cgroup"'},
    "scheme.destinations": {"node": "1"},
}


def inline(table: dict[str, str]) -> str:
    return "{ " + ", ".join(f"{key} = {value}" for key, value in table.items()) + " }"


def policy_text(field: Field, literal: str, *, is_inline: bool) -> str:
    """A policy that holds one field with this value, and no more than that needs."""
    section = SECTIONS[field.section]
    path = f"{field.section}.{field.key}"
    values = COMPANIONS.get(path, COMPANIONS.get(field.section, {})) | {field.key: literal}
    if not section.path:
        return f'{field.key} = {literal}\n[[scheme]]\naction = "stat"\n'
    table = "".join(f"{key} = {value}\n" for key, value in values.items())
    scheme = f'[[scheme]]\naction = "{"migrate_hot" if section.key == "destinations" else "stat"}"\n'
    label = {"scheme.targets": '"redis-server"', "scheme.filters.target": '"database"'}.get(path)
    target = f'[[target]]\nname = "x"\nlabel = {label}\n' if label else ""
    if not section.is_nested:
        return f"version = 1\n{target}{section.header}\n{table}" + (scheme if section.path != "scheme" else "")
    if not is_inline:
        return f"version = 1\n{target}{scheme}{section.header}\n{table}"
    value = f"[{inline(values)}]" if section.repeated else inline(values)
    for key in reversed(section.path.split(".")[2:]):
        value = f"{{ {key} = {value} }}"
    return f"version = 1\n{target}{scheme}{section.path.split('.')[1]} = {value}\n"


def test_the_table_names_every_field_with_its_sentence() -> None:
    page = field_table_markdown()
    for field in FIELDS:
        assert f"| `{field.key}` |" in page
        assert field.sentence in page
    for section in SECTIONS.values():
        assert section.sentence in page
    assert re.search(r"refused: .*`intervals_goal`", page)


def test_the_schema_is_json_and_closed_in_all_tables() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert schema["required"] == ["version", "scheme"]
    scheme = schema["properties"]["scheme"]["items"]
    assert "pageout" in scheme["properties"]["action"]["enum"]
    assert set(schema["properties"]) == {"version", *(path for path in SECTIONS if path and "." not in path)}
    assert set(scheme["properties"]["quota"]["properties"]) >= {"bytes", "weights"}
    assert scheme["properties"]["goals"]["items"]["required"] == ["metric", "target"]
    assert scheme["properties"]["targets"] | {"description": ""} == {
        "type": "array",
        "items": {"type": "string"},
        "description": "",
    }
    objects = _objects(schema)
    assert len(objects) == len(SECTIONS)
    assert all(one["additionalProperties"] is False for one in objects)


def _objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [schema["items"]] if "items" in schema else list(schema.get("properties", {}).values())
    found = [one for part in inner for one in _objects(part)]
    return [schema, *found] if schema.get("type") == "object" else found


IDS = [f"{field.section}.{field.key}" for field in FIELDS]


@pytest.mark.parametrize("field", FIELDS, ids=IDS)
def test_the_example_of_every_field_is_accepted_below_and_inline(field: Field) -> None:
    below, within = (
        parse_policy(policy_text(field, field.kind.example, is_inline=is_inline)) for is_inline in (False, True)
    )
    assert below == within


@pytest.mark.parametrize("field", FIELDS, ids=IDS)
def test_a_value_of_the_wrong_type_is_refused_for_every_field_by_its_whole_path(field: Field) -> None:
    for is_inline in (False, True):
        with pytest.raises(InvalidPolicy) as refusal:
            parse_policy(policy_text(field, "[1979-05-27]", is_inline=is_inline))
        keys = field.section.split(".") if field.section else []
        pattern = ".*".join(map(re.escape, [*keys, f"{field.key}: is"]))
        assert any(re.search(pattern, problem) for problem in refusal.value.problems)
        assert len(refusal.value.problems) == 1


@pytest.mark.parametrize("section", [one for one in SECTIONS.values() if one.is_nested], ids=lambda one: one.path)
@pytest.mark.parametrize("literal", ["5", '"x"', "[5]"])
def test_a_table_that_is_none_is_refused_with_the_way_to_write_it(section: Any, literal: str) -> None:
    scheme = 'version = 1\n[[scheme]]\naction = "stat"\n'
    value = f"{{ weights = {literal} }}" if section.key == "weights" else literal
    with pytest.raises(InvalidPolicy) as refusal:
        parse_policy(f"{scheme}{section.path.split('.')[1]} = {value}\n", source="p")
    (problem,) = refusal.value.problems
    assert problem.startswith("p:4: scheme 1: ")
    assert "must be a" in problem
    assert problem.endswith(f"; write {section.form}")


def test_the_inline_examples_of_tables_are_accepted() -> None:
    for section in SECTIONS.values():
        if not section.is_nested or section.key == "weights":
            continue
        action = "migrate_cold" if section.key == "destinations" else "stat"
        parse_policy(f'version = 1\n[[scheme]]\naction = "{action}"\n{section.form}\n')


def test_the_defaults_of_the_table_are_those_of_the_values() -> None:
    fixed = [field for field in FIELDS if field.section == "monitor" and "fits itself" not in field.default]
    monitor = "".join(f"{field.key} = {field.default}\n" for field in fixed)
    guard = "".join(f"{field.key} = {field.default}\n" for field in FIELDS if field.section == "guard")
    policy = parse_policy(f'version = 1\n[[scheme]]\naction = "stat"\n[monitor]\n{monitor}[guard]\n{guard}')
    assert policy.attributes == TUNED
    assert policy.guard == GuardSettings()


@pytest.mark.parametrize(
    ("section", "needed"), [("scheme.quota", {}), ("scheme.quota.weights", {}), ("scheme.watermarks", MARKS)]
)
def test_the_defaults_within_schemes_are_those_of_the_values(section: str, needed: dict[str, str]) -> None:
    base = f'version = 1\n[[scheme]]\naction = "stat"\n[{section}]\n'
    without = base + "".join(f"{key} = {value}\n" for key, value in needed.items())
    fields = [field for field in FIELDS if field.section == section and field.default[:1] in '"0123456789']
    told = "".join(f"{field.key} = {field.default}\n" for field in fields if field.default)
    assert parse_policy(without + told) == parse_policy(without)
