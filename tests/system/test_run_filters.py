"""Filters on real memory, what a dry run and `stat` leave alone, and schemes that change while they run."""

import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memtherm import AccessPattern, Action, Bounds, Filter, FilterKind, Quota, Report, Scheme
from support.children import MADV_HUGEPAGE, READ_WRITE, Child, memory_child
from support.requires import require
from support.swap import swap_on
from support.workload import workload
from system.run_scene import (
    COLD_TEXT,
    HUGE,
    MIB,
    OPEN_TEXT,
    PAGE,
    acting,
    agent,
    applied_bytes,
    cold_scheme,
    page_entries,
    present_bytes,
    reasons,
    small_memory,
    smaps,
    status_bytes,
    swapped_bytes,
    until,
)

SIZE = 8 * MIB
# What any program of its size has besides, such as pages of libc.
OTHER = 24 * MIB

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", autouse=True)
def _swap() -> Iterator[None]:
    require("root", "bpf", "swap")
    with swap_on(512 * MIB):
        yield


@pytest.fixture
def child() -> Iterator[Child]:
    with memory_child() as one:
        yield one


def file_memory(child: Child, path: Path) -> int:
    """A mapped file on a disk, all of it in memory and clean."""
    with path.open("wb") as file:
        file.write(b"f" * SIZE)
        file.flush()
    start = child.map(SIZE, flags=1, protection=READ_WRITE, path=str(path))
    child.read(start, SIZE // PAGE)
    return start


@pytest.fixture
def files(child: Child) -> Iterator[tuple[int, int]]:
    """Two mapped files, `data-a` and `data-b`."""
    # Not where temporary files are by default: that may be in memory, and then it is no file of a disk.
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="memtherm-test-") as folder:
        yield file_memory(child, Path(folder, "data-a")), file_memory(child, Path(folder, "data-b"))


def gone(child: Child, start: int) -> bool:
    """Whether it has left, but for pages that wait to be put on the LRU."""
    return present_bytes(child.pid, start, start + SIZE) < MIB


def page_out(child: Child, *filters: Filter, what: int) -> Report:
    """Until the memory at `what` has gone, and once more."""
    with acting(cold_scheme(filters=filters), pid=child.pid) as session:
        until(session, lambda _: gone(child, what))
        return until(session, lambda report: report.schemes[0].filtered_bytes > 0)


@pytest.mark.parametrize(
    "filters",
    [
        (Filter(kind=FilterKind.FILE, allow=False),),
        (Filter(kind=FilterKind.ANONYMOUS, allow=True),),
        (Filter(kind=FilterKind.ANONYMOUS, allow=False, matching=False),),
    ],
)
def test_anonymous_memory_goes_and_files_stay(child: Child, files: tuple[int, int], filters: tuple[Filter]) -> None:
    start = small_memory(child, SIZE)
    report = page_out(child, *filters, what=start)
    for file in files:
        assert present_bytes(child.pid, file, file + SIZE) == SIZE
    assert 2 * SIZE <= report.schemes[0].filtered_bytes <= 2 * SIZE + OTHER


def test_files_of_a_pattern(child: Child, files: tuple[int, int]) -> None:
    start = small_memory(child, SIZE)
    page_out(child, Filter(kind=FilterKind.MAPPING, allow=True, pattern="*/data-a*"), what=files[0])
    assert present_bytes(child.pid, files[1], files[1] + SIZE) == SIZE
    assert present_bytes(child.pid, start, start + SIZE) == SIZE


RANGE_TEXT = 'filters = [{{ allow = "address", range = "{:#x}-{:#x}" }}]\n'


def test_a_range_of_addresses_to_the_page(child: Child, tmp_path: Path) -> None:
    start = small_memory(child, SIZE)
    low, high = start + MIB + 3 * PAGE, start + 5 * MIB + 7 * PAGE
    policy = tmp_path / "policy.toml"
    policy.write_text(OPEN_TEXT + COLD_TEXT + RANGE_TEXT.format(low, high))
    with agent("run", str(policy), "--pid", str(child.pid), "--apply", "--json") as running:
        running.until(lambda report: applied_bytes(report) >= high - low - 32 * PAGE)
        tried = running.until(lambda report: report["schemes"][0]["tried_bytes"] > 0)["schemes"][0]["tried_bytes"]
    assert tried == high - low
    assert status_bytes(child.pid, "VmSwap") == swapped_bytes(child.pid, low, high)
    present = page_entries(child.pid, start, start + SIZE) >> np.uint64(63) == 1
    first, last = (low - start) // PAGE, (high - start) // PAGE
    assert not present[first:last].any()
    assert present[:first].all()
    assert present[last:].all()


