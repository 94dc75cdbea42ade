"""The age for each program, chosen as DAMON's authors did: run once for each age, and score what that gave and cost."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.schemes.processes import BenchmarkError

Row = dict[str, Any]

AGES_S = (0.0, 2.0, 5.0, 10.0, 20.0, 60.0)
_MOST_LOSS_PERCENT = 10.0
_LOSS_WEIGHT = 3.0


def percent(value: float, base: float) -> float:
    """How much larger `value` is than `base`, in percent of `base`."""
    return 100 * (value / base - 1) if base else 0.0


def score(row: Row, without: Row) -> float:
    """Percent of RSS saved less three times the percent of run time lost; a loss over 10 % disqualifies."""
    saved = -percent(row["rss_bytes"], without["rss_bytes"])
    lost = max(0.0, percent(row["run_s"], without["run_s"]))
    return saved - _LOSS_WEIGHT * lost if lost <= _MOST_LOSS_PERCENT else -100.0 - lost


def with_age(policy: str, age_s: float, folder: Path) -> str:
    """The same policy with another lower bound of the age: a scheme line, or a file in `folder`.

    Raises:
        BenchmarkError: the file has not exactly one line `age = ...`.
    """
    if is_scheme_line(policy):
        words = policy.split()
        words[4] = f"{age_s:g}s" if age_s else "min"
        return " ".join(words)
    line = f'age = ">= {age_s:g}s"'
    text, count = re.subn(r"^age\s*=.*$", line, Path(policy).read_text(), flags=re.MULTILINE)
    if count != 1:
        raise BenchmarkError(f"{policy} has {count} lines `age = ...`, and tuning needs one")
    path = folder / "tuned.toml"
    path.write_text(text)
    return str(path)


def is_scheme_line(policy: str) -> bool:
    """Whether it is a scheme's seven words, rather than the path of a file."""
    return len(policy.split()) > 1


def best_age_s(rows: Sequence[Row], without: Row) -> float:
    """Of the tuning runs of one program; the longest of equally good ages."""
    return float(max(rows, key=lambda row: (score(row, without), row["age_s"]))["age_s"])
