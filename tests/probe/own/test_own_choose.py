"""Which way own memory is watched by, why not by a better one, and what is believed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from memtherm.core.census import PageBits
from memtherm.core.protocols import CensusProbe
from memtherm.core.regions import Range
from memtherm.errors import InvalidInput, NotSupported
from memtherm.linux.facts import probe_host
from memtherm.probe.choose import WRITES_ONLY
from memtherm.probe.own import bpf, choose, parts, userfaultfd
from memtherm.probe.own.canary import canary_problem
from memtherm.probe.own.choose import OwnFacts, open_own_probe, own_canary_failure, rank_own_probes
from memtherm.probe.own.parts import PartsCensusProbe
from probe.own.own_memory import Memory, accessed_units
from support.privileges import run_as_nobody
from support.requires import require

# What a user who cannot read the package could not load.
LOADED = (bpf, parts, userfaultfd)
ALL = OwnFacts(no_userfaultfd="", no_userfaultfd_writes="", has_page_monitor=True)
NONE = OwnFacts(no_userfaultfd="none", no_userfaultfd_writes="none", has_page_monitor=False)


class Half(PartsCensusProbe):
    """Sees half of what it should, or everything."""

    sees_all = False

    def look(self) -> PageBits:
        bits = super().look()
        accessed = bits.present if self.sees_all else bits.accessed & np.uint64(0)
        return PageBits(bits.address, bits.is_huge, bits.present, accessed)


class All(Half):
    sees_all = True


def test_the_order_is_that_of_the_design() -> None:
    facts = replace(probe_host(), has_soft_dirty=True, has_pagemap_scan=True)
    ways = rank_own_probes(facts, ALL)
    assert [way.name for way in ways] == list(choose.WAYS)
    assert [way.name for way in ways if way.writes_only] == ["userfaultfd-writes", "softdirty"]
    assert {way.name for way in ways if way.writes_only} == WRITES_ONLY


def test_each_way_that_is_missing_says_why_and_what_helps() -> None:
    facts = replace(probe_host(), has_soft_dirty=False, has_bpf=False)
    for way in rank_own_probes(facts, NONE):
        assert not way.usable
        assert way.reason
        assert way.remedy


def test_not_a_way() -> None:
    with pytest.raises(InvalidInput, match="'bfp' is no way"):
        open_own_probe([Memory(units=1).range], wanted="bfp")


def test_a_kernel_without_any_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "look_at_own_facts", lambda: NONE)
    monkeypatch.setattr(choose, "probe_host", lambda: replace(probe_host(), has_bpf=False))
    with pytest.raises(NotSupported) as caught:
        open_own_probe([Memory(units=1).range])
    for part in ("userfaultfd: none", "Linux 7.3", "no BPF", "CONFIG_PROC_PAGE_MONITOR"):
        assert part in caught.value.message
    assert "doctor" in caught.value.hint


def test_an_ordinary_user_gets_a_way_that_sees_reads() -> None:
    require("root")

    def name_and_seen() -> tuple[str, bool, tuple[str, ...], set[int]]:
        memory = Memory(units=4)
        probe, way = open_own_probe([memory.range])
        probe.clear(probe.look())
        memory.read(2 * 512 + 3)
        seen = accessed_units(probe.look(), memory.start)
        probe.close()
        return way.name, way.writes_only, way.reasons, seen

    name, writes_only, reasons, seen = run_as_nobody(name_and_seen)
    assert name in ("userfaultfd", "smaps")
    assert not writes_only
    assert any("not by bpf: missing CAP_BPF" in reason for reason in reasons)
    assert reasons[-1].startswith(f"watching by {name}: ")
    assert seen == {2}


def test_writes_only_are_taken_where_they_are_asked_for() -> None:
    memory = Memory(units=4)
    refusal = own_canary_failure("userfaultfd-writes") if probe_host().has_pagemap_scan else "no PAGEMAP_SCAN"
    if refusal:
        pytest.skip(refusal)
    probe, way = open_own_probe([memory.range], wanted="userfaultfd-writes")
    assert way.writes_only
    probe.clear(probe.look())
    memory.read(3)
    memory.write(512 + 3)
    assert accessed_units(probe.look(), memory.start) == {1}
    probe.close()


def test_what_refuses_these_ranges_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(units=2)

    def refuse(ranges: Sequence[Range]) -> CensusProbe:
        raise NotSupported(f"{len(ranges)} range is in other hands")

    monkeypatch.setattr(choose, "own_canary_failure", lambda _: "")
    monkeypatch.setattr(choose, "look_at_own_facts", lambda: ALL)
    monkeypatch.setattr(choose, "WAYS", choose.WAYS | {"userfaultfd": refuse, "bpf": refuse})
    probe, way = open_own_probe([memory.range])
    assert way.name == "smaps"
    assert way.reasons[0] == "not by userfaultfd: 1 range is in other hands"
    probe.close()


@pytest.mark.parametrize(("make", "problem"), [(Half, "accesses were missed"), (All, "seen that were not")])
def test_the_canary_finds_who_sees_wrong(make: type[PartsCensusProbe], problem: str) -> None:
    assert problem in canary_problem(make)


def test_the_canary_of_a_way_that_cannot_be_made() -> None:
    def refuse(ranges: Sequence[Range]) -> CensusProbe:
        raise NotSupported(f"not {len(ranges)} range\nand a long log")

    assert canary_problem(refuse) == "not 1 range"


def test_a_reader_fails_the_canary_of_writers() -> None:
    assert "seen that were not" in canary_problem(PartsCensusProbe, writes_only=True)


def test_the_canary_passes_where_no_mapping_can_be_cut() -> None:
    assert canary_problem(lambda ranges: PartsCensusProbe(ranges, kinds=())) == ""