def test_young_pages_of_memory_of_any_heat_stay(child: Child) -> None:
    start = small_memory(child, 2 * SIZE)
    child.keep_touching([(start, SIZE // PAGE, 1)], pause_s=0.001)
    pattern = AccessPattern(access_rate=Bounds(0, 1))
    scheme = cold_scheme(pattern=pattern, filters=(Filter(kind=FilterKind.YOUNG, allow=False),))
    with acting(scheme, pid=child.pid) as session:
        until(session, lambda _: gone(child, start + SIZE))
        until(session, lambda report: report.schemes[0].filtered_bytes >= SIZE // 2)
        # A page is young from its first touch after a look on, and no later look is without one.
        assert swapped_bytes(child.pid, start, start + SIZE) <= MIB
    child.stop_touching()


def test_by_the_size_of_the_page(child: Child) -> None:
    require("thp")
    huge = child.map_aligned(SIZE)
    child.madvise(huge, SIZE, MADV_HUGEPAGE)
    child.write(huge, SIZE // PAGE)
    small = small_memory(child, SIZE)
    filters = (Filter(kind=FilterKind.HUGE_PAGE, allow=True, size_bytes=Bounds(HUGE)),)
    counting = Scheme(name="huge", action=Action.STAT, filters=filters)
    with acting(counting, cold_scheme(filters=filters), pid=child.pid) as session:
        report = until(session, lambda report: report.schemes[0].tried_bytes > 0)
        until(session, lambda _: gone(child, huge))
    assert report.schemes[0].tried_bytes == SIZE
    assert present_bytes(child.pid, small, small + SIZE) == SIZE


def test_counting_and_a_dry_run_change_nothing(tmp_path: Path) -> None:
    """A dry run of everything: all fields of smaps are as before, but those that looking itself resets."""
    require("cc")
    # How many others have a page of libc changes without us.
    parts = ("Clean", "Dirty")
    looking = (
        "Referenced",
        "Pss",
        "Pss_Dirty",
        *(f"{kind}_{part}" for kind in ("Shared", "Private") for part in parts),
    )
    text = OPEN_TEXT + "allow_ptrace = true\n" + COLD_TEXT + 'quota = { bytes = "16MiB", every = "250ms" }\n'
    for action in ("cold", "collapse", "hugepage", "nohugepage", "willneed"):
        text += f'[[scheme]]\nname = "all {action}"\naction = "{action}"\naccess_rate = "<= 100%"\n'
    (tmp_path / "dry.toml").write_text(text)
    (tmp_path / "stat.toml").write_text(OPEN_TEXT + '[[scheme]]\nname = "count"\naction = "stat"\n')
    with workload(size_bytes=72 * MIB, hot=[(0, 8 * MIB)], pages="default") as child:
        before = smaps(child.pid, without=looking)
        with agent("run", str(tmp_path / "dry.toml"), "--pid", str(child.pid), "--json") as dry:
            last = dry.until(lambda report: report["schemes"][0]["total"]["tried_bytes"] >= 40 * MIB)
        assert smaps(child.pid, without=looking) == before
        words = ("run", str(tmp_path / "stat.toml"), "--pid", str(child.pid), "--json", "--apply")
        with agent(*words) as counting:
            counted = counting.until(lambda report: report["schemes"][0]["total"]["nr_snapshots"] >= 3)
        assert smaps(child.pid, without=looking) == before
    assert "dry run: nothing is changed without --apply" in dry.stderr
    # The quota ran as it would have.
    quotas = [report["schemes"][0]["quota"] for report in dry.reports()]
    assert max(quota["charged_bytes"] for quota in quotas) == 16 * MIB
    assert last["schemes"][0]["total"]["nr_quota_exceeded"] >= 2
    assert all(applied_bytes(last, number) == 0 for number in range(6))
    assert set(reasons(last)) <= {"dry run"}
    assert counted["schemes"][0]["tried_bytes"] > 72 * MIB
    assert applied_bytes(counted) == 0


def test_schemes_of_the_file_are_replaced_by_sighup(child: Child, tmp_path: Path) -> None:
    start = small_memory(child, 4 * SIZE)
    policy = tmp_path / "policy.toml"
    limited = OPEN_TEXT + COLD_TEXT + 'quota = { bytes = "4MiB", every = "1h" }\n'
    # Pages of the interpreter that other processes map as well are tried in vain, and charged all the same.
    limited += 'filters = [{ allow = "anonymous" }]\n'
    policy.write_text(limited)
    with agent("run", str(policy), "--pid", str(child.pid), "--apply", "--json") as running:
        running.until(lambda report: applied_bytes(report) >= 3 * MIB)
        # The same name: what was charged stays charged, and so do the statistics.
        policy.write_text(limited.replace("4MiB", "16MiB"))
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda report: applied_bytes(report) >= 3 * MIB and '"cold"' in running.stderr)
        time.sleep(0.6)
        assert swapped_bytes(child.pid, start, start + 4 * SIZE) <= 4 * MIB
        # Another name: a scheme that begins anew.
        policy.write_text(limited.replace("4MiB", "16MiB").replace('"cold"', '"other"'))
        running.process.send_signal(signal.SIGHUP)
        report = running.until(
            lambda report: report["schemes"][0]["name"] == "other" and applied_bytes(report) >= 15 * MIB
        )
        assert report["schemes"][0]["total"]["nr_snapshots"] < 20
        # What is wrong changes nothing.
        policy.write_text("version = 1\n[[scheme]]\naction = 'pageut'\n")
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda _: "the old schemes go on" in running.stderr)
        assert running.until(lambda _: True)["schemes"][0]["name"] == "other"
        assert running.end(signal.SIGTERM) == 143
    assert swapped_bytes(child.pid, start, start + 4 * SIZE) <= 21 * MIB


def test_schemes_are_replaced_by_a_program(child: Child) -> None:
    start = small_memory(child, SIZE)
    counting = Scheme(name="cold", action=Action.STAT)
    with acting(counting, pid=child.pid) as session:
        before = until(session, lambda report: report.schemes[0].total.nr_snapshots >= 2)
        assert swapped_bytes(child.pid, start, start + SIZE) == 0
        session.replace_schemes([cold_scheme()])
        after = until(session, lambda _: gone(child, start))
        assert after.schemes[0].action is Action.PAGEOUT
        # By its name it is the same one.
        assert after.schemes[0].total.nr_snapshots > before.schemes[0].total.nr_snapshots
        with pytest.raises(Exception, match="upper bound of the access rate"):
            session.replace_schemes([Scheme(name="all", action=Action.PAGEOUT)])
        session.replace_schemes([cold_scheme(quota=Quota(size_bytes=MIB))])
        assert until(session, lambda report: report.schemes[0].quota is not None).schemes[0].name == "cold"
