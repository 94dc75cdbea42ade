"""A run as rich as real ones are: several programs, phases, mappings, schemes, events, doubts; made up."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import MappingTable, TargetVitals, Vitals
from memtherm.core.plan import Refusal
from memtherm.core.report import QuotaReport, Report, SchemeReport
from memtherm.core.scheme import Action, SchemeStatistics
from memtherm.core.snapshot import Conditions, Regions, Snapshot, TargetInfo
from support.history import ListHistory

MIB = 2**20
BEGIN_S = 1_750_000_000.0
WINDOW_S = 0.5
TARGETS = (
    TargetInfo(4242, "redis-server", 1000.0, ("redis",)),
    TargetInfo(977, "postgres", 900.5, ("database",)),
    TargetInfo(31337, "python3", 2000.0),
)
HEAP = 0x5581_2C40_0000
ARENA = 0x7F21_0000_0000
LIBRARY = 0x7F21_9A00_0000
STACK = 0x7FFC_11E0_0000
BUFFER = 0x7E10_0000_0000
# target, start, MiB, path
MAPPINGS = (
    (0, HEAP, 96, "[heap]"),
    (0, ARENA, 256, ""),
    (0, LIBRARY, 2, "/usr/lib/x86_64-linux-gnu/libc.so.6"),
    (0, LIBRARY + 2 * MIB, 1, "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"),
    (0, STACK, 1, "[stack]"),
    (1, 0x5640_0000_0000, 12, "/usr/lib/postgresql/16/bin/postgres"),
    (1, 0x5641_3A00_0000, 8, "[heap]"),
    (1, BUFFER, 512, "/dev/shm/PostgreSQL.1804289383"),
    (1, BUFFER + 520 * MIB, 64, "/var/lib/postgresql/16/main/base/16384/buffer.dat"),
    (1, STACK, 1, "[stack]"),
    (2, 0x0000_0040_0000, 4, "/usr/bin/python3.11"),
    (2, 0x0000_0200_0000, 40, "[heap]"),
    (2, 0x7F00_0000_0000, 30, "/srv/models/weights </script><img src=x onerror=alert(1)>\u2028.bin"),
)
HOT_START, HOT_BYTES, HOT_RATE = HEAP + 16 * MIB, 16 * MIB, 1.0
DOUBT = "14 % of the looks came late: this host is too busy for looks every 100 ms"


def rich_run(*, windows: int = 240, regions_per_mapping: int = 24, seed: int = 7) -> ListHistory:
    """Targets that come and go, a set that is always hot (HOT_START), others that drift, wake and fall asleep."""
    random = np.random.default_rng(seed)
    ages: dict[tuple[int, int], NDArray[np.float64]] = {}
    reports = [_report(index, windows, regions_per_mapping, random, ages) for index in range(windows)]
    return ListHistory(
        all_reports=reports,
        all_mappings=[_mapping_table(target) for target in range(len(TARGETS))],
        all_vitals=[_vitals(index, windows) for index in range(0, windows, 2)],
        of_targets=TARGETS,
        snapshots_at_once=16,
    )


def _mapping_table(target: int) -> MappingTable:
    own = sorted((start, size * MIB, path) for which, start, size, path in MAPPINGS if which == target)
    start = np.array([one[0] for one in own], np.uint64)
    size = np.array([one[1] for one in own], np.uint64)
    permissions = tuple("r-xp" if "lib" in path or "bin" in path else "rw-p" for _, _, path in own)
    paths = tuple(path for _, _, path in own)
    return MappingTable(BEGIN_S, target, start, start + size, np.zeros(len(own), np.uint64), permissions, paths)


def _is_there(target: int, index: int, windows: int) -> bool:
    return target != 2 or windows // 4 <= index < windows * 7 // 8


def _rates(mapping: int, middle: NDArray[np.float64], phase: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Access rates at these places (0..1 along the mapping) in this phase (0..1 along the run)."""
    _, start, _, path = MAPPINGS[mapping]
    noise = random.random(len(middle))
    if start == HEAP:
        return np.where((middle >= 1 / 6) & (middle < 1 / 3), HOT_RATE, np.where(noise < 0.04, 0.05, 0.0))
    if path in ("[stack]",) or "libc" in path:
        return np.where(noise < 0.7, 0.6, 0.4)
    if start == ARENA:  # a hot set that walks
        distance = np.abs(middle - (0.15 + 0.7 * phase))
        walking: NDArray[np.float64] = np.round(np.clip(1 - distance * 9, 0, 1) * (0.85 + 0.15 * noise), 2)
        return walking
    if start == BUFFER:  # waves, and a rest between them
        is_awake = (phase * 4) % 1 < 0.6
        return np.round(np.where(middle < 0.4, 0.35 + 0.2 * np.sin(12 * middle + 9 * phase), 0.02) * is_awake, 2)
    return np.where(noise < 0.08, 0.2, 0.0)


