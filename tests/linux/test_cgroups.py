"""Control groups: mounts and files as text, fake trees of each version, and real ones of this host."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtherm.errors import InvalidInput, NotSupported, TargetGone
from memtherm.linux.cgroups import (
    Cgroup,
    Hierarchy,
    find_cgroup,
    parse_hierarchies,
    parse_numa_stat,
    parse_stat_file,
    read_hierarchies,
)
from support.cgroups import counts_memory, fresh_cgroup, join
from support.children import PAGE_SIZE, Child, memory_child
from support.requires import require

MIB = 1 << 20
ONLY_2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n"
    "33 31 0:30 / /sys/fs/cgroup/systemd rw shared:2 master:1 - cgroup cgroup rw,xattr,name=systemd\n"
    "34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
IN_A_CONTAINER = "35 31 0:32 /docker/ab\\040c /sys/fs/cgroup/me\\134mory ro - cgroup cgroup rw,memory\n"
NUMA_STAT_2 = (
    "anon N0=40960 N1=4096\nfile N0=8192 N1=0\ninactive_anon N0=40960 N1=4096\nactive_anon N0=0 N1=1\n"
    "inactive_file N0=8192 N1=0\nactive_file N0=2 N1=0\nunevictable N0=4 N1=0\n"
)
NUMA_STAT_1 = (
    "total=10 N0=9 N1=1\nfile=4 N0=4 N1=0\nanon=5 N0=4 N1=1\nunevictable=1 N0=1 N1=0\n"
    "hierarchical_total=31 N0=28 N1=3\nhierarchical_file=10 N0=10 N1=0\nhierarchical_anon=20 N0=17 N1=3\n"
    "hierarchical_unevictable=1 N0=1 N1=0\n"
)
MEMORY_STAT_2 = "anon 9\ninactive_anon 1000\nactive_anon 200\ninactive_file 30\nactive_file 4\n"
MEMORY_STAT_1 = MEMORY_STAT_2 + "".join(f"total_{line}\n" for line in MEMORY_STAT_2.replace(" ", " 1").splitlines())
PRESSURE = "some avg10=12.50 avg60=1.00 avg300=0.25 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"


@pytest.fixture
def child() -> Iterator[Child]:
    with memory_child() as fresh:
        yield fresh


def _fake(root: Path, version: int, *, files: dict[str, str] | None = None) -> tuple[Hierarchy, ...]:
    folder = root / "system.slice" / "x.service"
    folder.mkdir(parents=True)
    for name, text in {"cgroup.procs": "", **(files or {})}.items():
        (folder / name).write_text(text)
    return (Hierarchy(version, frozenset({"memory"} if version == 1 else ()), "/", str(root)),)


def test_mounts_of_version_2() -> None:
    assert parse_hierarchies(ONLY_2) == (Hierarchy(2, frozenset(), "/", "/sys/fs/cgroup"),)
    assert parse_hierarchies("31 23 0:28 / / rw - ext4 /dev/vda rw\n") == ()


def test_mounts_side_by_side_in_the_order_in_which_they_count() -> None:
    memory, unified, systemd, cpu = parse_hierarchies(HYBRID)
    assert (memory.version, unified.version, systemd.version, cpu.version) == (1, 2, 1, 1)
    assert memory.mount_point == "/sys/fs/cgroup/memory"
    assert cpu.controllers == {"cpu", "cpuacct"}
    lines = ["9:name=systemd:/a:b", "4:memory:/m", "2:cpu,cpuacct:/c", "0::/u"]
    assert [[one.is_in_line(line) for line in lines] for one in (memory, unified, systemd, cpu)] == [
        [False, True, False, False],
        [False, False, False, True],
        [True, False, False, False],
        [False, False, True, False],
    ]


def test_a_mount_that_shows_a_part_of_the_tree() -> None:
    (one,) = parse_hierarchies(IN_A_CONTAINER)
    assert (one.root, one.mount_point) == ("/docker/ab c", "/sys/fs/cgroup/me\\mory")
    assert one.directory("/docker/ab c") == "/sys/fs/cgroup/me\\mory"
    assert one.directory("/docker/ab c/x") == "/sys/fs/cgroup/me\\mory/x"
    assert one.directory("/docker/ab cd") == ""
    assert one.directory("/") == ""


@pytest.mark.parametrize("version", [1, 2])
def test_each_way_to_write_a_path(tmp_path: Path, version: int) -> None:
    known = _fake(tmp_path, version)
    for path in (
        "/system.slice/x.service",
        "system.slice/x.service",
        "system.slice//x.service/",
        f"{tmp_path}/system.slice/x.service",
        f"{tmp_path}/system.slice/y.service/../x.service",
        "/../system.slice/x.service",
    ):
        found = find_cgroup(path, hierarchies=known)
        assert (found.path, found.version) == ("/system.slice/x.service", version)
        assert found.exists()
        assert found.inode == (tmp_path / "system.slice" / "x.service").stat().st_ino
    for path in ("/", str(tmp_path)):
        assert find_cgroup(path, hierarchies=known).path == "/"
    assert find_cgroup("/", hierarchies=known).directory == str(tmp_path)


def test_a_path_in_a_container(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    known = (Hierarchy(1, frozenset({"memory"}), "/docker/abc", str(tmp_path)),)
    for path in ("/docker/abc/x", "/x", "x", f"{tmp_path}/x"):
        assert find_cgroup(path, hierarchies=known).path == "/docker/abc/x"


def test_the_hierarchy_that_has_the_path_and_counts_memory(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("memory", "unified", "systemd")]
    for folder in folders:
        (folder / "both").mkdir(parents=True)
    (folders[2] / "only-here").mkdir()
    known = (
        Hierarchy(1, frozenset({"memory"}), "/", str(folders[0])),
        Hierarchy(2, frozenset(), "/", str(folders[1])),
        Hierarchy(1, frozenset({"name=systemd"}), "/", str(folders[2])),
    )
    assert find_cgroup("/both", hierarchies=known).hierarchy == known[0]
    assert find_cgroup("/only-here", hierarchies=known).hierarchy == known[2]
    # The directory chooses another one.
    assert find_cgroup(f"{folders[1]}/both", hierarchies=known).version == 2


def test_no_such_cgroup(tmp_path: Path) -> None:
    known = _fake(tmp_path, 2)
    for path, parent in (
        ("/system.slice/y.service/z", "/system.slice"),
        ("/nothing/at/all", "/"),
        (f"{tmp_path}/system.slice/y.service", "/system.slice"),
    ):
        with pytest.raises(InvalidInput, match="no cgroup") as caught:
            find_cgroup(path, hierarchies=known)
        assert f"the nearest that exists is {parent}" in caught.value.hint
    with pytest.raises(InvalidInput) as caught:
        find_cgroup("/system.slice/x.servise", hierarchies=known)
    assert "x.service" in caught.value.hint
    with pytest.raises(InvalidInput) as caught:
        find_cgroup("/x", hierarchies=())
    assert caught.value.hint == "no cgroup file system is mounted"
    with pytest.raises(InvalidInput, match="empty"):
        find_cgroup("", hierarchies=known)


def test_text_of_statistics() -> None:
    assert parse_numa_stat(NUMA_STAT_1)["hierarchical_anon"] == {0: 17, 1: 3}
    assert parse_numa_stat(NUMA_STAT_2)["inactive_anon"] == {0: 40960, 1: 4096}
    assert parse_stat_file(MEMORY_STAT_2)["active_anon"] == 200


@pytest.mark.parametrize(
    ("version", "text", "all_bytes", "node_bytes"),
    [(1, NUMA_STAT_1, 30 * PAGE_SIZE, 3 * PAGE_SIZE), (2, NUMA_STAT_2, 40960 + 4096 + 1 + 8192 + 2, 4097)],
)
def test_pages_of_a_node(tmp_path: Path, version: int, text: str, all_bytes: int, node_bytes: int) -> None:
    cgroup = find_cgroup("/system.slice/x.service", hierarchies=_fake(tmp_path, version))
    (Path(cgroup.directory) / "memory.numa_stat").write_text(text)
    assert cgroup.lru_bytes() == all_bytes
    assert cgroup.lru_bytes(1) == node_bytes
    with pytest.raises(InvalidInput, match="no memory node 2") as caught:
        cgroup.lru_bytes(2)
    assert caught.value.hint == "nodes with memory: 0, 1"


@pytest.mark.parametrize(
    ("version", "text", "total"), [(1, MEMORY_STAT_1, 11000 + 1200 + 130 + 14), (2, MEMORY_STAT_2, 1234)]
)
def test_pages_on_a_kernel_without_nodes(tmp_path: Path, version: int, text: str, total: int) -> None:
    known = _fake(tmp_path, version, files={"memory.stat": text})
    cgroup = find_cgroup("/system.slice/x.service", hierarchies=known)
    assert cgroup.lru_bytes() == cgroup.lru_bytes(0) == total
    with pytest.raises(InvalidInput, match="no memory node 1"):
        cgroup.lru_bytes(1)


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_without_the_memory_controller(tmp_path: Path, version: int) -> None:
    known = _fake(tmp_path, version)
    with pytest.raises(NotSupported, match=r"has no memory\.stat") as caught:
        find_cgroup("/system.slice", hierarchies=known).lru_bytes()
    assert "memory controller" in caught.value.hint


def test_pressure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMTHERM_WITHOUT", raising=False)
    known = _fake(tmp_path / "2", 2, files={"memory.pressure": PRESSURE})
    reading = find_cgroup("/system.slice/x.service", hierarchies=known).pressure()
    assert reading.value is not None
    assert reading.value.some is not None
    assert (reading.value.some.fraction_10s, reading.value.some.total_s) == (0.125, 2.5)
    off = find_cgroup("/system.slice", hierarchies=known).pressure()
    assert off.value is None
    assert "PSI is off" in off.reason
    old = find_cgroup("/system.slice/x.service", hierarchies=_fake(tmp_path / "1", 1)).pressure()
    assert old.value is None
    assert "version 1" in old.reason


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_that_disappears(tmp_path: Path, version: int) -> None:
    cgroup = find_cgroup("/system.slice/x.service", hierarchies=_fake(tmp_path, version))
    (Path(cgroup.directory) / "cgroup.procs").unlink()
    Path(cgroup.directory).rmdir()
    assert not cgroup.exists()
    for question in (cgroup.pids, cgroup.lru_bytes, cgroup.pressure):
        with pytest.raises(TargetGone, match=r"/system\.slice/x\.service is gone"):
            question()
    with pytest.raises(TargetGone):
        _ = cgroup.inode


def test_this_process_is_in_a_cgroup_of_each_hierarchy() -> None:
    require("cgroup")
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    for hierarchy in read_hierarchies():
        (path,) = [line.split(":", 2)[2] for line in lines if hierarchy.is_in_line(line)]
        cgroup = find_cgroup(hierarchy.directory(path))
        assert (cgroup.path, cgroup.hierarchy) == (path, hierarchy)
        assert os.getpid() in cgroup.pids()
        root = find_cgroup(hierarchy.mount_point)
        assert set(cgroup.pids()) <= set(root.pids())
        assert 2 not in root.pids()  # kthreadd


def _each_hierarchy() -> list[Hierarchy]:
    """Those in which a process may join a fresh cgroup as it is: a new cpuset has no processors."""
    known = read_hierarchies()
    return [one for one in known if one.version == 2 or one.controllers & {"memory", "pids", "name=systemd"}]


def test_processes_of_a_cgroup_and_below() -> None:
    require("cgroup")
    for hierarchy in _each_hierarchy():
        with memory_child() as other, fresh_cgroup(hierarchy) as cgroup:
            assert cgroup.pids() == []
            join(cgroup, other.pid)
            assert cgroup.pids() == [other.pid]
            fork = other.fork()
            join(cgroup, fork, below="in side")
            assert cgroup.pids() == sorted([other.pid, fork])
            inside = find_cgroup(f"{cgroup.path}/in side", hierarchies=[hierarchy])
            assert inside.pids() == [fork]
            other.reap(fork)
            assert inside.pids() == []
            other.kill()  # a zombie
            assert cgroup.pids() == []
            other.end()
        assert not cgroup.exists()
        with pytest.raises(TargetGone):
            cgroup.pids()


def test_threads_in_a_threaded_cgroup(child: Child) -> None:
    require("cgroup")
    found = [one for one in read_hierarchies() if one.version == 2]
    if not found:
        pytest.skip("no cgroup file system of version 2")
    with fresh_cgroup(found[0]) as cgroup:
        below = Path(cgroup.directory) / "threaded"
        below.mkdir()
        (below / "cgroup.type").write_text("threaded")
        join(cgroup, child.pid)
        (below / "cgroup.threads").write_text(str(child.pid))
        with pytest.raises(OSError, match="not supported"):
            (below / "cgroup.procs").read_text()
        assert cgroup.pids() == [child.pid]
        assert find_cgroup(str(below)).pids() == [child.pid]
        child.end()


def test_memory_of_a_cgroup(child: Child) -> None:
    require("cgroup")
    with fresh_cgroup() as cgroup:
        join(cgroup, child.pid)
        address = child.map_aligned(32 * MIB)
        if not counts_memory(cgroup):
            pytest.skip("no memory controller")
        child.write(address, 32 * MIB // PAGE_SIZE)
        # Pages come to the LRU in batches, and the kernel sums its counts up to two seconds later.
        assert 0 <= cgroup.lru_bytes() <= _charged_bytes(cgroup) + 2 * MIB
        assert cgroup.lru_bytes() == pytest.approx(sum(cgroup.lru_bytes(node) for node in _nodes(cgroup)), abs=MIB)
        child.end()


def _charged_bytes(cgroup: Cgroup) -> int:
    name = "memory.current" if cgroup.version == 2 else "memory.usage_in_bytes"
    return int((Path(cgroup.directory) / name).read_text())


def _nodes(cgroup: Cgroup) -> list[int]:
    text = (Path(cgroup.directory) / "memory.numa_stat").read_text()
    return list(next(iter(parse_numa_stat(text).values())))


def test_real_pressure() -> None:
    require("cgroup", "psi")
    found = [one for one in read_hierarchies() if one.version == 2]
    if not found:
        pytest.skip("no cgroup file system of version 2")
    with fresh_cgroup(found[0]) as cgroup:
        reading = cgroup.pressure()
        assert reading.value is not None
        assert reading.value.full is not None
        assert reading.value.full.total_s == 0.0
