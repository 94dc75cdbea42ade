"""kill -9 at any moment: the record opens, and all that was written is in it."""

import contextlib
import os
import random
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from memtherm.core.report import Report
from memtherm.record.reader import open_record
from memtherm.record.writer import RecordWriter
from support.records import HEADER, assert_same, full_reports, mapping_table, vitals_at

KILLS = 200
# Of the time that writing takes; some are killed before they begin, and none should come to its end.
LONGEST_LIFE = 0.9


def write(path: Path, reports: Sequence[Report], done: int) -> None:
    """Tells by a byte of each window that has been written."""
    with RecordWriter(path, HEADER) as writer:
        os.write(done, b".")
        for number, report in enumerate(reports):
            writer.add_mappings(mapping_table(report.snapshot.time_s, count=200, shift=number << 12))
            writer.add_vitals(vitals_at(report.snapshot.time_s))
            writer.add(report)
            writer.flush()
            os.write(done, b".")


def write_and_be_killed(path: Path, reports: Sequence[Report], life_s: float) -> int:
    """A child's work; returns how many windows it said were written, and 1 for the header."""
    out, done = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks in a process with threads (numpy's pool); the fork here takes no lock of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.write(done, b"!")
            write(path, reports, done)
        finally:
            os._exit(0)
    os.close(done)
    os.read(out, 1)  # a fork of a large process takes longer than the writing
    time.sleep(life_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(out, "rb") as pipe:
        return len(pipe.read())


def test_what_was_written_before_a_kill_is_there(tmp_path: Path) -> None:
    reports = full_reports(12, regions=150)
    path = tmp_path / "run.memtherm"
    out, done = os.pipe()
    began_s = time.perf_counter()
    write(path, reports, done)
    lasts_s = time.perf_counter() - began_s
    os.close(out)
    os.close(done)
    rng = random.Random(1)
    cut = opened = 0
    for _ in range(KILLS):
        path.unlink(missing_ok=True)
        said = write_and_be_killed(path, reports, rng.uniform(0, LONGEST_LIFE * lasts_s))
        if said == 0 and not (path.exists() and path.stat().st_size):
            continue
        with open_record(path) as record:
            found = list(record.reports())
            assert all("was not closed" in text or "no whole frame" in text for text in record.problems)
            cut += bool(record.problems)
            opened += 1
            assert len(list(record.vitals())) >= len(found)
            assert len(list(record.mappings())) >= len(found)
        assert len(found) >= said - 1
        for mine, theirs in zip(found, reports, strict=False):
            assert_same(mine, theirs)
    # Else this would have shown nothing.
    assert opened > KILLS // 2
    assert cut > KILLS // 4


def test_a_writer_that_was_killed_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "run.memtherm"
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    write_and_be_killed(path, full_reports(2), 1.0)
    with RecordWriter(path, HEADER, overwrite=True), open_record(path) as record:
        assert record.is_growing
