"""The ways that see single pages of own memory: the BPF walk, and soft-dirty bits."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from memtherm.core.census import PageBits, unpacked
from memtherm.linux import mapping_cuts
from memtherm.linux.facts import has_soft_dirty
from memtherm.linux.maps import Mappings, parse_maps, read_smaps
from memtherm.linux.process import open_process
from memtherm.probe.own import cuts
from memtherm.probe.own.bpf import OwnBpfCensusProbe
from memtherm.probe.own.cuts import CutKind
from memtherm.probe.own.parts import PartsCensusProbe
from memtherm.probe.own.softdirty import SoftDirtyCensusProbe
from probe.own.own_memory import Memory, accessed_units, mapping_count
from support.requires import require

PAGE = 4096


def require_soft_dirty() -> None:
    if not has_soft_dirty():
        pytest.skip("this kernel has no soft-dirty bits")


def accessed_pages(bits: PageBits, start: int) -> set[int]:
    unit, page = np.nonzero(unpacked(bits.accessed))
    return set(((bits.address[unit].astype(np.int64) - start) // PAGE + page).tolist())


def test_the_walk_sees_exactly_the_pages_of_the_ranges() -> None:
    require("root", "bpf", "process_madvise")
    memory = Memory(units=6)
    inside = [(memory.start + 5 * PAGE, memory.start + 900 * PAGE), (memory.start + 1500 * PAGE, memory.end)]
    probe = OwnBpfCensusProbe(inside)
    assert probe.ranges() == inside
    rng = np.random.default_rng(3)
    for _ in range(5):
        assert not len(probe.clear(probe.look()))
        touched = set(rng.choice(6 * 512, 300, replace=False).tolist())
        for page in touched:
            memory.read(page)
        watched = {page for page in touched if 5 <= page < 900 or page >= 1500}
        assert accessed_pages(probe.look(), memory.start) == watched
    assert not probe.clear_everything(longest_stall_s=60)
    probe.close()
    probe.close()


def test_the_walk_keeps_what_another_watch_clears() -> None:
    require("root", "bpf", "process_madvise")
    one, other = Memory(units=2), Memory(units=2)
    first, second = OwnBpfCensusProbe([one.range]), PartsCensusProbe([other.range])
    second.clear_everything(longest_stall_s=60)
    first.clear(first.look())
    one.read(700)
    second.clear(second.look())
    assert accessed_pages(first.look(), one.start) == {700}
    first.clear(first.look())
    assert accessed_pages(first.look(), one.start) == set()
    first.close()
    second.close()


def test_soft_dirty_sees_exactly_the_written_pages() -> None:
    require_soft_dirty()
    memory, other = Memory(units=3), Memory(units=3)
    probe, second = SoftDirtyCensusProbe([memory.range]), SoftDirtyCensusProbe([other.range])
    rng = np.random.default_rng(3)
    second.clear(second.look())
    for turn in range(3):
        probe.clear(probe.look())
        written = set(rng.choice(3 * 512, 100, replace=False).tolist())
        for page in range(0, 3 * 512, 7):
            memory.read(page)
        for page in written:
            memory.write(page)
        other.write(turn)
        assert accessed_pages(probe.look(), memory.start) == written
    assert accessed_pages(second.look(), other.start) == {0, 1, 2}
    probe.close()
    second.close()


class NamingKernel:
    """As one with CONFIG_ANON_VMA_NAME, of which there may be none here: names by range, alike neighbours joined."""

    def __init__(self, memory: Memory, name: str) -> None:
        self.names = dict.fromkeys(range(memory.start, memory.end, PAGE), name)

    def set_name(self, start: int, end: int, name: str) -> None:
        self.names |= dict.fromkeys(range(start, end, PAGE), name)

    def parse_maps(self, text: bytes) -> Mappings:
        mappings = parse_maps(text)
        pages = sorted(self.names)
        firsts = [page for page in pages if self.names[page] != self.names.get(page - PAGE)]
        named = mappings.select(np.zeros(len(firsts), np.int64))
        names = [f"[anon:{self.names[page]}]" for page in firsts]
        return replace(named, starts=np.array(firsts, np.uint64), names=names)


def test_names_cut_where_the_kernel_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(units=5)
    kernel = NamingKernel(memory, "of the program")
    monkeypatch.setattr(mapping_cuts, "set_name", kernel.set_name)
    monkeypatch.setattr(cuts, "parse_maps", kernel.parse_maps)
    with open_process(os.getpid()) as process:
        detailed = read_smaps(process)
        detailed.mappings.names[:] = ["[anon:of the program]"] * len(detailed)
        done = cuts.cut(detailed, [memory.range], most_parts=100)
        assert [(one.kind, len(one.parts)) for one in done] == [(CutKind.NAME, 5)]
        named = [kernel.names[memory.start + unit * 512 * PAGE] for unit in range(5)]
        assert len(set(named[::2])) == len(set(named[1::2])) == 1
        assert len({"of the program", *named}) == 3
        kernel.set_name(memory.start, memory.start + 512 * PAGE, "newer")
        cuts.undo(process, done)
    assert kernel.names.pop(memory.start) == "newer"
    assert {kernel.names[page] for page in kernel.names if page >= memory.start + 512 * PAGE} == {"of the program"}


def test_a_kernel_without_names_cuts_otherwise() -> None:
    memory = Memory(units=5)
    probe = PartsCensusProbe([memory.range])
    has_names = "[anon:memtherm part 0]" in Path("/proc/self/maps").read_text()
    expected = (CutKind.NAME,) if has_names else (CutKind.POLICY, CutKind.NO_DUMP)
    assert any(f"by {kind}" in probe.describe_changes[0] for kind in expected)
    probe.clear(probe.look())
    memory.read(3 * 512)
    assert accessed_units(probe.look(), memory.start) == {3}
    probe.close()
    assert mapping_count(memory) == 1
