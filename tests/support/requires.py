"""`require("root", "swap")`: skip a test, with the reason, where this host lacks a feature.

MEMTHERM_REQUIRE=root,bpf (or `all`) turns the skip into a failure, so that CI cannot pass by skipping.
MEMTHERM_WITHOUT=bpf,swap hides a feature from the product, and so from its tests too.
MEMTHERM_MAY_WRITE_DAMON=1 allows tests to use the kernel's DAMON, where nobody else does: in a guest of our own.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from memtherm.linux.cgroups import read_hierarchies
from memtherm.linux.facts import HostFacts, probe_host
from memtherm.linux.nodes import read_nodes
from support.damo import damo_path


def _lacks_swap(facts: HostFacts) -> str:
    if "swap" in facts.hidden:
        return "hidden by MEMTHERM_WITHOUT"
    missing = [tool for tool in ("mkswap", "swapon", "swapoff") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    return "" if facts.effective_user_id == 0 else "only root may add swap"


def _lacks_bpf(facts: HostFacts) -> str:
    missing = [name for name in ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE") if name not in facts.capabilities]
    lacks = {
        "no BPF in this kernel": not facts.has_bpf,
        "no BTF": not facts.has_btf,
        "libbpf.so.1 not found": not facts.has_libbpf,
        f"{', '.join(missing)} missing": bool(missing),
    }
    return "; ".join(text for text, is_lacking in lacks.items() if is_lacking)


def _lacks_ptrace(facts: HostFacts) -> str:
    if os.uname().machine != "x86_64":
        return f"only on x86_64, not on {os.uname().machine}"
    if "CAP_SYS_PTRACE" not in facts.capabilities:
        return "CAP_SYS_PTRACE missing"
    yama = Path("/proc/sys/kernel/yama/ptrace_scope")
    return "ptrace_scope is 3: nobody may" if yama.exists() and yama.read_text().strip() == "3" else ""


def _lacks_cgroup(_facts: HostFacts) -> str:
    hierarchies = read_hierarchies()
    if not hierarchies:
        return "no cgroup file system is mounted"
    # A file system that is mounted for reading only refuses root as well.
    is_writable = os.access(hierarchies[0].mount_point, os.W_OK)
    return "" if is_writable else f"{hierarchies[0].mount_point} may not be written"


def _lacks_damo() -> str:
    """damo asks the command `file` what a record is, and `which` for that."""
    if not damo_path().exists():
        return "damo is not installed beside this Python"
    missing = [tool for tool in ("file", "which") if shutil.which(tool) is None]
    return f"{', '.join(missing)} not installed" if missing else ""


def _lacks_kdamond(facts: HostFacts) -> str:
    """A tree in use is nobody's to test with, and a free one only where that was said."""
    if not facts.damon.is_present:
        return "no DAMON sysfs tree"
    if facts.damon.kdamonds != 0:
        return "the DAMON tree is in use, or not for us"
    return _yes(os.environ.get("MEMTHERM_MAY_WRITE_DAMON") == "1", "MEMTHERM_MAY_WRITE_DAMON is not 1")


def _lacks_chromium(_facts: HostFacts) -> str:
    if importlib.util.find_spec("playwright") is None:
        return "playwright not installed"
    return _yes(shutil.which("chromium") is not None, "chromium not installed")


def _yes(is_there: bool, what: str) -> str:
    return "" if is_there else what


# Each answers why the feature is not there, or nothing.
_REASONS: dict[str, Callable[[HostFacts], str]] = {
    "root": lambda facts: _yes(facts.effective_user_id == 0, "not root"),
    "bpf": _lacks_bpf,
    "btf": lambda facts: _yes(facts.has_btf, "no /sys/kernel/btf/vmlinux"),
    "libbpf": lambda facts: _yes(facts.has_libbpf, "libbpf.so.1 not found"),
    "cc": lambda _: _yes(shutil.which("cc") is not None, "cc not installed"),
    "clang": lambda _: _yes(shutil.which("clang") is not None, "clang not installed"),
    "chromium": _lacks_chromium,
    "swap": _lacks_swap,
    "pagemap_scan": lambda facts: _yes(facts.has_pagemap_scan, "no PAGEMAP_SCAN (new in 6.7)"),
    "process_madvise": lambda facts: _yes(facts.has_process_madvise, "no process_madvise"),
    "idle": lambda facts: _yes(facts.has_idle_bitmap, "no idle page tracking"),
    "soft_dirty": lambda facts: _yes(facts.has_soft_dirty, "no soft-dirty tracking"),
    "thp": lambda facts: _yes(facts.huge_pages.is_usable, f"huge pages: {facts.huge_pages.mode}"),
    "psi": lambda facts: _yes(facts.memory_pressure.value is not None, facts.memory_pressure.reason),
    "ptrace": _lacks_ptrace,
    "cgroup": _lacks_cgroup,
    "numa": lambda _: _yes(sum(node.total_bytes > 0 for node in read_nodes()) > 1, "one memory node"),
    "strace": lambda _: _yes(shutil.which("strace") is not None, "strace not installed"),
    "tracefs": lambda _: _yes("\ttracefs\n" in Path("/proc/filesystems").read_text(), "no tracefs in this kernel"),
    "damo": lambda _: _lacks_damo(),
    "occupied": lambda facts: _yes(facts.damon.is_occupied, "nobody else has the DAMON tree"),
    "damon": lambda facts: _yes(facts.damon.is_present, "no DAMON sysfs tree"),
    "kdamond": _lacks_kdamond,
}


def lacking(*features: str) -> list[str]:
    """Why this host cannot run a test that needs `features`: one text for each that is missing."""
    facts = probe_host()
    reasons = ((feature, _REASONS[feature](facts)) for feature in features)
    return [f"{feature}: {reason}" for feature, reason in reasons if reason]


def require(*features: str) -> None:
    """Skip this test unless the host has all `features`; fail instead where MEMTHERM_REQUIRE names one that lacks."""
    must_have = set(filter(None, os.environ.get("MEMTHERM_REQUIRE", "").split(",")))
    for reason in lacking(*features):
        if must_have & {"all", reason.partition(":")[0]}:
            pytest.fail(f"required by MEMTHERM_REQUIRE, but {reason}", pytrace=False)
        pytest.skip(reason)
