"""`python -m benchmarks.schemes.run`: real programs to their end, without memtherm, with a policy, with it tuned."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.schemes import host
from benchmarks.schemes.catalogue import CATALOGUE, Program
from benchmarks.schemes.measure import Configuration, measure
from benchmarks.schemes.processes import BenchmarkError
from benchmarks.schemes.tuning import AGES_S, best_age_s, is_scheme_line
from benchmarks.schemes.workshop import Workshop, is_there, workshop
from benchmarks.support.machine import REPOSITORY, RESULTS, conditions, load, save

from memtherm.units import parse_size

RESULT = "schemes"
RECLAIM, HUGE, TUNING = "reclaim", "huge", "tuning"
_QUICK_SHARE, _QUICK_AGES_S = 0.15, (0.0, 5.0)

Row = dict[str, Any]


def main() -> None:
    chosen = _arguments()
    # A shell lets its background jobs ignore SIGINT, and so would all that we start; we end the agent by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is put back then, too
    try:
        _Benchmark(chosen).run()
    except BenchmarkError as problem:
        sys.exit(f"bench-schemes: {problem}")
    except KeyboardInterrupt:
        sys.exit("bench-schemes: stopped; everything is put back, and the runs that were done are kept")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schemes.run", description=__doc__)
    names = [program.name for program in CATALOGUE]
    parser.add_argument("--rounds", type=int, default=2, help="times each run is done (default %(default)s)")
    parser.add_argument("--only", default=",".join(names), help="programs, with commas between (default: all)")
    parser.add_argument("--questions", default=f"{RECLAIM},{HUGE}", help="reclaim, huge, or both (default %(default)s)")
    parser.add_argument("--configurations", help="only these, such as none,policy (default: all)")
    parser.add_argument("--quick", action="store_true", help="a seventh of the work, one round, two ages")
    parser.add_argument("--keep", action="store_true", help="add to the last result; what is run again is replaced")
    parser.add_argument("--ages", help=f"seconds that tuning tries (default {','.join(f'{age:g}' for age in AGES_S)})")
    parser.add_argument(
        "--zram-size", type=parse_size, default=4 << 30, metavar="SIZE", help="default 4GiB; 0: no swap is made"
    )
    parser.add_argument("--zram-algorithm", help="such as lz4 (default: the kernel's)")
    folder = "policies/"
    parser.add_argument("--reclaim-policy", default=f"{folder}proactive-reclaim-damon.toml", help="a file or scheme")
    parser.add_argument("--huge-policy", default=f"{folder}access-aware-thp.toml", help="a file or a scheme line")
    chosen = parser.parse_args()
    chosen.only, chosen.questions = chosen.only.split(","), chosen.questions.split(",")
    if unknown := (set(chosen.only) - set(names)) | (set(chosen.questions) - {RECLAIM, HUGE}):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; programs: {', '.join(names)}; questions: reclaim, huge")
    if chosen.quick:
        chosen.rounds = 1
    ages = _QUICK_AGES_S if chosen.quick else AGES_S
    chosen.ages_s = tuple(float(age) for age in chosen.ages.split(",")) if chosen.ages else ages
    chosen.configurations = chosen.configurations.split(",") if chosen.configurations else None
    return chosen


@dataclass(frozen=True)
class _Run:
    """One run that is to be done."""

    question: str
    program: Program
    configuration: Configuration
    round: int

    def replaces(self, row: Row) -> bool:
        """Whether an older row is of this run.  Only tuning runs a program with several ages."""
        mine = (self.question, self.program.name, self.configuration.name, self.round)
        is_same = mine == (row["question"], row["program"], row["configuration"], row["round"])
        return is_same and (self.question != TUNING or self.configuration.age_s == row["age_s"])


class _Benchmark:
    def __init__(self, chosen: argparse.Namespace) -> None:
        self._chosen = chosen
        self._programs = [program for program in CATALOGUE if program.name in chosen.only]
        self._rows: list[Row] = []
        self._began: dict[str, str] = {}

    def run(self) -> None:
        self._check()
        self._began = self._conditions()
        if self._chosen.keep and (RESULTS / f"{RESULT}.json").exists():
            self._rows = load(RESULT)["rows"]
        with ExitStack() as until_end:
            self._began["swap"] = "none made"
            if self._chosen.zram_size:
                swap = host.zram_swap(self._chosen.zram_size, self._chosen.zram_algorithm)
                algorithm = until_end.enter_context(swap)
                self._began["swap"] = f"zram, {self._chosen.zram_size >> 20} MiB, {algorithm}"
            shop = until_end.enter_context(workshop(_QUICK_SHARE if self._chosen.quick else 1.0))
            for program in self._programs:
                print(f"preparing {program.name}", flush=True)
                program.prepare(shop)
            for run in self._runs():
                self._do(run, shop)
        self._save(is_whole=True)

    def _check(self) -> None:
        """Raises BenchmarkError before anything is begun: a missing program is a failure, not a gap in the table."""
        missing = {need for program in self._programs for need in program.needs if not is_there(need)}
        if missing:
            raise BenchmarkError(f"not here: {', '.join(sorted(missing))}; scripts/bench-schemes.sh installs it")
        if os.geteuid() != 0:
            raise BenchmarkError("zram, the mode of huge pages and acting on programs need root")
        for question in self._chosen.questions:
            for policy in (one.policy or "" for one in self._configurations(question, 0.0)):
                if policy and not is_scheme_line(policy) and not Path(policy).exists():
                    raise BenchmarkError(f"there is no policy file {policy}")

    def _conditions(self) -> dict[str, str]:
        chosen = conditions()
        chosen["command"] = shlex.join(["PYTHONPATH=.", "python", "-m", "benchmarks.schemes.run", *sys.argv[1:]])
        chosen["huge pages"] = f"{host.huge_pages_mode()} where nothing else is said"
        chosen["programs"] = "; ".join(program.version() for program in self._programs if program.version_of)
        return chosen

    # --- what is run, in order -----------------------------------------------------------------

    def _runs(self) -> Iterator[_Run]:
        """Tuning first; then round by round, and in each the configurations of a program one after the other."""
        chosen = self._chosen
        if RECLAIM in chosen.questions and self._wants("tuned"):
            yield from self._tuning_runs()
        for number in range(1, chosen.rounds + 1):
            for question in chosen.questions:
                for program in self._programs:
                    tuned_s = self._tuned_age_s(program) if question == RECLAIM and self._wants("tuned") else 0.0
                    configurations = self._configurations(question, tuned_s)
                    # Each second round backwards, so that no configuration always comes after the same one.
                    for configuration in configurations[:: 1 if number % 2 else -1]:
                        yield _Run(question, program, configuration, number)

    def _tuning_runs(self) -> Iterator[_Run]:
        for program in self._programs:
            yield _Run(TUNING, program, Configuration(name="none"), 1)
            for age_s in self._chosen.ages_s:
                yield _Run(TUNING, program, self._tuned(age_s), 1)

    def _configurations(self, question: str, tuned_s: float) -> list[Configuration]:
        if question == RECLAIM:
            found = [
                Configuration(name="none"),
                Configuration(name="policy", policy=self._chosen.reclaim_policy),
                self._tuned(tuned_s),
            ]
        else:
            found = [
                Configuration(name="never", huge_pages="never"),
                Configuration(name="always", huge_pages="always"),
                Configuration(name="ours", huge_pages="madvise", policy=self._chosen.huge_policy),
            ]
        return [configuration for configuration in found if self._wants(configuration.name)]

    def _tuned(self, age_s: float) -> Configuration:
        return Configuration(name="tuned", policy=self._chosen.reclaim_policy, age_s=age_s)

    def _wants(self, name: str) -> bool:
        return self._chosen.configurations is None or name in self._chosen.configurations

    def _tuned_age_s(self, program: Program) -> float:
        rows = [row for row in self._rows if row["question"] == TUNING and row["program"] == program.name]
        without = next(row for row in rows if row["configuration"] == "none")
        return best_age_s([row for row in rows if row["configuration"] == "tuned"], without)

    # --- doing it ------------------------------------------------------------------------------

    def _do(self, run: _Run, shop: Workshop) -> None:
        row = {
            "question": run.question,
            "program": run.program.name,
            "configuration": run.configuration.name,
            "round": run.round,
            "age_s": run.configuration.age_s,
            "policy": run.configuration.policy,
            **measure(run.program, run.configuration, self._shop(run, shop)),
        }
        self._rows = [old for old in self._rows if not run.replaces(old)]
        self._check_work(row)
        self._rows.append(row)
        print(_line(row), flush=True)
        self._save(is_whole=False)

    def _shop(self, run: _Run, shop: Workshop) -> Workshop:
        return shop if run.question == RECLAIM else replace(shop, share=shop.share * run.program.side_share)

    def _check_work(self, row: Row) -> None:
        """Raises BenchmarkError where two runs of a program for one question did not do the same."""
        mine = row["program"], row["question"]
        other = next((old for old in self._rows if (old["program"], old["question"]) == mine), row)
        if other["work"] != row["work"]:
            raise BenchmarkError(f"{row['program']} did {row['work']} now and {other['work']} before")

    def _save(self, *, is_whole: bool) -> None:
        began = self._began if is_whole else self._began | {"stopped": "before its end"}
        path = save(RESULT, began=began, is_quick=self._chosen.quick, rows=self._rows)
        if is_whole:
            print(f"wrote {path.relative_to(REPOSITORY)}")


def _line(row: Row) -> str:
    parts: Sequence[str] = (
        f"{row['question']:8} {row['program']:10} {row['configuration']:7} {row['round']}",
        f"{row['run_s']:6.2f} s",
        f"RSS {row['rss_bytes'] / (1 << 20):6.1f} MiB, late {row['rss_late_bytes'] / (1 << 20):6.1f}",
        f"system {row['system_bytes'] / (1 << 20):6.1f}",
        f"zram {row['zram_bytes'] / (1 << 20):5.1f}",
        f"huge {row['huge_bytes'] / (1 << 20):6.1f}",
        f"swapped in {row['pswpin']}",
        f"agent {row['agent_cpu_s']:.2f} s" if "agent_cpu_s" in row else "",
        f"age {row['age_s']:g} s" if row["age_s"] is not None else "",
    )
    return "  ".join(part for part in parts if part)


if __name__ == "__main__":
    main()
