"""The page in a browser: it draws what is known, zooms, tells, and can be read."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright

from memtherm.plot.colours import age_colours, heat_colours, heat_level
from memtherm.plot.page import write_page
from memtherm.plot.page_data import PageFacts
from plot.pages import MIB, QUARTER_RATES, START, opened, plain_run
from support.history import ListHistory
from support.requires import require
from support.rich_run import rich_run

EVIL = "</script><img src=x onerror=alert(1)><b>\u2028"

# Each text that is seen, with its contrast to what is behind it (WCAG 2, 1.4.3), where that is below 4.5.
LOW_CONTRAST = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const linear = (one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((one) => linear(one / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const { rgb, a } = parse(getComputedStyle(one).backgroundColor);
      if (a > 0.8) return rgb;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), parent = walker.currentNode.parentElement;
    if (!text || !parent.checkVisibility() || parent.closest("script, style, :disabled, .sr, title")) continue;
    const style = getComputedStyle(parent);
    const colour = parse(parent instanceof SVGElement ? style.fill : style.color).rgb;
    const [high, low] = [light(colour), light(behind(parent))].sort((a, b) => b - a);
    const contrast = (high + 0.05) / (low + 0.05);
    seen += 1;
    if (contrast < 4.5) found.push(`${contrast.toFixed(2)}: ${text.slice(0, 40)}`);
  }
  return seen > 100 ? found : [`only ${seen} texts`];
}"""

