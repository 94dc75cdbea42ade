"""Docs that are made from code are what the code makes, and none is half done."""

from pathlib import Path

from memtherm.policy.reference import field_table_markdown

DOCS = Path(__file__).parents[2] / "docs"


def test_the_policy_page_is_made_from_the_table_of_fields() -> None:
    """To make it anew: python -c 'from memtherm.policy.reference import *; print(field_table_markdown(), end="")'."""
    assert (DOCS / "policy.md").read_text(encoding="utf-8") == field_table_markdown()


def test_no_page_has_a_gap_left_to_fill() -> None:
    pages = [*DOCS.parent.glob("*.md"), *DOCS.glob("*.md")]
    assert {page.name for page in pages} >= {"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "policy.md"}
    assert [page.name for page in pages if "@@" in page.read_text(encoding="utf-8")] == []
