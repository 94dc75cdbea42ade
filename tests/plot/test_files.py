"""A picture or a page replaces one of its kind, and nothing else."""

import os
from pathlib import Path

import pytest

from memtherm.errors import InvalidInput
from memtherm.plot.files import write_whole


def test_a_file_of_its_kind_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_whole(page, b"<!DOCTYPE html>1")
    write_whole(page, b"<!DOCTYPE html>2")
    assert page.read_bytes() == b"<!DOCTYPE html>2"
    assert list(tmp_path.iterdir()) == [page]


def test_a_file_of_another_kind_stays(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(InvalidInput, match="is something else"):
        write_whole(notes, b"<!DOCTYPE html>")
    assert notes.read_text() == "mine"


def test_what_is_no_plain_file_is_written_and_not_replaced(tmp_path: Path) -> None:
    """A rename over /dev/null takes the device away from the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, b"<!DOCTYPE html>")
        assert os.read(reader, 100) == b"<!DOCTYPE html>"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
