"""The rules for filters (damon-spec §2.9) page by page, in plain Python: second witness of core/filters.py."""

from collections.abc import Sequence
from dataclasses import dataclass

from memtherm.core.filters import Filter, FilterKind
from memtherm.units import PAGE_SIZE


@dataclass(frozen=True)
class Page:
    """One page of a target, and what filters by pages may ask of it."""

    number: int
    labels: tuple[str, ...]
    facts: frozenset[FilterKind]


def holds(one: Filter, page: Page) -> bool:
    if one.kind is FilterKind.ADDRESS:
        return one.start // PAGE_SIZE <= page.number < one.end // PAGE_SIZE
    if one.kind is FilterKind.TARGET:
        return one.target in page.labels
    return one.kind in page.facts


def passes(filters: Sequence[Filter], page: Page) -> bool:
    """Core filters first; an allowing match of theirs is the last word, and so is a rejecting one."""
    core = [one for one in filters if one.kind in (FilterKind.ADDRESS, FilterKind.TARGET)]
    others = [one for one in filters if one not in core]
    for one in core:
        if holds(one, page) == one.matching:
            return one.allow
    if core and core[-1].allow and not others:
        return False
    for one in others:
        if holds(one, page) == one.matching:
            return one.allow
    return not (others and others[-1].allow)
