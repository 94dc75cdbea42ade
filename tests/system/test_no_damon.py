"""In a kernel without DAMON, such as Debian's 6.1, each command says so in a sentence."""

import json
import os

import pytest

from memtherm.linux.facts import probe_host
from support.command import assert_refused, forked

ABSENT = "this kernel has no DAMON"


@pytest.fixture(autouse=True)
def _without() -> None:
    if probe_host().damon.is_present:
        pytest.skip("this kernel has DAMON")


def test_kernel_commands_say_so() -> None:
    status = forked("kernel", "status", "--json")
    assert status.exit_code == 0, status.stderr
    plain = json.loads(status.stdout)
    assert (plain["holder"], plain["sentence"], plain["kdamonds"]) == ("not there", ABSENT, [])
    assert set(plain["modules"].values()) == {None}
    for command in ("reclaim", "lru-sort"):
        assert_refused(forked("kernel", command, "--enable", "--apply"), 3, ABSENT, "CONFIG_DAMON")
    assert_refused(forked("kernel", "stat"), 3, ABSENT)


@pytest.mark.parametrize("target", [("--pid", str(os.getpid())), ("--physical",)])
def test_nothing_is_watched_by_it(target: tuple[str, ...]) -> None:
    assert_refused(forked("monitor", "--method", "kdamond", *target), 3, ABSENT, "CONFIG_DAMON_SYSFS")
