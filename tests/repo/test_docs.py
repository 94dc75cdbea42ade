"""Docs that are made from code are what the code makes."""

from pathlib import Path

from memtherm.policy.reference import field_table_markdown

DOCS = Path(__file__).parents[2] / "docs"


def test_the_policy_page_is_made_from_the_table_of_fields() -> None:
    """To make it anew: python -c 'from memtherm.policy.reference import *; print(field_table_markdown(), end="")'."""
    assert (DOCS / "policy.md").read_text(encoding="utf-8") == field_table_markdown()
