"""Fixtures of the walk: the walker, and a child whose pages it reads."""

from collections.abc import Iterator

import pytest

from memtherm.linux.page_table import PageTableWalker, TargetWalk
from support.children import Child
from support.requires import require


@pytest.fixture
def walker() -> PageTableWalker:
    require("root", "bpf")
    return PageTableWalker.open()


@pytest.fixture
def child(walker: PageTableWalker) -> Iterator[Child]:
    assert walker
    with Child() as one:
        yield one


@pytest.fixture
def target(walker: PageTableWalker, child: Child) -> Iterator[TargetWalk]:
    with walker.target(child.pid) as one:
        yield one
