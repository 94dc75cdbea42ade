"""Filters: which of the memory that fits a pattern is left out (damon-spec §2.9).

Those by address and target are decided on regions, before all others; the rest on pages, by who acts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from memtherm.core.pattern import ANY, Bounds
from memtherm.core.ranges import Flags
from memtherm.errors import InvalidInput


class FilterKind(StrEnum):
    """What a filter looks at.

    `address`: inside a range; `target`: a named target.  These two belong to the core group, all others
    to the group of pages: `anonymous` and `file` (shared memory is `file`), `mapping`: its path or name,
    `young`: accessed since the last look, `huge_page`: size of the page, `cgroup`: that the page is
    charged to, `active`: on an active list of reclaim, `unmapped`: a page of the file that the target
    has in no page table.
    """

    ADDRESS = "address"
    TARGET = "target"
    ANONYMOUS = "anonymous"
    FILE = "file"
    MAPPING = "mapping"
    YOUNG = "young"
    HUGE_PAGE = "huge_page"
    CGROUP = "cgroup"
    ACTIVE = "active"
    UNMAPPED = "unmapped"


CORE_KINDS = (FilterKind.ADDRESS, FilterKind.TARGET)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Allows or rejects memory for which `kind` holds; with `matching` false, memory for which it does not hold.

    Attributes:
        start, end: of `address`, half-open.
        target: of `target`: the label of a target.
        pattern: of `mapping`: a shell pattern for its path, or its name such as `[heap]`.
        size_bytes: of `huge_page`: closed bounds of the page's size.
        cgroup: of `cgroup`: its path; pages of cgroups below it do not match.

    Raises:
        InvalidInput: what the kind needs is missing, or is there for a kind that does not take it.
    """

    kind: FilterKind
    allow: bool
    matching: bool = True
    start: int = 0
    end: int = 0
    target: str = ""
    pattern: str = ""
    size_bytes: Bounds = ANY
    cgroup: str = ""

    def __post_init__(self) -> None:
        given = {
            FilterKind.ADDRESS: (self.start, self.end) != (0, 0),
            FilterKind.TARGET: bool(self.target),
            FilterKind.MAPPING: bool(self.pattern),
            FilterKind.HUGE_PAGE: self.size_bytes != ANY,
            FilterKind.CGROUP: bool(self.cgroup),
        }
        for kind, is_given in given.items():
            if is_given and kind is not self.kind:
                raise InvalidInput(
                    f"a filter by {self.kind} has a value for {kind}", hint=f"make it a filter by {kind}"
                )
        if self.kind in given and not given[self.kind]:
            raise InvalidInput(f"a filter by {self.kind} does not say which", hint=_NEEDS[self.kind])
        if not 0 <= self.start <= self.end <= 2**64 - 1:
            raise InvalidInput(f"the range {self.start:#x}-{self.end:#x} ends before it starts", hint="swap the two")

    @property
    def is_core(self) -> bool:
        return self.kind in CORE_KINDS


_NEEDS = {
    FilterKind.ADDRESS: "give its range",
    FilterKind.TARGET: "name the target",
    FilterKind.MAPPING: "give a pattern of its path, such as */libc.so*",
    FilterKind.HUGE_PAGE: "give bounds of its size, such as >= 2MiB",
    FilterKind.CGROUP: "give its path",
}


def default_rejects(filters: Sequence[Filter]) -> tuple[bool, bool]:
    """What becomes of memory that no filter of a group matches: for the core group, and for that of pages.

    A last filter that allows means that all else is rejected.  But the core group lets through
    where there are filters by pages, which have the last word.
    """
    core = [one for one in filters if one.is_core]
    pages = [one for one in filters if not one.is_core]
    return bool(core) and core[-1].allow and not pages, bool(pages) and pages[-1].allow


def judge(
    filters: Sequence[Filter], holds: Callable[[Filter], Flags], *, default_rejects: bool, count: int
) -> tuple[Flags, Flags]:
    """Which of `count` pieces of memory pass: for each the first filter that matches decides.

    Args:
        holds: for each piece whether what the filter looks at is so.

    Returns:
        Whether each piece passes, and whether a filter has decided that, rather than the default.
    """
    passes = np.full(count, not default_rejects)
    undecided = np.ones(count, np.bool_)
    for one in filters:
        if not undecided.any():
            break
        matches = undecided & (holds(one) == one.matching)
        passes[matches] = one.allow
        undecided &= ~matches
    return passes, ~undecided
