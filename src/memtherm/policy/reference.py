"""The table of fields for readers: a page of the docs, and a JSON schema for editors."""

from typing import Any

from memtherm.policy.fields import FIELDS, SECTIONS, Field, Section, fields_of

_INTRODUCTION = """# Policy files

Made from the table of fields in `src/memtherm/policy/fields.py`. `memtherm check FILE` says in plain sentences what a
file means, or names all that is wrong in it, with lines."""


def field_table_markdown() -> str:
    """All sections and fields of a policy file as Markdown."""
    parts = [_INTRODUCTION, *(_section_markdown(section) for section in SECTIONS.values())]
    return "\n\n".join(parts) + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of a policy file.

    It holds types, names and choices; how a bound or a time is written is told in words, and checked by the parser.
    """
    top = _object_schema("")
    for key, section in SECTIONS.items():
        if not key:
            continue
        schema = {"description": section.sentence} | _object_schema(key)
        top["properties"][key] = {"type": "array", "items": schema} if section.repeated else schema
    top["properties"]["scheme"]["minItems"] = 1
    top["required"].append("scheme")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "memtherm policy"} | top


def _section_markdown(section: Section) -> str:
    title = f"## `{section.header}`" if section.key else "## Top of the file"
    rows = ["| key | value | example | default | meaning |", "|---|---|---|---|---|"]
    rows += [_row(field) for field in FIELDS if field.section == section.key]
    text = f"{title}\n\n{section.sentence}\n\n" + "\n".join(rows)
    if section.later:
        later = ", ".join(f"`{key}`" for key in section.later)
        text += f"\n\nNot supported by this version, and refused: {later}."
    return text


def _row(field: Field) -> str:
    choices = ": " + ", ".join(f"`{choice}`" for choice in field.kind.choices) if field.kind.choices else ""
    default = "required" if field.required else (f"`{field.default}`" if field.default else "")
    return f"| `{field.key}` | {field.kind.noun}{choices} | `{field.kind.example}` | {default} | {field.sentence} |"


def _object_schema(section: str) -> dict[str, Any]:
    fields = fields_of(section)
    return {
        "type": "object",
        "properties": {field.key: _field_schema(field) for field in fields},
        "required": [field.key for field in fields if field.required],
        "additionalProperties": False,
    }


def _field_schema(field: Field) -> dict[str, Any]:
    default = f" Default: {field.default}." if field.default else ""
    schema: dict[str, Any] = {
        "type": field.kind.schema,
        "description": f"{field.sentence} ({field.kind.noun}, such as {field.kind.example}.){default}",
    }
    if field.kind.choices:
        schema["enum"] = list(field.kind.choices)
    return schema
