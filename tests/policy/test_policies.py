"""The ready policies of the repository: they load, say what they do, and hold no target."""

from pathlib import Path

import pytest

from memtherm.core.scheme import Action
from memtherm.policy.explain import explain_policy
from memtherm.policy.file import load_policy
from memtherm.policy.scheme_line import parse_scheme_line
from memtherm.policy.warnings import warnings

POLICIES = sorted((Path(__file__).parents[2] / "policies").iterdir())


def test_all_that_are_promised_are_there() -> None:
    assert sorted(path.stem for path in POLICIES) == [
        "access-aware-thp",
        "access-aware-thp-collapse",
        "prefetch",
        "proactive-reclaim",
        "proactive-reclaim-damon",
        "tiering",
        "working-set",
    ]


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_ready_policy_is_explained_and_has_nothing_to_warn_of(path: Path) -> None:
    policy = load_policy(path)
    assert policy.targets == ()
    assert explain_policy(policy)[0] == "names no target: the command line must"
    assert warnings(policy) == []
    comment = path.read_text(encoding="utf-8").split("version = 1")[0]
    for part in ("# When to use it: ", "# What it does: ", "# What to watch: "):
        assert part in comment


def test_the_one_of_damon_is_its_published_scheme() -> None:
    (scheme,) = load_policy(next(path for path in POLICIES if path.stem == "proactive-reclaim-damon")).schemes
    assert scheme.pattern == parse_scheme_line("4K max 0% 0% 5s max pageout").pattern
    assert scheme.action is Action.PAGEOUT
