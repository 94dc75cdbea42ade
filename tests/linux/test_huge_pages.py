"""Settings of transparent huge pages."""

from pathlib import Path

import pytest

from memtherm.linux.huge_pages import parse_choice, read_huge_pages


def test_the_word_in_brackets() -> None:
    assert parse_choice("always [madvise] never\n") == "madvise"
    assert parse_choice("") == ""


def test_the_host() -> None:
    facts = read_huge_pages()
    directory = Path("/sys/kernel/mm/transparent_hugepage")
    assert facts.is_usable == directory.exists()
    if facts.is_usable:
        assert f"[{facts.mode}]" in (directory / "enabled").read_text()
        assert facts.pmd_size_bytes == int((directory / "hpage_pmd_size").read_text())


def test_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "thp")
    facts = read_huge_pages()
    assert (facts.mode, facts.pmd_size_bytes, facts.is_usable) == ("absent", 0, False)