# Texts of the drawings that lie over each other, or outside of their drawing.
COLLIDING = """() => {
  const found = [];
  for (const svg of document.querySelectorAll("svg")) {
    const frame = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    boxes.forEach(([text, box], index) => {
      const isInside = box.left >= frame.left - 1 && box.right <= frame.right + 1 && box.bottom <= frame.bottom + 1;
      if (!isInside) found.push(`outside: ${text}`);
      for (const [other, second] of boxes.slice(index + 1)) {
        const across = Math.min(box.right, second.right) - Math.max(box.left, second.left);
        const down = Math.min(box.bottom, second.bottom) - Math.max(box.top, second.top);
        if (across > 1 && down > 3) found.push(`${text} over ${other}`);
      }
    });
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require("chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.html"
    write_page(plain_run(), path, page=PageFacts(title="plain"))
    return path


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rich") / "rich report.html"
    facts = (("Command", "memtherm record --name redis-server -o server.mtr"), ("Host", "Linux 6.12, x86_64"))
    write_page(rich_run(windows=80), path, page=PageFacts(title="redis-server, postgres, python3", facts=facts))
    return path


def near(seen: list[int], wanted: list[int]) -> bool:
    return max(abs(one - other) for one, other in zip(seen, wanted, strict=True)) <= 6


@pytest.mark.parametrize("ratio", [1, 2])
def test_pixels_are_those_of_the_matrix(browser: Browser, plain: Path, ratio: float) -> None:
    with opened(browser, plain, ratio=ratio) as shown:
        colours = heat_colours().tolist()
        for quarter, rate in enumerate(QUARTER_RATES):
            (level,) = heat_level(np.array([rate]), top=1.0).tolist()
            for across in (0.55, 0.8, 0.98):
                for up in (0.03, 0.12, 0.22):
                    seen = shown.pixel(across, quarter / 4 + up)
                    assert near(seen, [*colours[level], 255]), (quarter, across, up, seen)
        assert shown.pixel(0.2, 0.9) == [0, 0, 0, 0]  # nobody watched there then
        assert shown.pixel(0.49, 0.9)[3] == 0
        assert shown.pixel(0.51, 0.9)[3] == 255
        shown.page.click("#show-age")
        assert near(shown.pixel(0.99, 0.1), [*age_colours().tolist()[255], 255])
        assert shown.problems == []


def test_hover_tells_the_region(browser: Browser, plain: Path) -> None:
    with opened(browser, plain) as shown:
        told = shown.hover(0.6125, 0.375)  # 24.5 s, in the middle of the second quarter
        assert (told["Mapping"], told["Access rate"]) == ("buffer.dat", "25 %")
        assert told["Age"].startswith(("23.", "24.", "25."))
        assert told["Time"] == "24 s – 25 s (15:07:04.0)"
        low, high = (int(part, 16) for part in told["Address"].split(" (")[0].split(" – "))
        assert START + 16 * MIB <= low < high <= START + 32 * MIB
        assert abs((low + high) / 2 - (START + 24 * MIB)) < MIB
        assert shown.hover(0.3, 0.9)["Access rate"] == "not watched at that time"
        assert shown.hover(0.3, 0.6)["Access rate"] == "0 %"
        shown.page.mouse.move(5, 5)
        assert shown.page.locator("#tooltip").is_hidden()
        assert shown.problems == []


def test_dragging_zooms_in_and_reset_shows_all_again(browser: Browser, plain: Path) -> None:
    with opened(browser, plain) as shown:
        assert shown.text("#heat-note").startswith("All: 0 s to 40 s, 64.0 MiB.")
        shown.drag((0.25, 0.0), (0.5, 0.25))
        assert shown.text("#heat-note").startswith("Zoomed in: 10 s to 20 s, 16.")
        hot = [*heat_colours().tolist()[255], 255]
        assert all(near(shown.pixel(across, up), hot) for across in (0.02, 0.5, 0.97) for up in (0.05, 0.5, 0.9))
        told = shown.hover(0.5, 0.5)
        assert told["Access rate"] == "100 %"
        assert abs(int(told["Address"].split(" ")[0], 16) - (START + 8 * MIB)) < MIB
        assert told["Time"].startswith(("14 s", "15 s"))
        shown.page.click("[data-do=back]")
        shown.drawn()
        assert shown.text("#heat-note").startswith("All: 0 s to 40 s")
        shown.drag((0.2, 0.5), (0.6, 0.501))  # flat: a stretch of time, all addresses
        assert shown.text("#heat-note").startswith("Zoomed in: 8 s to 24 s, 64.0 MiB")
        shown.page.click("[data-do=reset]")
        shown.drawn()
        assert shown.text("#heat-note").startswith("All: ")
        assert shown.page.locator("[data-do=reset]").is_disabled()
        assert shown.problems == []


def test_the_wheel_zooms_only_a_map_that_was_chosen(browser: Browser, plain: Path) -> None:
    with opened(browser, plain) as shown:
        shown.page.mouse.move(*shown.map_point(0.5, 0.5))
        shown.page.mouse.wheel(0, -240)
        shown.drawn()
        assert shown.text("#heat-note").startswith("All")
        shown.page.locator("#heat").focus()
        before = shown.hover(0.26, 0.4)
        shown.page.mouse.wheel(0, -240)
        shown.page.wait_for_function("document.getElementById('heat-note').textContent.startsWith('Zoomed in')")
        after = shown.hover(0.26, 0.4)
        # What is under the pointer stays there.
        assert (after["Time"], after["Mapping"]) == (before["Time"], before["Mapping"])
        assert shown.problems == []


def test_keys_zoom_move_and_read_aloud(browser: Browser, plain: Path) -> None:
    with opened(browser, plain) as shown:
        keyboard = shown.page.keyboard
        shown.page.locator("#heat").focus()
        keyboard.press("+")
        shown.drawn()
        assert shown.text("#heat-note").startswith("Zoomed in: 10 s to 30 s, 32.")
        keyboard.press("ArrowRight")
        shown.drawn()
        assert "15 s to 35 s" in shown.text("#heat-note")
        keyboard.press("Backspace")
        shown.drawn()
        assert shown.text("#heat-note").startswith("All")
        keyboard.press("Shift+ArrowUp")
        first = shown.page.locator("#readout").text_content() or ""
        assert "Address: 0x10" in first
        assert "Mapping: buffer.dat. Access rate: 0 %" in first
        for _ in range(20):
            keyboard.press("Shift+ArrowDown")
        assert "Access rate: 25 %" in (shown.page.locator("#readout").text_content() or "")
        keyboard.press("-")
        keyboard.press("0")
        shown.drawn()
        assert shown.text("#heat-note").startswith("All")
        assert shown.problems == []


def test_shift_and_drag_move_the_view(browser: Browser, plain: Path) -> None:
    with opened(browser, plain) as shown:
        shown.page.click("[data-do=in]")
        shown.drawn()
        shown.page.keyboard.down("Shift")
        shown.drag((0.5, 0.5), (0.75, 0.5))
        shown.page.keyboard.up("Shift")
        assert "5 s to 25 s" in shown.text("#heat-note")
        assert shown.problems == []


def test_a_finger_reads_and_moves(browser: Browser, plain: Path) -> None:
    with opened(browser, plain, width=400) as shown:
        shown.page.touchscreen.tap(*shown.map_point(0.5, 0.1))
        assert "100 %" in shown.text("#tooltip")
        shown.page.click("[data-do=in]")
        shown.drawn()
        gesture = """([x, y]) => {
            const box = document.getElementById("heat");
            const send = (type, id, left, top) => box.dispatchEvent(new PointerEvent(type, {
                pointerId: id, pointerType: "touch", clientX: left, clientY: top, button: 0, bubbles: true,
            }));
            box.setPointerCapture = () => {};
            send("pointerdown", 1, x - 20, y);
            send("pointerdown", 2, x + 20, y);
            send("pointermove", 1, x - 40, y);
            send("pointermove", 2, x + 40, y);
            send("pointerup", 1, x - 40, y);
            send("pointerup", 2, x + 40, y);
        }"""
        shown.page.evaluate(gesture, list(shown.map_point(0.5, 0.5)))
        shown.drawn()
        # Two fingers moved apart to twice the distance: half of the 20 s.
        assert "15 s to 25 s" in shown.text("#heat-note")
        assert shown.problems == []


def test_charts_follow_the_time_that_the_map_shows(browser: Browser, rich: Path) -> None:
    with opened(browser, rich) as shown:
        ticks = shown.page.locator("#set-chart svg text")
        assert "40 s" in ticks.all_text_contents()
        shown.drag((0.0, 0.5), (0.25, 0.501))
        assert "40 s" not in ticks.all_text_contents()
        assert "10 s" in ticks.all_text_contents()
        shown.page.locator("#set-chart svg").hover()
        told = shown.page.locator("#set-chart .tooltip").inner_text()
        assert "Working set" in told
        assert "RSS" in told
        shown.page.get_by_role("button", name="RSS").click()
        assert shown.page.locator("#set-chart path.line").count() == 3
        assert shown.problems == []


def test_a_target_can_be_chosen(browser: Browser, rich: Path) -> None:
    with opened(browser, rich) as shown:
        page = shown.page
        names = page.locator("#target option").all_inner_texts()
        assert names == ["all 3 targets", "redis-server (4242)", "postgres (977)", "python3 (31337)"]
        of_all = shown.text("#tiles")
        page.select_option("#target", label="redis-server (4242)")
        assert shown.text("#tiles") != of_all
        assert sorted(page.locator("#mappings tbody th").all_inner_texts())[:2] == ["anonymous", "heap"]
        assert {"heap", "anonymous", "stack"} <= set(page.locator("#heat-axes text").all_text_contents())
        # The heap is the lowest; a sixth to a third of it is hot all the time.
        assert shown.hover(0.5, 0.05)["Mapping"] == "heap"
        page.select_option("#target", label="python3 (31337)")
        assert shown.hover(0.1, 0.5)["Access rate"] == "not watched at that time"
        assert shown.problems == []


def test_mappings_are_sorted_and_filtered(browser: Browser, rich: Path) -> None:
    with opened(browser, rich) as shown:
        page = shown.page
        names = page.locator("#mappings tbody th")
        page.get_by_role("button", name="Size").click()
        assert page.locator("th[data-key=size_bytes]").get_attribute("aria-sort") == "descending"
        assert names.first.inner_text().startswith("PostgreSQL.1804289383")
        page.get_by_role("button", name="Size").click()
        assert not names.first.inner_text().startswith("PostgreSQL")
        page.fill("#mappings-filter", "BUFFER")
        assert names.count() == 1
        page.fill("#mappings-filter", "nothing is called so")
        assert "No mapping has this in its name." in shown.text("#mappings")
        assert shown.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 760, 1600])
def test_can_be_read(browser: Browser, rich: Path, scheme: str, width: int) -> None:
    with opened(browser, rich, scheme=scheme, width=width) as shown:
        page = shown.page
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        assert page.evaluate(LOW_CONTRAST) == []
        assert page.evaluate(COLLIDING) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        shown.hover(0.6, 0.5)
        assert page.evaluate(LOW_CONTRAST) == []
        page.select_option("#target", index=2)
        assert page.evaluate(COLLIDING) == []
        assert shown.problems == []


def test_the_theme_can_be_changed(browser: Browser, rich: Path) -> None:
    with opened(browser, rich) as shown:
        background = "getComputedStyle(document.documentElement).backgroundColor"
        light = shown.page.evaluate(background)
        shown.page.click("#theme")
        assert shown.page.evaluate(background) != light
        assert shown.page.evaluate(LOW_CONTRAST) == []
        shown.page.click("#theme")
        assert shown.page.evaluate(background) == light


def test_controls_have_names(browser: Browser, rich: Path) -> None:
    with opened(browser, rich) as shown:
        nameless = shown.page.evaluate(
            """() => [...document.querySelectorAll("button, select, input, [tabindex]")]
                .filter((one) => !one.textContent.trim() && !one.ariaLabel && !one.labels?.length)
                .filter((one) => !one.getAttribute("aria-labelledby"))
                .map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert nameless == []
        assert shown.page.locator("html").get_attribute("lang") == "en"
        assert shown.page.locator("h1").count() == 1


