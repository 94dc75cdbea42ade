"""The choice among ways to see: a capable host less one thing at a time, and what the canary has to say."""

from dataclasses import replace

import pytest

from memtherm.linux.facts import DamonFacts, HostFacts
from memtherm.linux.huge_pages import HugePageFacts
from memtherm.linux.pressure import PressureReading
from memtherm.linux.swap import SwapState
from memtherm.probe.choose import WRITES_ONLY, Way, choose_probe, rank_probes

CAPABILITIES = frozenset({"CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_SYS_ADMIN"})
CAPABLE = HostFacts(
    kernel_release="6.18.0",
    machine="x86_64",
    effective_user_id=0,
    capabilities=CAPABILITIES,
    is_initial_user_namespace=True,
    ptrace_scope=0,
    lockdown="none",
    memory_bytes=1 << 34,
    cpu_count=2,
    has_bpf=True,
    has_btf=True,
    has_libbpf=True,
    has_process_madvise=True,
    has_pagemap_scan=True,
    has_soft_dirty=False,
    has_idle_bitmap=False,
    swap=SwapState(0, 0, ()),
    huge_pages=HugePageFacts("madvise", "never", 2 << 20),
    memory_pressure=PressureReading(None, "absent"),
    damon=DamonFacts(is_present=False, kdamonds=None),
)
GOOD, BAD = Way("good", True, "sees well"), Way("bad", False, "lacks an eye", "buy one")
OTHER = Way("other", True, "sees a little")


def sound(_: str) -> str:
    return ""


def test_a_capable_host_has_all_and_bpf_first() -> None:
    ways = rank_probes(replace(CAPABLE, has_soft_dirty=True))
    assert [(way.name, way.usable) for way in ways] == [("bpf", True), ("smaps", True), ("softdirty", True)]


def test_a_kernel_without_soft_dirty_bits_is_told() -> None:
    soft_dirty = rank_probes(CAPABLE)[-1]
    assert (soft_dirty.name, soft_dirty.usable) == ("softdirty", False)
    assert "CONFIG_MEM_SOFT_DIRTY" in soft_dirty.remedy


@pytest.mark.parametrize(
    ("less", "reason", "remedy"),
    [
        ({"machine": "riscv64"}, "not made for this architecture", "smaps"),
        ({"page_size_bytes": 65536}, "pages of 64 KiB", "smaps"),
        ({"has_bpf": False}, "no BPF", "CONFIG_BPF_SYSCALL"),
        ({"has_btf": False}, "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"),
        ({"lockdown": "confidentiality"}, "lockdown", "boot without"),
        ({"has_libbpf": False}, "libbpf.so.1", "apt-get install libbpf1"),
        ({"has_process_madvise": False}, "no process_madvise", "Linux 6.1 or newer"),
        ({"is_initial_user_namespace": False}, "user namespace", "root of the host"),
        *(({"capabilities": CAPABILITIES - {name}}, f"missing {name}", "as root") for name in sorted(CAPABILITIES)),
        ({"capabilities": frozenset()}, "missing CAP_BPF, CAP_PERFMON", "as root"),
    ],
)
def test_what_bpf_lacks_is_named_with_a_remedy(less: dict[str, object], reason: str, remedy: str) -> None:
    bpf, smaps, _ = rank_probes(replace(CAPABLE, **less))  # type: ignore[arg-type]
    assert not bpf.usable
    assert reason in bpf.reason
    assert remedy in bpf.remedy
    assert smaps.usable


def test_lockdown_for_integrity_lets_bpf_read() -> None:
    assert rank_probes(replace(CAPABLE, lockdown="integrity"))[0].usable


def test_the_best_that_is_sound_is_chosen() -> None:
    assert choose_probe([GOOD, OTHER], wanted="auto", canary=sound) == ("good", ["watching by good: sees well"])


def test_what_was_passed_over_is_told() -> None:
    name, reasons = choose_probe([BAD, GOOD], wanted="auto", canary=sound)
    assert name == "good"
    assert reasons == ["not by bad: lacks an eye (buy one)", "watching by good: sees well"]


def test_a_canary_that_fails_is_believed() -> None:
    name, reasons = choose_probe([GOOD, OTHER], wanted="auto", canary=lambda name: "it lies" if name == "good" else "")
    assert name == "other"
    assert reasons == ["not by good: it lies", "watching by other: sees a little"]


def test_no_canary_is_sent_where_there_is_no_hope() -> None:
    asked: list[str] = []

    def note(name: str) -> str:
        asked.append(name)
        return ""

    choose_probe([BAD, GOOD, OTHER], wanted="auto", canary=note)
    assert asked == ["good"]


def test_the_wanted_one_is_taken_or_none() -> None:
    assert choose_probe([GOOD, OTHER], wanted="other", canary=sound)[0] == "other"
    assert choose_probe([BAD, GOOD], wanted="bad", canary=sound) == ("", ["not by bad: lacks an eye (buy one)"])
    assert choose_probe([GOOD], wanted="good", canary=lambda _: "it lies") == ("", ["not by good: it lies"])


def test_what_sees_writes_only_is_taken_only_when_asked_for() -> None:
    writes = Way("writes", True, "sees writes", writes_only=True)
    assert choose_probe([BAD, writes], wanted="auto", canary=sound) == ("", ["not by bad: lacks an eye (buy one)"])
    assert choose_probe([BAD, writes], wanted="writes", canary=sound)[0] == "writes"
    assert {way.name for way in rank_probes(CAPABLE) if way.writes_only} == WRITES_ONLY - {"userfaultfd-writes"}
