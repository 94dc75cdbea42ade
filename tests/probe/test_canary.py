"""The canary: honest probes pass, and no lie does that we could think of."""

from collections.abc import Callable

import numpy as np
import pytest

from memtherm.core.ranges import Addresses, Flags
from memtherm.errors import NotSupported, ProbeNotTrusted, TargetGone
from memtherm.linux.process import open_process
from memtherm.probe import canary
from memtherm.probe.bpf import BpfProbe
from memtherm.probe.canary import check_probe
from memtherm.probe.smaps import SmapsProbe
from memtherm.probe.softdirty import SoftDirtyProbe
from memtherm.units import PAGE_SIZE
from support.requires import require


def bpf_probe(pid: int) -> BpfProbe:
    require("root", "bpf", "process_madvise")
    return BpfProbe(open_process(pid))


def smaps_probe(pid: int) -> SmapsProbe:
    return SmapsProbe(open_process(pid))


@pytest.mark.parametrize("make", [bpf_probe, smaps_probe])
def test_real_probes_pass(make: Callable[[int], BpfProbe | SmapsProbe]) -> None:
    for _ in range(5):
        check_probe(make)


def test_the_probe_of_writes_passes_where_only_writes_are_to_be_seen() -> None:
    require("soft_dirty")
    for _ in range(5):
        check_probe(lambda pid: SoftDirtyProbe(open_process(pid)), writes_only=True)
    with pytest.raises(ProbeNotTrusted, match="after pages were read"):
        check_probe(lambda pid: SoftDirtyProbe(open_process(pid)))


def test_a_probe_that_sees_reads_is_no_probe_of_writes() -> None:
    require("root", "bpf", "process_madvise")
    with pytest.raises(ProbeNotTrusted, match="after pages were read"):
        check_probe(bpf_probe, writes_only=True)


class Zeros(BpfProbe):
    """A kernel without what is read: everything idle."""

    def read(self, addresses: Addresses) -> Flags:
        return np.zeros(len(addresses), np.bool_)


class Ones(BpfProbe):
    def read(self, addresses: Addresses) -> Flags:
        return np.ones(len(addresses), np.bool_)


class NextPage(BpfProbe):
    def read(self, addresses: Addresses) -> Flags:
        return super().read(addresses + np.uint64(PAGE_SIZE))


class Stale(BpfProbe):
    """Each answer is that of the look before."""

    before: Flags | None = None

    def read(self, addresses: Addresses) -> Flags:
        now = super().read(addresses)
        answer, self.before = self.before, now
        return np.zeros(len(addresses), np.bool_) if answer is None else answer


class NeverClears(BpfProbe):
    def clear(self, addresses: Addresses) -> None:
        pass


class ClearsOnce(BpfProbe):
    has_cleared = False

    def clear(self, addresses: Addresses) -> None:
        if not self.has_cleared:
            super().clear(addresses)
        self.has_cleared = True


class WritesOnly(BpfProbe):
    """What soft-dirty bits would show."""

    def read(self, addresses: Addresses) -> Flags:
        seen = super().read(addresses)
        seen[np.arange(len(addresses)) % 29 != 5] = False
        return seen


class OneMissed(BpfProbe):
    def read(self, addresses: Addresses) -> Flags:
        seen = super().read(addresses)
        seen[np.flatnonzero(seen)[:1]] = False
        return seen


class FirstTwoMegabytes(BpfProbe):
    """A verifier that cut the walk short: right at the beginning, empty after."""

    def read(self, addresses: Addresses) -> Flags:
        seen = super().read(addresses)
        seen[len(seen) // 2 :] = False
        return seen


@pytest.mark.parametrize(
    "lie", [Zeros, Ones, NextPage, Stale, NeverClears, ClearsOnce, WritesOnly, OneMissed, FirstTwoMegabytes]
)
def test_no_lie_passes(lie: type[BpfProbe]) -> None:
    require("root", "bpf", "process_madvise")
    with pytest.raises(ProbeNotTrusted, match="failed its canary after pages were") as caught:
        check_probe(lambda pid: lie(open_process(pid)))
    assert caught.value.hint


@pytest.mark.parametrize("answer", [False, True])
def test_no_lie_about_writes_passes(answer: bool) -> None:
    require("soft_dirty")

    class Lie(SoftDirtyProbe):
        def read(self, addresses: Addresses) -> Flags:
            return np.full(len(addresses), answer)

    with pytest.raises(ProbeNotTrusted):
        check_probe(lambda pid: Lie(open_process(pid)), writes_only=True)


@pytest.mark.parametrize("answer", [False, True])
def test_no_lie_about_whole_mappings_passes(answer: bool) -> None:
    class Lie(SmapsProbe):
        def read(self, addresses: Addresses) -> Flags:
            return np.full(len(addresses), answer)

    with pytest.raises(ProbeNotTrusted):
        check_probe(lambda pid: Lie(open_process(pid)))


def test_a_probe_that_cannot_be_made_says_why() -> None:
    def refuse(pid: int) -> BpfProbe:
        raise NotSupported(f"not for {pid}")

    with pytest.raises(NotSupported, match="not for"):
        check_probe(refuse)


def test_the_child_is_gone_afterwards() -> None:
    pids: list[int] = []

    def make(pid: int) -> SmapsProbe:
        pids.append(pid)
        return smaps_probe(pid)

    check_probe(make)
    with pytest.raises(TargetGone):
        open_process(pids[0])


def test_no_child_to_try_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*, pages: int) -> None:
        raise PermissionError(13, f"no child with {pages} pages", "/usr/bin/python")

    monkeypatch.setattr(canary, "KnownChild", refuse)
    with pytest.raises(NotSupported, match="could not be started: no child"):
        check_probe(smaps_probe)
