"""The docs table and the JSON schema say what the parser does."""

import json
import re

import pytest

from memtherm.core.attributes import TUNED
from memtherm.core.guard import GuardSettings
from memtherm.errors import InvalidPolicy
from memtherm.policy.fields import FIELDS, SECTIONS, Field
from memtherm.policy.file import parse_policy
from memtherm.policy.reference import field_table_markdown, json_schema


def test_the_table_names_every_field_with_its_sentence() -> None:
    page = field_table_markdown()
    for field in FIELDS:
        assert f"| `{field.key}` |" in page
        assert field.sentence in page
    assert re.search(r"refused: .*`quota`", page)


def test_the_schema_is_json_and_closed() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert schema["required"] == ["version", "scheme"]
    scheme = schema["properties"]["scheme"]["items"]
    assert scheme["additionalProperties"] is False
    assert "pageout" in scheme["properties"]["action"]["enum"]
    assert set(schema["properties"]) == {"version", *filter(None, SECTIONS)}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field.section}.{field.key}")
def test_the_example_of_every_field_is_accepted(field: Field) -> None:
    entry = "" if not field.section else f"{SECTIONS[field.section].header}\n{field.key} = {field.kind.example}\n"
    entry += 'action = "stat"\n' if field.section == "scheme" and field.key != "action" else ""
    entry += '[[scheme]]\naction = "stat"\n' if field.section != "scheme" else ""
    parse_policy(f"version = 1\n{entry}")


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field.section}.{field.key}")
def test_a_value_of_the_wrong_type_is_refused_for_every_field(field: Field) -> None:
    entry = f"{SECTIONS[field.section].header}\n" if field.section else ""
    entry += f"{field.key} = [1979-05-27]\n"
    with pytest.raises(InvalidPolicy) as refusal:
        parse_policy(entry)
    assert any(f"{field.key}: is" in problem for problem in refusal.value.problems)


def test_the_defaults_of_the_table_are_those_of_the_values() -> None:
    fixed = [field for field in FIELDS if field.section == "monitor" and "fits itself" not in field.default]
    monitor = "".join(f"{field.key} = {field.default}\n" for field in fixed)
    guard = "".join(f"{field.key} = {field.default}\n" for field in FIELDS if field.section == "guard")
    policy = parse_policy(f'version = 1\n[[scheme]]\naction = "stat"\n[monitor]\n{monitor}[guard]\n{guard}')
    assert policy.attributes == TUNED
    assert policy.guard == GuardSettings()
