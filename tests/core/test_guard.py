"""What may be set about the guards."""

import pytest

from memtherm.core.guard import GuardSettings
from memtherm.errors import InvalidInput


def test_all_guards_are_on_and_ptrace_is_off() -> None:
    settings = GuardSettings()
    assert settings.max_refault_rate == 0.002
    assert min(settings.min_target_bytes, settings.max_bytes_per_s) > 0
    assert min(settings.max_memory_pressure, settings.min_free_swap) > 0
    assert not any((settings.override_application_hints, settings.allow_ptrace, settings.keep_huge_page_advice))


@pytest.mark.parametrize(
    "values",
    [
        {"min_target_bytes": -1},
        {"min_target_bytes": 1.5},
        {"max_bytes_per_s": True},
        {"allow_ptrace": 1},
        {"override_application_hints": "yes"},
        {"max_refault_rate": 1.1},
        {"max_memory_pressure": -0.1},
        {"min_free_swap": float("nan")},
    ],
)
def test_settings_without_a_meaning(values: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(values))) as problem:
        GuardSettings(**values)  # type: ignore[arg-type]
    assert problem.value.hint
