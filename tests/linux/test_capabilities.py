"""Capabilities by name."""

from pathlib import Path

import pytest

from memtherm.linux import capabilities
from support.privileges import run_as_nobody
from support.requires import require


def test_bits_become_names() -> None:
    assert capabilities.parse_capabilities("Name:\tx\nCapEff:\t0000000000000001\n") == {"CAP_CHOWN"}
    assert capabilities.parse_capabilities("CapEff:\t0000018000880000\n") == {
        *("CAP_SYS_PTRACE", "CAP_SYS_NICE"),
        *("CAP_BPF", "CAP_CHECKPOINT_RESTORE"),
    }
    # Bits of the future are no error.
    assert len(capabilities.parse_capabilities("CapEff:\tffffffffffffffff\n")) == 41
    assert capabilities.parse_capabilities("Name:\tx\n") == frozenset()


def test_root_and_nobody() -> None:
    require("root")
    needed = ("CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_CHOWN")
    assert set(capabilities.missing(needed)) <= capabilities.effective() ^ set(needed)
    assert run_as_nobody(capabilities.effective) == frozenset()
    assert run_as_nobody(lambda: capabilities.missing(needed)) == needed


def test_a_hidden_capability_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "CAP_SYS_NICE")
    assert capabilities.missing(("CAP_SYS_NICE",)) == ("CAP_SYS_NICE",)


def test_user_namespace() -> None:
    require("root")
    # The number of the first one is fixed in the kernel (PROC_USER_INIT_INO).
    is_first = Path("/proc/self/ns/user").readlink().name == "user:[4026531837]"
    assert capabilities.in_initial_user_namespace() == is_first
