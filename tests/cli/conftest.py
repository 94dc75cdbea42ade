"""A process to watch, and policy files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.children import Child

GOOD_POLICY = """\
version = 1

[[scheme]]
name = "count what is cold"
access_rate = "0%"
age = ">= 1s"
action = "stat"
"""

# Mistakes on lines 1, 4, 7 and 8.
BAD_POLICY = """\
vresion = 1

[monitor]
sampling_interval = "0"

[[scheme]]
action = "pageut"
age = ">= 5 parsecs"
"""


@pytest.fixture(scope="module")
def target() -> Iterator[Child]:
    with Child() as child:
        address = child.map(8 << 20)
        child.write(address, 2048)
        child.keep_touching([(address, 512, 1)], pause_s=0.005)
        yield child


@pytest.fixture
def good_policy(tmp_path: Path) -> str:
    path = tmp_path / "good.toml"
    path.write_text(GOOD_POLICY)
    return str(path)


@pytest.fixture
def bad_policy(tmp_path: Path) -> str:
    path = tmp_path / "bad.toml"
    path.write_text(BAD_POLICY)
    return str(path)
