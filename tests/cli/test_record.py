"""`memtherm record`: options that make no record, or would do nothing, are refused before anything is touched."""

import os
from pathlib import Path

import pytest

from memtherm.cli import record
from support.command import assert_refused, forked

# What a forked command needs is loaded here, once.
LOADED = (record,)


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (("--duration", "0s"), ("--duration is 0", "--duration 1min")),
        (("--every", "0s"), ("--every is 0",)),
        (("--rotate-size", "0"), ("--rotate-size is 0", "--rotate-size 100MiB")),
        (("--rotate-every", "0ms"), ("--rotate-every is 0",)),
        (("--keep", "3"), ("--keep is for the files of a rotation", "--rotate-size or --rotate-every")),
    ],
)
def test_options_that_cannot_be_meant(words: tuple[str, ...], texts: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "run.memtherm"
    result = forked("record", "--pid", str(os.getpid()), "-o", str(path), "-n", "1", *words)
    assert_refused(result, 2, *texts)
    assert not path.exists()