def _report(
    index: int,
    windows: int,
    count: int,
    random: np.random.Generator,
    ages: dict[tuple[int, int], NDArray[np.float64]],
) -> Report:
    parts: list[Regions] = []
    for number, (target, start, size, _) in sorted(enumerate(MAPPINGS), key=lambda one: one[1][:2]):
        if not _is_there(target, index, windows):
            continue
        # A region for each MiB, or `count`: borders that stay, so that ages can be counted.
        pieces = min(size, count)
        border = np.uint64(start) + np.linspace(0, size * 256, pieces + 1).astype(np.uint64) * np.uint64(4096)
        middle = (np.arange(pieces) + 0.5) / pieces
        rate = np.clip(_rates(number, middle, index / windows, random), 0, 1)
        if start == HEAP:
            rate = np.where((border[:-1] >= HOT_START) & (border[1:] <= HOT_START + HOT_BYTES), HOT_RATE, rate)
        before = ages.get((number, 1), np.zeros(pieces))
        is_same = np.abs(rate - ages.get((number, 0), np.full(pieces, -1.0))) < 0.11
        age = np.where(is_same, before + WINDOW_S, 0.0)
        ages[number, 0], ages[number, 1] = rate, age
        hits = np.rint(rate * 5).astype(np.int64)
        column = np.full(pieces, target, np.int32)
        parts.append(Regions(column, border[:-1], border[1:], hits, rate, age, np.zeros(pieces)))
    regions = Regions(*(np.concatenate([getattr(part, name) for part in parts]) for name in Regions.__annotations__))
    snapshot = Snapshot(BEGIN_S + (index + 1) * WINDOW_S, TARGETS, regions, _conditions(index, windows))
    return Report(snapshot, _schemes(index), _events(index, windows))


def _conditions(index: int, windows: int) -> Conditions:
    is_busy = windows // 2 <= index < windows // 2 + windows // 10
    return Conditions(
        method="census",
        why="all pages can be looked at within the CPU share",
        probe="bpf",
        clearing="cold",
        grain="page",
        sampling_interval_s=0.1,
        aggregation_interval_s=0.5,
        samples=5,
        late_samples=1 if is_busy else 0,
        window_s=WINDOW_S,
        agent_cpu_s=0.004,
        unclear_share=0.01,
        doubts=(DOUBT,) if is_busy else (),
    )


def _events(index: int, windows: int) -> tuple[str, ...]:
    told = {
        1: "watching redis-server (4242) and postgres (977)",
        windows // 4: "python3 (31337) started, and is watched",
        windows // 2: "looks are 200 ms apart now: the CPU share does not allow more",
        windows * 3 // 4: 'guard: "page out what is cold" rests for 10 s: 512 pages came back within a second',
        windows * 7 // 8: "python3 (31337) has exited",
    }
    return (told[index],) if index in told else ()


def _schemes(index: int) -> tuple[SchemeReport, ...]:
    wave = max(0.0, float(np.sin(index / 12)))
    tried = int(24 * MIB * wave)
    refused = int(tried * 0.3)
    page_out = SchemeReport(
        name="page out what is cold",
        action=Action.PAGEOUT,
        matched_bytes=int(300 * MIB + 60 * MIB * np.cos(index / 20)),
        tried_bytes=tried,
        applied_bytes=tried - refused,
        refused=(Refusal("mapped by several processes", refused // 2), Refusal("locked in memory", refused // 2)),
        total=SchemeStatistics(tried_bytes=(index + 1) * 8 * MIB, applied_bytes=(index + 1) * 5 * MIB),
        filtered_bytes=2 * MIB,
        is_active=wave > 0,
        state="" if wave > 0 else "watermarks: free memory is above 50 %",
        quota=QuotaReport(32 * MIB, tried, 0.8),
        free_memory=0.3,
    )
    huge = replace(
        page_out,
        name="huge pages for what is hot",
        action=Action.HUGEPAGE,
        matched_bytes=16 * MIB,
        tried_bytes=16 * MIB if index == 10 else 0,
        applied_bytes=14 * MIB if index == 10 else 0,
        refused=(Refusal("no free huge page", 2 * MIB),) if index == 10 else (),
        is_active=True,
        state="",
        total=SchemeStatistics(tried_bytes=16 * MIB, applied_bytes=14 * MIB),
        filtered_bytes=0,
        quota=None,
        free_memory=None,
    )
    return (page_out, huge)


def _vitals(index: int, windows: int) -> Vitals:
    resident = (340 * MIB, 600 * MIB, 70 * MIB)
    paged_out = index * MIB // 4
    targets = tuple(
        TargetVitals(
            target=target,
            resident_bytes=resident[target] - (paged_out if target == 0 else 0),
            swap_bytes=paged_out if target == 0 else 0,
            cpu_s=index * 0.2,
        )
        for target in range(len(TARGETS))
        if _is_there(target, index, windows)
    )
    return Vitals(
        time_s=BEGIN_S + (index + 1) * WINDOW_S,
        targets=targets,
        agent_cpu_s=index * 0.004,
        agent_resident_bytes=48 * MIB,
        free_memory_bytes=4096 * MIB,
        pressure_some_s=index * 0.001,
        pressure_full_s=index * 0.0005,
    )
