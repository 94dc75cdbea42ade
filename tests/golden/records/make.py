"""Makes the golden records of the present format, and the numbers that a reader must find in them.

Run it once for a new format, from the root of the repository: PYTHONPATH=tests python tests/golden/records/make.py
Files of older formats stay as they are: that they can still be read is what they are for.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from memtherm.core.report import Report
from memtherm.core.snapshot import Regions
from memtherm.record.frames import FORMAT
from support.records import BEGIN_S, SAMPLING, full_reports, report_of, write_record

FOLDER = Path(__file__).parent
CENSUS = replace(SAMPLING, method="census", why="", samples=5, sampling_interval_s=0.2, window_s=1.0)


def census_reports() -> list[Report]:
    """Rates in 250ths, ages in real time, errors where not all was looked at."""
    rng = np.random.default_rng(3)
    reports = []
    for index in range(6):
        start = np.cumsum(rng.integers(1, 1000, 10)).astype(np.uint64) * np.uint64(4096)
        rate = rng.integers(0, 251, 10) / 250
        regions = Regions(
            target=np.zeros(10, np.int32),
            start=start,
            end=start + np.uint64(4096),
            nr_accesses=np.rint(rate * 5).astype(np.int64),
            access_rate=rate,
            age_s=rng.random(10) * 1000,
            rate_error=np.where(rng.random(10) < 0.5, 0.0, 0.125),
        )
        reports.append(report_of(regions, BEGIN_S + index + 1, conditions=CENSUS))
    return reports


def expected(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """What a reader must find, as JSON."""
    return [
        {
            "time_s": report.snapshot.time_s,
            "targets": [asdict(target) for target in report.snapshot.targets],
            "conditions": asdict(report.snapshot.conditions),
            "regions": {name: column.tolist() for name, column in vars(report.snapshot.regions).items()},
            "schemes": [asdict(replace(scheme, tried=None)) for scheme in report.schemes],
            "events": list(report.events),
        }
        for report in reports
    ]


def main() -> None:
    for name, reports, frame_s in (("sampling", full_reports(16), 0.3), ("census", census_reports(), 2.0)):
        path = FOLDER / f"v{FORMAT}-{name}.memtherm"
        path.unlink(missing_ok=True)
        write_record(path, reports, frame_s=frame_s, is_full=name == "sampling")
        text = json.dumps({"snapshots": expected(reports)}, indent=1)
        path.with_suffix(".json").write_text(f"{text}\n")
    # As a kill leaves it: within the last data frame.
    whole = (FOLDER / f"v{FORMAT}-sampling.memtherm").read_bytes()
    (FOLDER / f"v{FORMAT}-torn.memtherm").write_bytes(whole[: len(whole) * 3 // 4])


if __name__ == "__main__":
    main()
