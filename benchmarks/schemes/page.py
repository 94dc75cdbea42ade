"""`python -m benchmarks.schemes.page`: writes docs/schemes.md from the result of the last whole run."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.schemes import summary
from benchmarks.schemes.catalogue import CATALOGUE
from benchmarks.schemes.summary import Comparison, HugePages, Row
from benchmarks.schemes.tuning import percent, score
from benchmarks.support.machine import REPOSITORY, load
from benchmarks.support.tables import markdown

_PAGE = REPOSITORY / "docs" / "schemes.md"
_TEXT = REPOSITORY / "benchmarks" / "schemes" / "page.md"
_MIB = 1 << 20
_NO_WASTE, _NO_GAIN = 2.0, 2.0  # percent; below, a share of it is a share of noise


def main() -> None:
    result = load("schemes")
    text = page(result)
    if result["is_quick"] or "stopped" in result["conditions"]:
        print(text)
        print(f"{_PAGE.relative_to(REPOSITORY)} is left as it is: it is made from whole runs only")
        return
    _PAGE.write_text(text)
    print(f"wrote {_PAGE.relative_to(REPOSITORY)}")


def page(result: dict[str, Any]) -> str:
    """The whole text, with what was not measured said."""
    rows: list[Row] = result["rows"]
    conditions = result["conditions"] | {"others at work": _others(rows)}
    parts = {
        "conditions": markdown(("what", "value"), [(name, f"`{text}`") for name, text in conditions.items()]),
        "programs": markdown(("program", "habit"), [(one.name, one.habit) for one in CATALOGUE]),
        "beside_damon": _beside_damon(rows),
        "policy": _reclaim(rows, "policy"),
        "tuned": _reclaim(rows, "tuned"),
        "ages": _ages(rows),
        "ages_tried": ", ".join(f"{age:g}" for age in _ages_tried(rows)),
        "policies": _policies(rows, "policy"),
        "huge_policies": _policies(rows, "ours"),
        "huge_beside_damon": _huge_beside_damon(rows),
        "huge": _huge(rows),
        "shortfalls": _shortfalls(rows),
    }
    text = _TEXT.read_text()
    for name, part in parts.items():
        text = text.replace(f"<<{name}>>", part)
    return text


def _others(rows: Sequence[Row]) -> str:
    """How quiet the machine was, from the programs that have no load generator beside them."""
    alone = {program.name for program in CATALOGUE if program.server is None}
    shares = [summary.foreign_cpu_percent(row) for row in rows if row["program"] in alone]
    return f"mean {statistics.fmean(shares):.1f} % of one CPU, at most {max(shares):.1f} %" if shares else "not known"


def _policies(rows: Sequence[Row], configuration: str) -> str:
    """What memtherm was told: one policy, unless parts of the result were run with others."""
    told = dict.fromkeys(row["policy"] for row in rows if row["configuration"] == configuration)
    return ", ".join(f"`{policy}`" for policy in told) or "not measured"


# --- proactive reclaim -------------------------------------------------------------------------------


def _beside_damon(rows: Sequence[Row]) -> str:
    policy, tuned = (summary.comparisons(rows, "reclaim", name, "none") for name in ("policy", "tuned"))
    lines = [
        ("RSS, mean of all programs", "-20 %", "-20.22 %", *_means(policy, tuned, lambda one: one.rss)),
        ("system memory, mean", "", "-6.14 %", *_means(policy, tuned, lambda one: one.system)),
        ("run time, mean", "+3.4 %", "+7.64 %", *_means(policy, tuned, lambda one: one.run)),
        ("best program: RSS", "-93 %", "-93.38 % (freqmine)", *(_best(some, "rss_bytes") for some in (policy, tuned))),
        ("its system memory", "", "-23.63 %", *(_best(some, "system_bytes") for some in (policy, tuned))),
        ("its run time", "+1.2 %", "+1.22 %", *(_best(some, "run_s") for some in (policy, tuned))),
        ("worst run time", "", "+16.02 % (streamcluster)", *(_worst(some) for some in (policy, tuned))),
        (
            "RSS, second half of each run, mean",
            "",
            "not published",
            *_means(policy, tuned, lambda one: one.change("rss_late_bytes")),
        ),
    ]
    return markdown(("figure", "bar, untuned", "DAMON's prcl, tuned", "ours, untuned", "ours, tuned"), lines)


def _means(policy: Sequence[Comparison], tuned: Sequence[Comparison], value: Any) -> tuple[str, str]:
    one, other = (f"{summary.mean(some, value):+.2f} %" if some else "not measured" for some in (policy, tuned))
    return one, other


def _best(compared: Sequence[Comparison], name: str) -> str:
    if not compared:
        return "not measured"
    top = summary.best(compared)
    return f"{top.change(name):+.2f} % ({top.case.program})"


def _worst(compared: Sequence[Comparison]) -> str:
    if not compared:
        return "not measured"
    top = max(compared, key=lambda one: one.run)
    return f"{top.run:+.2f} % ({top.case.program})"


def _reclaim(rows: Sequence[Row], configuration: str) -> str:
    compared = summary.comparisons(rows, "reclaim", configuration, "none")
    if not compared:
        return "Not measured."
    head = (
        "program", "age s", "RSS MiB without", "with", "RSS %", "RSS % of the second half", "system MiB without",
        "with", "system %", "run s without", "with", "run time %", "from .. to", "zram MiB", "swapped in MiB",
        "refaults", "major faults", "paged out MiB", "agent % of a CPU",
    )  # fmt: skip
    means = [*[""] * 2, f"{summary.mean(compared, lambda one: one.rss):+.2f}"]
    means.append(f"{summary.mean(compared, lambda one: one.change('rss_late_bytes')):+.2f}")
    means += ["", "", f"{summary.mean(compared, lambda one: one.system):+.2f}", "", ""]
    means.append(f"{summary.mean(compared, lambda one: one.run):+.2f}")
    last = ["mean", "", *means, *[""] * (len(head) - 2 - len(means))]
    return markdown(head, [*(_reclaim_line(one) for one in compared), last])


def _reclaim_line(one: Comparison) -> list[str]:
    case, base = one.case, one.base
    least, most = one.span("run_s")
    refaults = case.mean("workingset_refault_anon") + case.mean("workingset_refault_file")
    return [
        case.program,
        ", ".join(f"{age:g}" for age in case.ages_s),
        *(f"{some.mean('rss_bytes') / _MIB:.0f}" for some in (base, case)),
        f"{one.rss:+.2f}",
        f"{one.change('rss_late_bytes'):+.2f}",
        *(f"{some.mean('system_bytes') / _MIB:.0f}" for some in (base, case)),
        "" if one.system is None else f"{one.system:+.2f}",
        *(f"{some.mean('run_s'):.2f}" for some in (base, case)),
        f"{one.run:+.2f}",
        f"{least:+.1f} .. {most:+.1f}",
        f"{case.mean('zram_bytes') / _MIB:.1f}",
        f"{case.mean('pswpin') * 4096 / _MIB:.0f}",
        f"{refaults:.0f}",
        f"{case.mean('major_faults'):.0f}",
        f"{case.mean('applied_bytes') / _MIB:.0f}",
        f"{100 * case.mean('agent_cpu_s') / case.mean('run_s'):.2f}",
    ]


def _ages_tried(rows: Sequence[Row]) -> list[float]:
    return sorted({row["age_s"] for row in rows if row["question"] == "tuning" and row["age_s"] is not None})


def _ages(rows: Sequence[Row]) -> str:
    tuning = [row for row in rows if row["question"] == "tuning"]
    lines = []
    for row in tuning:
        if row["configuration"] == "tuned":
            without = next(one for one in tuning if one["program"] == row["program"] and one["configuration"] == "none")
            saved = percent(row["rss_bytes"], without["rss_bytes"])
            lost = percent(row["run_s"], without["run_s"])
            lines.append(
                (row["program"], f"{row['age_s']:g}", f"{saved:+.1f}", f"{lost:+.1f}", f"{score(row, without):+.1f}")
            )
    return markdown(("program", "age s", "RSS %", "run time %", "score"), lines) if lines else "Not measured."


# --- huge pages --------------------------------------------------------------------------------------


def _huge_beside_damon(rows: Sequence[Row]) -> str:
    found = summary.huge_pages(rows)
    removed, kept = "not measured", "not measured"
    if found:
        over = summary.huge_pages_mean(found)
        removed, kept = f"{over.waste_removed:.2f} %", f"{over.gain_kept:.2f} %"
    lines = [
        ("waste of huge pages removed", "76 %", "76.15 %", removed),
        ("gain of huge pages kept", "51 %", "51.25 %", kept),
    ]
    return markdown(("figure", "bar", "DAMON's ethp", "ours"), lines)


def _huge(rows: Sequence[Row]) -> str:
    found = summary.huge_pages(rows)
    if not found:
        return "Not measured."
    head = (
        "program", "RSS MiB never", "always", "ours", "RSS % always", "ours", "run s never", "always", "ours",
        "run time % always", "ours", "waste removed %", "gain kept %", "huge pages MiB always", "ours",
        "agent % of a CPU",
    )  # fmt: skip
    over = summary.huge_pages_mean(found)
    last = [
        "mean", "", "", "", f"{over.waste:+.2f}", f"{over.our_waste:+.2f}", "", "", "", f"{-over.gain:+.2f}",
        f"{-over.our_gain:+.2f}", f"{over.waste_removed:.1f}", f"{over.gain_kept:.1f}", "", "", "",
    ]  # fmt: skip
    return markdown(head, [*(_huge_line(one, rows) for one in found), last])


def _huge_line(one: HugePages, rows: Sequence[Row]) -> list[str]:
    every = [summary.cases(rows, "huge")[one.program, name] for name in ("never", "always", "ours")]
    ours = every[-1]
    return [
        one.program,
        *(f"{case.mean('rss_bytes') / _MIB:.0f}" for case in every),
        f"{one.waste:+.2f}",
        f"{one.our_waste:+.2f}",
        *(f"{case.mean('run_s'):.2f}" for case in every),
        f"{-one.gain:+.2f}",
        f"{-one.our_gain:+.2f}",
        f"{one.waste_removed:.1f}" if one.waste > _NO_WASTE else "no waste",
        f"{one.gain_kept:.1f}" if one.gain > _NO_GAIN else "no gain",
        *(f"{case.mean('huge_bytes') / _MIB:.0f}" for case in every[1:]),
        f"{100 * ours.mean('agent_cpu_s') / ours.mean('run_s'):.2f}",
    ]


def _shortfalls(rows: Sequence[Row]) -> str:
    lines = list(summary.shortfalls(rows))
    return markdown(("bar", "falls short"), lines) if lines else "Nothing that was measured falls short of its bar."


if __name__ == "__main__":
    main()