def test_prints_in_light_and_comes_back(browser: Browser, rich: Path) -> None:
    with opened(browser, rich, scheme="dark") as shown:
        shown.page.evaluate("addEventListener('afterprint', () => { window.printed = true; })")
        before = shown.page.locator("#heat-canvas").bounding_box()
        pdf = shown.page.pdf(format="A4", print_background=True)
        assert len(pdf) > 50_000
        shown.page.wait_for_function("window.printed === true")
        assert shown.page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert shown.page.locator("#heat-canvas").bounding_box() == before
        assert shown.problems == []


def test_names_in_a_record_do_nothing(browser: Browser, tmp_path: Path) -> None:
    run = rich_run(windows=8)
    evil = ListHistory(
        all_reports=[replace(report, events=(EVIL,)) for report in run.all_reports],
        all_mappings=[replace(table, path=tuple(f"/{EVIL}" for _ in table.path)) for table in run.all_mappings],
        of_targets=tuple(replace(target, name=EVIL) for target in run.targets),
    )
    write_page(evil, tmp_path / "a.html", page=PageFacts(title=EVIL, facts=((EVIL, EVIL),)))
    with opened(browser, tmp_path / "a.html") as shown:
        shown.hover(0.5, 0.5)
        assert shown.page.locator("img, main b").count() == 0
        assert "</script><img src=x onerror=alert(1)><b>\\u2028" in shown.text("#events")
        assert shown.problems == []


def test_the_policy_stops_scripts_that_are_not_the_page_s(browser: Browser, plain: Path) -> None:
    with opened(browser, plain) as shown:
        shown.page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.ran = true";
                document.body.append(script);
            }"""
        )
        assert shown.page.evaluate("window.ran") is None
        assert any("Content Security Policy" in problem for problem in shown.problems)


def test_an_old_browser_is_told(browser: Browser, plain: Path) -> None:
    with opened(browser, plain, before="delete window.DecompressionStream") as shown:
        assert shown.page.locator("html").get_attribute("data-state") == "failed"
        assert "use one from 2023 or later" in shown.text("#problem")
