"""The page as text: complete, harmless, small, and never half written.  What a browser makes of it: test_browser."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from memtherm.core.history import MappingTable
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import InvalidInput
from memtherm.plot.page import SCRIPTS, STYLES, page_html, write_page
from memtherm.plot.page_data import PageFacts
from memtherm.views.working_set import working_set
from plot.test_heat_data import noise
from plot.unpack import data_of, unpack
from support.history import ListHistory
from support.rich_run import BEGIN_S, DOUBT, TARGETS, rich_run

EVIL = "</script><img src=x onerror=alert(1)><!-- {{script}} \u2028 & ' \""
PAGE = PageFacts(title="three servers", facts=(("Command", "memtherm record --name redis-server"),))


@pytest.fixture(scope="module")
def run() -> ListHistory:
    return rich_run(windows=48)


@pytest.fixture(scope="module")
def text(run: ListHistory) -> str:
    return page_html(run, page=PAGE)


class Tags(HTMLParser):
    """Which elements and attributes a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.seen]


def test_nothing_is_loaded_from_anywhere(text: str) -> None:
    tags = Tags(text).seen
    sources = [
        value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href", "action")
    ]
    assert sources == ["data:,", "#heat"]
    code = text.replace("http://www.w3.org/2000/svg", "")  # the name of a namespace, which nobody fetches
    assert not re.search(r"https?:|wss?://|@import|url\(|fetch\(|XMLHttp|WebSocket|import\(|eval\(", code)
    (policy,) = [one["content"] for name, one in tags if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_shows_what_the_run_holds(text: str) -> None:
    data = data_of(text)
    assert [part["name"] for part in data["parts"]] == [
        "all 3 targets", "redis-server (4242)", "postgres (977)", "python3 (31337)",
    ]  # fmt: skip
    assert data["parts"][0]["heats"] == [0, 1, 2]
    assert data["parts"][2]["heats"] == [1]
    assert data["begin_s"] == BEGIN_S
    assert data["doubts"] == [f"{DOUBT} (4 windows)"]
    assert data["belief"] == "There is doubt about 4 of the 48 windows."
    assert [event["time_s"] for event in data["events"]["rows"]] == [1.0, 6.5, 12.5, 18.5, 21.5]
    assert ["Command", "memtherm record --name redis-server"] in data["facts"]
    assert ["Method", "census"] in data["conditions"]
    assert ["Looks every", "100 ms"] in data["conditions"]
    page_out, huge = data["schemes"]
    assert page_out["name"] == "page out what is cold"
    assert [reason for reason, _ in page_out["refused"]] == ["mapped by several processes", "locked in memory"]
    assert page_out["states"][0][0] == "watermarks: free memory is above 50 %"
    assert dict(huge["totals"])["Applied, as found afterwards"] == "14.0 MiB"
    assert {row["name"] for row in data["mappings"]["rows"]} >= {"heap", "libc.so.6", "buffer.dat"}


def test_the_lines_are_those_of_views(run: ListHistory, text: str) -> None:
    found = working_set(run)
    part = data_of(text)["parts"][2]
    lines = {line["name"]: line for line in part["working_set"]["lines"]}
    assert unpack(lines["Working set"]["values"]).tolist() == found.size_bytes[:, 1].tolist()
    np.testing.assert_allclose(unpack(lines["Working set"]["time_s"]), found.time_s - BEGIN_S)
    assert unpack(lines["RSS"]["values"]).tolist() == found.resident_bytes[:, 1].tolist()


def test_texts_of_a_record_are_never_markup(run: ListHistory, text: str) -> None:
    reports = [replace(report, events=(EVIL,)) for report in run.all_reports[:12]]
    scheme = replace(reports[0].schemes[0], name=EVIL, state=EVIL)
    reports[0] = replace(reports[0], schemes=(scheme,))
    mappings = [replace(table, path=tuple(EVIL for _ in table.path)) for table in run.all_mappings]
    targets = tuple(replace(target, name=EVIL) for target in TARGETS)
    evil = ListHistory(all_reports=reports, all_mappings=mappings, of_targets=targets)
    evil_text = page_html(evil, page=PageFacts(title=EVIL, facts=((EVIL, EVIL),)))
    assert Tags(evil_text).names == Tags(text).names
    assert evil_text.lower().count("</script") == text.lower().count("</script") == 2
    assert "\u2028" not in evil_text
    assert "<img" not in evil_text
    data = data_of(evil_text)
    assert data["events"]["rows"][0]["text"] == EVIL.replace("\u2028", "\\u2028")
    assert data["schemes"][0]["name"] == EVIL.replace("\u2028", "\\u2028")


def test_a_run_that_does_not_pack_stays_small() -> None:
    run = noise(1500, 600)
    start = np.uint64(2**32) + np.arange(4000, dtype=np.uint64) * np.uint64(2**17)
    paths = tuple(f"/srv/{index}/{'long' * 200}/{index}{'name' * 200}" for index in range(4000))
    table = MappingTable(1e9, 0, start, start + np.uint64(2**17), start, ("rw-p",) * 4000, paths)
    text = page_html(replace(run, all_mappings=[table]), page=PAGE)
    assert 1_000_000 < len(text) < 3 * 2**20
    data = data_of(text)
    assert len(data["mappings"]["rows"]) == 600
    assert "3401 smaller ones are left out" in data["mappings"]["note"]


def test_many_targets_events_and_doubts_stay_small(run: ListHistory) -> None:
    targets = tuple(TargetInfo(1000 + index, f"worker {index}") for index in range(40))
    reports = []
    for index, report in enumerate(run.all_reports[:8]):
        snapshot = report.snapshot
        regions = replace(snapshot.regions, target=np.arange(len(snapshot.regions), dtype=np.int32) // 4)
        conditions = replace(snapshot.conditions, doubts=(f"{index} % of the looks came late",))
        events = tuple(f"worker {number} started" for number in range(200))
        snapshot = replace(snapshot, targets=targets, regions=regions, conditions=conditions)
        reports.append(replace(report, snapshot=snapshot, events=events))
    text = page_html(ListHistory(all_reports=reports, of_targets=targets), page=PAGE)
    data = data_of(text)
    assert len(text) < 2**20
    assert len(data["parts"]) == 1 + 8
    assert data["parts"][0]["name"] == "all 40 targets"
    assert len(data["events"]["rows"]) == 500
    assert data["events"]["note"] == "1100 later events are left out"
    assert data["doubts"] == ["7 % of the looks came late (8 windows)"]


def test_a_single_target_is_not_offered_for_choice() -> None:
    data = data_of(page_html(noise(5, 6), page=PAGE))
    assert [part["name"] for part in data["parts"]] == ["noise (1)"]
    assert data["belief"] == "No doubts about these numbers in any of the 5 windows."
    assert (data["schemes"], data["events"]["rows"]) == ([], [])


def test_the_same_run_gives_the_same_page(run: ListHistory, text: str) -> None:
    assert page_html(run, page=PAGE) == text


def test_files_are_there_whole_or_not_at_all(run: ListHistory, text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(run, path, page=PAGE)
    assert path.read_text(encoding="utf-8") == text
    path.write_text("what was there before")
    empty = ListHistory(all_reports=[], of_targets=TARGETS)
    with pytest.raises(InvalidInput):
        write_page(empty, path, page=PAGE)
    assert path.read_text() == "what was there before"
    with pytest.raises(FileNotFoundError):
        write_page(run, tmp_path / "no folder" / "report.html", page=PAGE)
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_can_be_written_to_an_open_file(run: ListHistory, text: str) -> None:
    target = io.StringIO()
    write_page(run, target, page=PAGE)
    assert target.getvalue() == text


def test_all_sources_are_part_of_the_package() -> None:
    folder = files("memtherm.plot").joinpath("page")
    assert {one.name for one in folder.iterdir()} == {*SCRIPTS, *STYLES, "page.html"}
