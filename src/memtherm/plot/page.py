"""A run → one HTML file that needs nothing else: no network, no library, no server."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files
from pathlib import Path
from typing import IO

from memtherm.core.history import History
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.plot.files import write_whole
from memtherm.plot.packing import printable, script_json
from memtherm.plot.page_data import PageFacts, page_data

# In this order: a later one may use what an earlier one defines.
SCRIPTS = (
    "format.js", "data.js", "chart.js", "tables.js", "heat_view.js", "heat_draw.js", "heat_map.js", "main.js",
)  # fmt: skip
STYLES = ("page.css", "parts.css")
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def write_page(history: History, target: Path | IO[str], *, page: PageFacts, selection: Selection = EVERYTHING) -> None:
    """Write the page of a run; a file is there whole or not at all.

    Args:
        target: a path, which is replaced, or an open text file.

    Raises:
        InvalidInput: nothing is selected.
        OSError: the file cannot be written.
    """
    text = page_html(history, page=page, selection=selection)
    if not isinstance(target, Path):
        target.write(text)
        return
    write_whole(target, text.encode())


def page_html(history: History, *, page: PageFacts, selection: Selection = EVERYTHING) -> str:
    """The page as text.  Raises InvalidInput where nothing is selected."""
    data = script_json(page_data(history, page, selection=selection))
    style = "\n".join(_source(name) for name in STYLES)
    script = '(() => {\n"use strict";\n' + "\n".join(_source(name) for name in SCRIPTS) + "})();"
    parts = {
        "title": html.escape(printable(page.title)),
        "policy": _policy(style, script),
        "style": style,
        "data": data,
        "script": script,
    }
    # In one go: what is put in is never searched for places itself.
    return _PLACE.sub(lambda place: parts[place[1]], _source("page.html"))


def _source(name: str) -> str:
    return files("memtherm.plot").joinpath("page", name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """What a browser lets this page do: run the one script and style in it, and load nothing from anywhere."""
    return (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
