"""The table of fields for readers: a page of the docs, and a JSON schema for editors."""

from typing import Any

from memtherm.policy.fields import SECTIONS, Field, Section, fields_of, sections_in

_INTRODUCTION = """# Policy files

Made from the table of fields in `src/memtherm/policy/fields.py`. `memtherm check FILE` says in plain sentences what a
file means, or names all that is wrong in it, with lines; `memtherm check --schema` prints a JSON schema for editors.
Ready policies are in `policies/`.

A time is written like `5ms`, `2min`, a size like `4KiB`, `128MiB`, a percentage like `5%`. Bounds are inclusive:
`">= 4KiB"`, `"<= 5%"`, `"1s .. 10s"`, `"0%"` (exactly), `"any"`. Tables in a scheme are written inline, as in the
examples, or below it as `[scheme.quota]` and `[[scheme.goals]]`.

damo's JSON of schemes (of `damo args damon` and the like) is read as well, from a file that ends in `.json`. There a
highest value of 0 means 0, as DAMON has it; in a scheme line of seven values a bare 0 means no bound. What cannot be
done here is refused, and named."""


def field_table_markdown() -> str:
    """All sections and fields of a policy file as Markdown."""
    parts = [_INTRODUCTION, *(_section_markdown(section) for section in SECTIONS.values())]
    return "\n\n".join(parts) + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of a policy file.

    It holds types, names and choices; how a bound or a time is written is told in words, and checked by the parser.
    """
    top = _object_schema("")
    top["properties"]["scheme"]["minItems"] = 1
    top["required"].append("scheme")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "memtherm policy"} | top


def _section_markdown(section: Section) -> str:
    title = f"{'###' if section.is_nested else '##'} `{section.header}`" if section.path else "## Top of the file"
    text = f"{title}\n\n{section.sentence}"
    if section.is_nested:
        text += f"\n\nInline: `{section.form}`."
    rows = ["| key | value | example | default | meaning |", "|---|---|---|---|---|"]
    text += "\n\n" + "\n".join(rows + [_row(field) for field in fields_of(section.path)])
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
    properties = {field.key: _field_schema(field) for field in fields}
    for inner in sections_in(section):
        schema = {"description": inner.sentence} | _object_schema(inner.path)
        properties[inner.key] = {"type": "array", "items": schema} if inner.repeated else schema
    return {
        "type": "object",
        "properties": properties,
        "required": [field.key for field in fields if field.required],
        "additionalProperties": False,
    }


def _field_schema(field: Field) -> dict[str, Any]:
    default = f" Default: {field.default}." if field.default else ""
    types = field.kind.schema
    schema: dict[str, Any] = {
        "type": types[0] if len(types) == 1 else list(types),
        "description": f"{field.sentence} ({field.kind.noun}, such as {field.kind.example}.){default}",
    }
    if "array" in types:
        schema["items"] = {"type": "string"}
    if field.kind.choices:
        schema["enum"] = list(field.kind.choices)
    return schema
