"""A page in Debian's Chromium, and a run so plain that each pixel of its heat map is known."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page

from memtherm.core.history import MappingTable
from memtherm.core.report import Report
from memtherm.core.snapshot import Conditions, Regions, Snapshot, TargetInfo
from support.history import ListHistory

MIB = 2**20
START = 0x10_0000_0000
PLAIN_WINDOWS = 40
# Quarters of 64 MiB from the lowest address up; the highest is not watched in the first half of the time.
QUARTER_RATES = (1.0, 0.25, 0.0, 0.04)


def plain_run() -> ListHistory:
    """40 windows of 1 s; one mapping of 64 MiB in four regions."""
    conditions = Conditions(
        method="census", probe="bpf", clearing="cold", grain="page", sampling_interval_s=0.2,
        aggregation_interval_s=1.0, samples=5, window_s=1.0,
    )  # fmt: skip
    target = (TargetInfo(77, "plain"),)
    border = np.uint64(START) + np.arange(5, dtype=np.uint64) * np.uint64(16 * MIB)
    rate = np.array(QUARTER_RATES)

    def report(index: int) -> Report:
        watched = slice(0, 3 if index < PLAIN_WINDOWS // 2 else 4)
        regions = Regions(
            np.zeros(4, np.int32), border[:-1], border[1:], np.rint(rate * 5).astype(np.int64), rate,
            np.full(4, float(index)), np.zeros(4),
        ).take(watched)  # fmt: skip
        return Report(Snapshot(1.75e9 + index + 1, target, regions, conditions), ())

    table = MappingTable(
        1.75e9, 0, border[:1], border[4:], np.zeros(1, np.uint64), ("rw-p",), ("/srv/data/buffer.dat",)
    )
    return ListHistory(all_reports=[report(index) for index in range(PLAIN_WINDOWS)], all_mappings=[table])


@dataclass
class Opened:
    """A page that is open, and all that went wrong with it."""

    page: Page
    problems: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def map_point(self, across: float, up: float) -> tuple[float, float]:
        """A place of the heat map as a share of its width and height from the lower left, in pixels of the page."""
        self.page.locator("#heat-canvas").scroll_into_view_if_needed()
        box = self.page.locator("#heat-canvas").bounding_box()
        assert box is not None
        return box["x"] + across * box["width"], box["y"] + (1 - up) * box["height"]

    def hover(self, across: float, up: float) -> dict[str, str]:
        """What the page tells about a place of the heat map."""
        self.page.mouse.move(*self.map_point(across, up))
        names, values = (self.page.locator(f"#tooltip {part}").all_inner_texts() for part in ("dt", "dd"))
        return dict(zip(names, values, strict=True))

    def drag(self, first: tuple[float, float], last: tuple[float, float]) -> None:
        self.page.mouse.move(*self.map_point(*first))
        self.page.mouse.down()
        self.page.mouse.move(*self.map_point(*last), steps=4)
        self.page.mouse.up()
        self.drawn()

    def drawn(self) -> None:
        """Waits for the frame in which a change is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def pixel(self, across: float, up: float) -> list[int]:
        """Red, green, blue and opacity of the heat map at a place."""
        found: list[int] = self.page.evaluate(
            """([across, up]) => {
                const canvas = document.getElementById("heat-canvas");
                const x = Math.floor(across * canvas.width), y = Math.floor((1 - up) * canvas.height);
                const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
                context.drawImage(canvas, -x, -y);
                return [...context.getImageData(0, 0, 1, 1).data];
            }""",
            [across, up],
        )
        return found


@contextmanager
def opened(
    browser: Browser, path: Path, *, width: int = 1280, scheme: str = "light", ratio: float = 1, before: str = ""
) -> Iterator[Opened]:
    """Open a file without any network; nothing may go wrong.

    Args:
        before: a script that runs before those of the page.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=ratio,
        has_touch=True,
        timezone_id="UTC",
        locale="en-GB",
    )
    shown = Opened(context.new_page())
    problems = shown.problems
    context.set_offline(True)
    if before:
        context.add_init_script(before)
    context.on("request", lambda request: problems.append(request.url) if request.url != path.as_uri() else None)
    shown.page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    shown.page.on("pageerror", lambda error: problems.append(str(error)))
    shown.page.on("dialog", lambda dialog: problems.append(dialog.message))
    try:
        shown.page.goto(path.as_uri())
        shown.page.wait_for_selector("html[data-state]")
        yield shown
    finally:
        context.close()
