"""MEMTHERM_WITHOUT."""

import pytest

from memtherm.errors import InvalidInput
from memtherm.linux import hidden


def test_nothing_is_hidden_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(hidden.VARIABLE, raising=False)
    assert hidden.hidden_features() == frozenset()


def test_names_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hidden.VARIABLE, "bpf, swap,CAP_SYS_NICE,")
    assert hidden.hidden_features() == {"bpf", "swap", "CAP_SYS_NICE"}
    assert hidden.is_hidden("swap")
    assert not hidden.is_hidden("psi")


def test_a_misspelt_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hidden.VARIABLE, "pagemap-scan")
    with pytest.raises(InvalidInput, match="unknown feature pagemap-scan") as caught:
        hidden.hidden_features()
    assert "pagemap_scan" in caught.value.hint
