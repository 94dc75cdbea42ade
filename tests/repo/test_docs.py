"""Docs that are made from code are what the code makes, and none is half done."""

import re
from pathlib import Path

from memtherm.policy.explain import explain
from memtherm.policy.file import parse_policy
from memtherm.policy.reference import field_table_markdown
from memtherm.policy.warnings import warnings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS.parent / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")] + sorted(DOCS.glob("*.md"))
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```", re.DOTALL)


def test_the_policy_page_is_made_from_the_table_of_fields() -> None:
    """To make it anew: python -c 'from memtherm.policy.reference import *; print(field_table_markdown(), end="")'."""
    assert (DOCS / "policy.md").read_text(encoding="utf-8") == field_table_markdown()


def test_no_page_has_a_gap_left_to_fill() -> None:
    pages = [*DOCS.parent.glob("*.md"), *DOCS.glob("*.md")]
    assert {page.name for page in pages} >= {"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "policy.md"}
    assert [page.name for page in pages if "@@" in page.read_text(encoding="utf-8")] == []


def test_the_policy_of_the_readme_is_quoted_as_check_explains_it() -> None:
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    policy = parse_policy(toml)
    (scheme,) = policy.schemes
    assert warnings(policy) == []
    (quoted,) = re.findall(r"`memtherm check` says it in words: \*(.*?)\*", text, re.DOTALL)
    assert " ".join(quoted.split()) == explain(scheme)


def test_every_relative_link_leads_to_a_file() -> None:
    missing = []
    for page in PAGES:
        links = _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))
        paths = [link.partition("#")[0] for link in links if "://" not in link]
        missing += [f"{page.name}: {path}" for path in paths if path and not (page.parent / path).exists()]
    assert missing == []
