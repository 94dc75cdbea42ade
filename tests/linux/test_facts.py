"""The facts of this host, each against a second witness; and that they only look."""

import builtins
import io
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memtherm.errors import InvalidInput
from memtherm.linux import facts as facts_module
from memtherm.linux import hidden
from memtherm.linux.facts import DamonFacts, probe_host
from support.privileges import run_as_nobody
from support.requires import require


def test_facts_agree_with_other_ways_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(hidden.VARIABLE, raising=False)
    facts = probe_host()
    assert facts.kernel_release == platform.release()
    assert facts.machine == platform.machine()
    assert facts.effective_user_id == os.geteuid()
    assert facts.cpu_count == len(os.sched_getaffinity(0))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert facts.memory_bytes == pytest.approx(pages, rel=0.05)
    assert facts.has_btf == Path("/sys/kernel/btf/vmlinux").exists()
    assert facts.has_idle_bitmap == Path("/sys/kernel/mm/page_idle").exists()
    assert facts.ptrace_scope in range(4)
    assert facts.lockdown in ("none", "integrity", "confidentiality")
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    if release >= (6, 7):
        assert facts.has_pagemap_scan
    if release >= (5, 10):
        assert facts.has_process_madvise


def test_damon_is_read_and_never_opened_for_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, Any]] = []
    real_open, real_io_open, real_os_open = builtins.open, io.open, os.open

    def watch_open(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        opened.append((str(file), mode))
        return real_open(file, mode, *rest, **more)

    def watch_os_open(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        opened.append((str(path), flags))
        return real_os_open(path, flags, *rest, **more)

    monkeypatch.setattr(builtins, "open", watch_open)
    monkeypatch.setattr(io, "open", watch_open)
    monkeypatch.setattr(os, "open", watch_os_open)
    facts = probe_host()
    monkeypatch.undo()
    assert io.open is real_io_open
    assert opened
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    for path, mode in opened:
        assert not (mode & writing if isinstance(mode, int) else set(mode) & set("wax+")), path
    damon = [path for path, _ in opened if "damon" in path]
    if facts.damon.kdamonds is not None:
        assert damon == ["/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds"]


def test_a_busy_damon_is_occupied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(hidden.VARIABLE, raising=False)
    monkeypatch.setattr(facts_module, "_DAMON", tmp_path / "absent")
    assert probe_host().damon == DamonFacts(is_present=False, kdamonds=None)
    monkeypatch.setattr(facts_module, "_DAMON", tmp_path)
    for text, is_occupied in (("0\n", False), ("1\n", True)):
        (tmp_path / "nr_kdamonds").write_text(text)
        damon = probe_host().damon
        assert damon.is_present
        assert damon.is_occupied == is_occupied


@pytest.mark.parametrize(
    ("feature", "attribute"),
    [
        ("bpf", "has_bpf"),
        ("btf", "has_btf"),
        ("libbpf", "has_libbpf"),
        ("pagemap_scan", "has_pagemap_scan"),
        ("process_madvise", "has_process_madvise"),
        ("soft_dirty", "has_soft_dirty"),
        ("idle", "has_idle_bitmap"),
    ],
)
def test_a_hidden_feature_looks_absent(feature: str, attribute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hidden.VARIABLE, feature)
    facts = probe_host()
    assert getattr(facts, attribute) is False
    assert facts.hidden == {feature}


def test_every_feature_can_be_hidden_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hidden.VARIABLE, ",".join(sorted(hidden.FEATURES)) + ",CAP_SYS_NICE")
    facts = probe_host()
    assert not any(getattr(facts, name) for name in vars(facts) if name.startswith("has_"))
    assert not facts.has_zram
    assert not facts.huge_pages.is_usable
    assert facts.memory_pressure.value is None
    assert facts.swap.devices == ()
    assert not facts.damon.is_present
    assert "CAP_SYS_NICE" not in facts.capabilities


def test_a_misspelt_feature_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hidden.VARIABLE, "ebpf")
    with pytest.raises(InvalidInput, match="unknown feature ebpf"):
        probe_host()


def test_a_rule_test_can_make_any_host() -> None:
    facts = replace(probe_host(), has_bpf=False, capabilities=frozenset())
    assert not facts.has_bpf
    assert facts.capabilities == frozenset()


def test_nobody_can_look_too() -> None:
    require("root")
    facts = run_as_nobody(probe_host)
    assert facts.effective_user_id != 0
    assert facts.capabilities == frozenset()
    assert facts.has_pagemap_scan == probe_host().has_pagemap_scan
    # The file is for root; that the tree is there is seen all the same.
    assert facts.damon.kdamonds is None
    assert not facts.damon.is_occupied


def test_it_is_quick_and_leaks_nothing() -> None:
    probe_host()
    before = len(list(Path("/proc/self/fd").iterdir()))
    timings_s = []
    for _ in range(5):
        start_s = time.perf_counter()
        probe_host()
        timings_s.append(time.perf_counter() - start_s)
    assert min(timings_s) < 0.02
    assert len(list(Path("/proc/self/fd").iterdir())) == before
