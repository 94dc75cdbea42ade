"""damo's record files as they are read: every form of a value, what is missing, and what is damaged."""

import json
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memtherm.core.selection import Selection
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import InvalidInput
from memtherm.record.damo_json import read_damo_json
from memtherm.record.json_stream import JsonStream
from memtherm.record.write_damo_json import write_damo_json
from record.damo_scene import all_rows, assert_same, run, written

MIB = 1 << 20
S = 1_000_000_000
INTERVALS = {"sample_us": "5000", "aggr_us": "100000", "ops_update_us": "1000000"}
TUNED = INTERVALS | {
    "intervals_goal": {"access_bp": "400.000000", "aggrs": "3", "min_sample_us": "5000", "max_sample_us": "10000000"}
}


def region(start: object, end: object, samples: object = 0, age: object = None, **more: Any) -> dict[str, Any]:
    accesses = {"samples": samples, "percent": None}
    return {"start": start, "end": end, "nr_accesses": accesses, "age": {"usec": None, "aggr_intervals": age}} | more


def snapshot(end_ns: object, *regions: dict[str, Any], length_ns: int = S // 10, **more: Any) -> dict[str, Any]:
    start_ns = int(str(end_ns).replace(",", "")) - length_ns
    return {"start_time": str(start_ns), "end_time": end_ns, "regions": list(regions)} | more


def record(*snapshots: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"intervals": INTERVALS, "target_id": 0, "snapshots": list(snapshots)} | more


def saved(path: Path, *records: Any) -> Path:
    path.write_bytes(zlib.compress(json.dumps(records, indent=4).encode()))
    return path


def refusal(path: Path) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read_damo_json(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_all_forms_of_numbers_mean_the_same(tmp_path: Path) -> None:
    plain = record(snapshot(10 * S, region(4096, 2 * MIB, 5, 3)))
    texts = record(snapshot(str(10 * S), region("4096", "2097152", "5", "3")))
    grouped = record(snapshot(f"{10 * S:,}", region("4,096", "2,097,152", "5", "3"), length_ns=0))
    grouped["snapshots"][0]["start_time"] = "9 s 900 ms"
    words = record(
        snapshot(10 * S, region(4096, 2 * MIB, 5, None)), intervals={"sample_us": "5 ms", "aggr_us": "100 ms"}
    )
    words["snapshots"][0]["regions"][0]["age"] = {"usec": "300 ms", "aggr_intervals": None}
    expected = all_rows(read_damo_json(saved(tmp_path / "plain", plain)))
    assert expected.regions.age_s.tolist() == [pytest.approx(0.3)]
    assert expected.regions.access_rate.tolist() == [0.25]
    assert expected.time_s.tolist() == [10.0]
    for other in (texts, grouped, words):
        assert_same(all_rows(read_damo_json(saved(tmp_path / "other", other))), expected, time_s=1e-12)


def test_plain_json_and_keys_in_any_order(tmp_path: Path) -> None:
    one = record(snapshot(10 * S, region(4096, 8192, 20)))
    other = dict(reversed(one.items()))
    (tmp_path / "a.json").write_text(json.dumps([one]))
    (tmp_path / "b.json").write_text(json.dumps([other], indent=4))
    assert_same(all_rows(read_damo_json(tmp_path / "a.json")), all_rows(read_damo_json(tmp_path / "b.json")))


def test_percentages_alone_give_samples(tmp_path: Path) -> None:
    one = region(4096, 8192)
    one["nr_accesses"] = {"samples": None, "percent": "40 %"}
    rows = all_rows(read_damo_json(saved(tmp_path / "f", record(snapshot(10 * S, one)))))
    assert rows.regions.nr_accesses.tolist() == [8]
    assert rows.regions.access_rate.tolist() == [0.4]


def test_percentages_that_damo_cut_are_not_taken(tmp_path: Path) -> None:
    """damo fills in whole percents, the rest cut off: 7 of 200 samples are 3 %, and 1 is 0 %."""
    regions = [region(4096, 8192, 7), region(8192, 12288, 1)]
    for one, percent in zip(regions, (3, 0), strict=True):
        one["nr_accesses"]["percent"] = percent
    intervals = INTERVALS | {"sample_us": "500"}
    rows = all_rows(read_damo_json(saved(tmp_path / "f", record(snapshot(10 * S, *regions), intervals=intervals))))
    assert rows.regions.access_rate.tolist() == [0.035, 0.005]


def test_without_intervals_looks_are_guessed_and_that_is_a_doubt(tmp_path: Path) -> None:
    windows = [snapshot(10 * S + i * S // 10, region(4096, 8192, 20 + i, 2)) for i in range(2)]
    history = read_damo_json(saved(tmp_path / "f", record(*windows, intervals=None)))
    rows = all_rows(history)
    assert rows.samples.tolist() == [21, 21]
    assert rows.regions.access_rate.tolist() == [pytest.approx(20 / 21), 1.0]
    assert rows.regions.age_s.tolist() == [pytest.approx(0.2)] * 2  # windows of the median length
    assert history.doubts == (
        "it does not say how many looks a window has: access rates are of 21, the most accesses in it",
    )
    assert [report.snapshot.conditions.doubts for report in history.reports()] == [history.doubts] * 2
    assert history.notes == (*history.doubts, "its times count from the start of the machine, not from 1970")


def test_regions_without_an_age_count_as_new(tmp_path: Path) -> None:
    history = read_damo_json(saved(tmp_path / "f", record(snapshot(10 * S, region(4096, 8192, 20)))))
    assert all_rows(history).regions.age_s.tolist() == [0.0]
    assert history.doubts == ("some or all of its regions have no age: they count as new",)


@pytest.mark.parametrize("value", ["20000000", "20000", "20 ms", 20_000_000])
def test_the_sampling_interval_of_a_snapshot_in_nanoseconds_as_damo_writes_or_microseconds_as_it_reads(
    tmp_path: Path, value: object
) -> None:
    one = snapshot(10 * S, region(4096, 8192, 10, 5), length_ns=410_000_000, sample_interval_us=value)
    rows = all_rows(read_damo_json(saved(tmp_path / "f", record(one, intervals=TUNED))))
    assert rows.sampling_interval_s.tolist() == [pytest.approx(0.02)]
    assert rows.samples.tolist() == [20]
    assert rows.regions.age_s.tolist() == [pytest.approx(5 * 0.4)]


@pytest.mark.parametrize(("length_ns", "aggregation_s"), [(400_000_000, 0.4), (105_000_000, 0.1)])
def test_tuned_windows_say_their_intervals_by_their_length_unless_they_are_late_only(
    tmp_path: Path, length_ns: int, aggregation_s: float
) -> None:
    one = snapshot(10 * S, region(4096, 8192, 10, 5), length_ns=length_ns)
    rows = all_rows(read_damo_json(saved(tmp_path / "f", record(one, intervals=TUNED))))
    assert rows.sampling_interval_s.tolist() == [pytest.approx(aggregation_s / 20)]
    assert rows.window_s.tolist() == [length_ns / S]


def test_elements_become_targets_of_common_windows(tmp_path: Path) -> None:
    pointer = 18446623438842320000
    first = record(*[snapshot(10 * S + i * S // 10, region(4096, 8192, i)) for i in range(3)], target_id=pointer)
    second = record(*[snapshot(10 * S + i * S // 10 + 7000, region(4096, 8192, 9)) for i in range(2)], target_id=None)
    history = read_damo_json(saved(tmp_path / "f", first, second))
    assert [target.name for target in history.targets] == [f"target {pointer}", "all targets"]
    rows = all_rows(history)
    assert rows.regions.target.tolist() == [0, 1, 0, 1, 0]
    assert rows.regions.nr_accesses.tolist() == [0, 9, 1, 9, 2]
    assert np.diff(rows.first_row).tolist() == [2, 2, 1]
    assert rows.time_s.tolist() == pytest.approx([10.000007, 10.100007, 10.2])
    only_second = all_rows_of(history.rows(Selection(targets=frozenset({1}))))
    assert only_second == [9, 9]


def all_rows_of(pieces: Iterator[Any]) -> list[int]:
    return [count for rows in pieces for count in rows.regions.nr_accesses.tolist()]


def test_elements_of_one_target_go_on_and_schemes_are_told_apart(tmp_path: Path) -> None:
    parts = [record(snapshot((10 + i) * S, region(4096, 8192, i)), kdamond_idx=0, scheme_idx=1) for i in range(2)]
    other = record(snapshot(10 * S, region(4096, 8192, 7)), kdamond_idx=1, scheme_idx=None)
    history = read_damo_json(saved(tmp_path / "f", *parts, other))
    assert [target.name for target in history.targets] == ["kdamond 0 scheme 1 target 0", "kdamond 1 target 0"]
    assert [target.pid for target in history.targets] == [0, 0]
    assert all_rows(history).regions.nr_accesses.tolist() == [0, 7, 1]


def test_pids_come_from_the_file_beside_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "damon.data", record(snapshot(10 * S, region(4096, 8192)), target_id=1))
    targets: list[dict[str, Any]] = [{"pid": pid, "obsolete": False, "regions": []} for pid in (71, 72)]
    (tmp_path / "damon.data.kdamonds").write_text(json.dumps([{"contexts": [{"targets": targets}]}]))
    assert read_damo_json(path).targets == (TargetInfo(72, "target 1"),)
    (tmp_path / "damon.data.kdamonds").write_text("[{")
    assert read_damo_json(path).targets == (TargetInfo(0, "target 1"),)


def test_intervals_come_from_the_file_beside_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "damon.data", record(snapshot(10 * S, region(4096, 8192, 5, 3)), intervals=None))
    settings_beside = [{"contexts": [{"targets": [], "intervals": {"sample_us": "10 ms", "aggr_us": "100 ms"}}]}]
    (tmp_path / "damon.data.kdamonds").write_text(json.dumps(settings_beside))
    history = read_damo_json(path)
    rows = all_rows(history)
    assert (rows.samples.tolist(), rows.regions.access_rate.tolist()) == ([10], [0.5])
    assert history.doubts == ()


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    one = region(4096, 8192, 1, 1, sz_filter_passed="31.340 MiB", probe_hits=[3])
    stats = {"nr_tried": "0"}
    history = read_damo_json(
        saved(tmp_path / "f", record(snapshot(2 * 10**9 * S, one, damos_stats=stats), scheme_filters=[{"a": 1}]))
    )
    assert history.notes == (
        "left out: what probes found (probe_hits), how much passed filters (sz_filter_passed), "
        "statistics of schemes (damos_stats), filters of the scheme (scheme_filters)",
    )


def test_regions_out_of_order_are_sorted_and_overlaps_are_a_doubt(tmp_path: Path) -> None:
    one = snapshot(10 * S, region(8192, 16384, 1, 1), region(4096, 12288, 2, 1))
    history = read_damo_json(saved(tmp_path / "f", record(one)))
    assert all_rows(history).regions.start.tolist() == [4096, 8192]
    assert history.doubts == ("some of its regions overlap: the same memory counts more than once",)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "no record of damo: that is a list"),
        (b"hello", "no record of damo: that is a list"),
        (b"[]", "no snapshot in it"),
        (b"[5]", "record 1 is no object"),
        (b'{"kdamonds": []}', "no record of damo: that is a list"),
        (b'[{"target_id": 0, "snapshots": []}]', "no snapshot in it"),
        (b'[{"snapshots": []}]', "record 1: target_id is missing"),
        (b'[{"target_id": "x", "snapshots": []}]', "record 1: 'x' is not a number"),
        (b'[{"target_id": 0, "snapshots": [{}]}]', "record 1: snapshot 1: regions is missing"),
        (b'[{"target_id": 0, "snapshots": [7]}]', "record 1: snapshot 1: not of damo's form"),
        (b'[{"target_id": 0, "snapshots": []}] x', "something follows its end"),
        (b'[{"target_id": 0 "snapshots": []}]', "',' is missing"),
        (b'[{"target_id": nothing}]', "not JSON: Expecting value"),
        (b'[{"target_id": 0, "intervals": {"sample_us": "a"}, "snapshots": []}]', "'a' is not a time"),
        (b'[{"target_id": 0, "intervals": 3, "snapshots": []}]', "not of damo's form"),
        (b"[\xff]", "not UTF-8 text"),
        (b"[" * 100_000, "record 1 is no object"),
        (b'[{"target_id": ' + b"[" * 100_000, "not JSON that can be read: RecursionError"),
    ],
)
def test_what_is_no_record_is_refused_in_a_line(tmp_path: Path, text: bytes, what: str) -> None:
    (tmp_path / "f").write_bytes(text)
    assert what in str(refusal(tmp_path / "f"))


@pytest.mark.parametrize(
    ("one", "what"),
    [
        (region(8192, 4096), "snapshot 1: the region 8192-4096 ends before it begins"),
        (region(-5, 4096), "a number is out of its range"),
        (region("-5", 4096), "a number is out of its range"),
        (region(0.5, 4096), "'0.5' is not a whole number from 0 up"),
        (region(0, 2**64), "a number is out of its range"),
        (region("lots", 4096), "'lots' is not a number"),
        (region(0, 4096, None), "a region has no nr_accesses"),
        (region(0, 4096, 2**40), "a number is out of its range"),
        (region(0, 4096, 1, [3]), "is not a number"),
        (region(0, 4096, 1, float("nan")), "'nan' is not a number"),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path: Path, one: dict[str, Any], what: str) -> None:
    assert what in str(refusal(saved(tmp_path / "f", record(snapshot(10 * S, one)))))


def test_a_snapshot_that_ends_before_it_begins_is_refused(tmp_path: Path) -> None:
    one = snapshot(10 * S, region(4096, 8192), length_ns=-5)
    assert "snapshot 1 ends before it begins" in str(refusal(saved(tmp_path / "f", record(one))))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path, compressed: bool) -> None:
    data = json.dumps([record(snapshot(10 * S, region(4096, 8192, 3, 1)))]).encode()
    data = zlib.compress(data) if compressed else data
    path = tmp_path / "f"
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        problem = refusal(path)
        assert "cut short" in str(problem), length
        assert problem.hint


def test_a_compressed_file_with_any_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "f", run(windows=3), write_damo_json)
    data = path.read_bytes()
    random = np.random.default_rng(5)
    for position in random.integers(0, len(data) * 8, 200).tolist():
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        refusal(path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_any_place_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    one: Any = [record(snapshot(10 * S, region(4096, 8192, 3, 1), sample_interval_us="5000"), intervals=TUNED)]
    one = inner = json.loads(json.dumps(one))  # what others use, too, stays as it is
    while isinstance(inner, (dict, list)) and inner:
        key = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        if data.draw(st.booleans()) or not isinstance(inner[key], (dict, list)) or not inner[key]:
            inner[key] = data.draw(_JSON)
            break
        inner = inner[key]
    path = tmp_path / "f"
    path.write_text(json.dumps(one))
    try:
        rows = all_rows(read_damo_json(path))
    except InvalidInput as problem:
        is_named = str(path) in str(problem)
    else:
        is_named = True
        assert (rows.regions.start < rows.regions.end).all()
        assert ((rows.regions.access_rate >= 0) & (rows.regions.access_rate <= 1)).all()
        assert np.isfinite(rows.regions.age_s).all()
    assert is_named


def test_a_long_file_is_read_in_a_part_of_its_memory(tmp_path: Path) -> None:
    """18 MB of text and 60,000 regions, whose columns take 3 MB, and more for a moment."""
    one = snapshot(0, *[region(f"{i * 4096:,}", f"{(i + 1) * 4096:,}", i % 21, "1,000") for i in range(300)])
    path = tmp_path / "f"
    pack = zlib.compressobj()
    with path.open("wb") as file:
        file.write(pack.compress(f'[{{"target_id": 0, "intervals": {json.dumps(INTERVALS)}, "snapshots": ['.encode()))
        for number in range(200):
            one |= {"start_time": number * S // 10, "end_time": (number + 1) * S // 10}
            text = json.dumps(one, indent=4)
            file.write(pack.compress((("," if number else "") + text).encode()))
        file.write(pack.compress(b"]}]") + pack.flush())
    done: list[int] = []
    tracemalloc.start()
    try:
        history = read_damo_json(path, on_read=done.append)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(all_rows(history).regions) == 60_000
    assert peak_bytes < 0.6 * 200 * len(text)
    assert done[-1] == path.stat().st_size


@pytest.mark.parametrize("blanks", [0, 1024 * 1024 - 300, 5_000_000])
def test_what_packs_very_well_is_read_to_its_end(tmp_path: Path, blanks: int) -> None:
    text = json.dumps([record(snapshot(10 * S, region(4096, 8192, 3, 1)))])
    (tmp_path / "f").write_bytes(zlib.compress((text[:-1] + " " * blanks + "]").encode(), 9))
    assert len(all_rows(read_damo_json(tmp_path / "f"))) == 1


def test_values_that_lie_across_chunks_are_whole() -> None:
    text = json.dumps([{"a": 12345, "b": [1.5, "x" * 50, None]}, -17])
    for length in (1, 2, 3, 7):
        chunks = (text[first : first + length] for first in range(0, len(text), length))
        stream = JsonStream(chunks, source="f")
        found = [stream.value() for _ in stream.elements()]
        stream.end()
        assert found == json.loads(text)
