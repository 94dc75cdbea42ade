"""Words of the command line → what of a record is meant."""

import fnmatch
import re

from memtherm.cli.report.options import SelectionWords
from memtherm.core.history import History
from memtherm.core.pattern import ANY, AccessPattern, Bounds
from memtherm.core.selection import Selection
from memtherm.errors import InvalidInput
from memtherm.policy.bounds import parse_bounds, parse_percentage
from memtherm.units import format_time, parse_size, parse_time, shown
from memtherm.views.names import NamedRanges, mapping_name, mappings_ever

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{1,16}|[0-9a-fA-F]{6,16}")
_MOST_NAMES = 8


def choose(history: History, words: SelectionWords) -> Selection:
    """What the words mean in this record.

    Raises:
        InvalidInput: a word that cannot be read, or that names nothing in the record.
    """
    targets = _targets(history, words.targets)
    since_s, until_s = _time(history, words.time)
    start, end = _addresses(history, words.address, targets)
    pattern = AccessPattern(
        size_bytes=_bounds("--size", words.size, parse_size),
        access_rate=_bounds("--rate", words.rate, parse_percentage),
        age_s=_bounds("--age", words.age, parse_time),
    )
    return Selection(since_s=since_s, until_s=until_s, start=start, end=end, targets=targets, pattern=pattern)


def _bounds(option: str, text: str | None, parse: object) -> Bounds:
    if text is None:
        return ANY
    try:
        return parse_bounds(text, parse)  # type: ignore[arg-type]  # sizes are whole numbers
    except InvalidInput as problem:
        raise InvalidInput(f"{option} {problem}", hint=problem.hint) from None


def _listed(names: list[str]) -> str:
    more = [f"and {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return ", ".join([*names[:_MOST_NAMES], *more])


def _targets(history: History, words: tuple[str, ...]) -> frozenset[int] | None:
    if not words:
        return None
    chosen: set[int] = set()
    for word in words:
        found = {
            index
            for index, target in enumerate(history.targets)
            if str(target.pid) == word or fnmatch.fnmatchcase(target.name, word) or word in target.labels
        }
        if not found:
            known = [f"{target.name} ({target.pid})" for target in history.targets]
            raise InvalidInput(f"no target is called {shown(word)}", hint=f"the record has {_listed(known)}")
        chosen |= found
    return frozenset(chosen)


def _time(history: History, text: str | None) -> tuple[float | None, float | None]:
    """Seconds since the epoch."""
    if text is None:
        return None, None
    begin, separator, end = (part.strip() for part in text.partition(".."))
    if not separator or not (begin or end):
        raise InvalidInput(f"--time {shown(text)} is no span", hint="write it like 10s..1min, ..30s or -10s..")
    begin_s, end_s = history.time_span_s

    def moment(word: str) -> float | None:
        if not word:
            return None
        try:
            return end_s - parse_time(word[1:]) if word.startswith("-") else begin_s + parse_time(word)
        except InvalidInput as problem:
            raise InvalidInput(f"--time {problem}", hint=problem.hint) from None

    since_s, until_s = moment(begin), moment(end)
    if since_s is not None and until_s is not None and since_s > until_s:
        raise InvalidInput(f"--time {shown(text)} ends before it begins", hint="write it like 10s..1min")
    if (since_s is not None and since_s > end_s) or (until_s is not None and until_s < begin_s):
        raise InvalidInput(
            f"--time {shown(text)} is not in the record", hint=f"it is {format_time(end_s - begin_s)} long"
        )
    return since_s, until_s


def _addresses(history: History, text: str | None, targets: frozenset[int] | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    begin, separator, end = (part.strip() for part in text.partition(".."))
    if separator and all(_ADDRESS.fullmatch(part) for part in (begin, end) if part) and (begin or end):
        start = int(begin, 16) if begin else None
        stop = int(end, 16) if end else None
        if start is not None and stop is not None and start >= stop:
            raise InvalidInput(f"--address {shown(text)} ends before it begins", hint="give it as FROM..TO")
        return start, stop
    found = mappings_ever(history.mappings(Selection(targets=targets)))
    return _named(history, found, text.strip())


def _named(history: History, mappings: dict[int, NamedRanges], name: str) -> tuple[int, int]:
    """From the first mapping of this name to the last."""
    spans: dict[int, tuple[int, int]] = {}
    for target, of_target in mappings.items():
        here = [index for index, path in enumerate(of_target.paths) if name in (mapping_name(path), path)]
        if here:
            spans[target] = int(of_target.start[here[0]]), int(of_target.end[here[-1]])
    if len(spans) > 1 and len(set(spans.values())) > 1:
        known = [f"{history.targets[target].name} ({history.targets[target].pid})" for target in spans]
        raise InvalidInput(
            f"--address {shown(name)} is at different addresses in several targets",
            hint=f"say which with --target: {_listed(known)}",
        )
    if spans:
        return next(iter(spans.values()))
    names = sorted({mapping_name(path) for one in mappings.values() for path in one.paths})
    if not names:
        hint = "the record knows no mappings; give addresses like 0x7f0000000000..0x7f0000200000"
    else:
        hint = f"there are {_listed(names)}; or give addresses like 0x7f0000000000..0x7f0000200000"
    raise InvalidInput(f"--address {shown(name)} is neither addresses nor a mapping of the record", hint=hint)
