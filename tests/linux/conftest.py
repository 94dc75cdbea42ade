"""What several files of this folder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.held_programs import compiled_programs


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    with compiled_programs() as folder:
        yield folder
