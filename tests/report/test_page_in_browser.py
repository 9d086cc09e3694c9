"""The page as a reader has it, in headless Chromium: by mouse, keyboard and thumb; and what it never does."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_names import NAMES, make_hostile
from synthetic_runs import make_sweep

from browser import Watched, axe, launched
from genlab.report.comparison import compare


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def report(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    compare([str(make_sweep(folder / "sweep", 16, grids=3))], out=str(folder / "out"), plots=False)
    return folder / "out" / "report.html"


@pytest.fixture
def watched(browser: Any, report: Path) -> Iterator[Watched]:
    found = Watched(browser, report)
    yield found
    found.close()
    assert found.seen == []


def names(page: Any) -> list[str]:
    """Of the rows that can be seen, in their order."""
    return page.eval_on_selector_all(
        "#table tbody.run tr:not([hidden]) .who bdi", "rows => rows.map(row => row.textContent)"
    )


def column(page: Any, place: int) -> list[float]:
    """The numbers that can be seen; an interval has a cell of its own."""
    cells = page.eval_on_selector_all(
        "#table tbody.run tr:not([hidden])",
        f"rows => rows.map(row => row.querySelectorAll('td.number')[{place}].firstChild.textContent)",
    )
    return [float(cell.replace(",", "")) for cell in cells]


def test_sorting_by_keyboard(watched: Watched) -> None:
    page = watched.page
    heads = page.eval_on_selector_all("#table thead th", "heads => heads.map(head => head.textContent)")
    fid = next(i for i, head in enumerate(heads) if head.startswith("fid")) - 1
    precision = next(i for i, head in enumerate(heads) if head.startswith("precision")) - 1
    assert column(page, fid) == sorted(column(page, fid))
    page.focus(f"#table th[data-column='{precision}'] button")
    page.keyboard.press("Enter")
    assert column(page, precision) == sorted(column(page, precision), reverse=True)  # the best first
    assert page.get_attribute(f"#table th[data-column='{precision}']", "aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert column(page, precision) == sorted(column(page, precision))
    assert page.get_attribute(f"#table th[data-column='{precision}']", "aria-sort") == "ascending"
    assert page.locator("#table th[aria-sort]").count() == 1
    page.focus("#table th[data-column='-1'] button")
    page.keyboard.press("Enter")
    assert names(page) == sorted(names(page))


def test_filtering_by_words_and_by_limits(watched: Watched) -> None:
    page = watched.page
    everyone = names(page)
    page.fill("input[type=search]", "gan")
    assert names(page) == [name for name in everyone if name.startswith("gan")] != []
    fid = column(page, 1)
    page.fill("input[type=search]", f"fid<{fid[0] + 0.001}")
    assert all(value <= fid[0] + 0.001 for value in column(page, 1))
    page.fill("input[type=search]", "nothing is called so")
    assert names(page) == []
    assert (
        page.text_content("#table-controls output") == f"0 of {page.locator('#table tbody:not(.baseline) tr').count()}"
    )
    page.fill("input[type=search]", "")
    assert names(page) == everyone


def test_ticks_choose_curves_and_samples(watched: Watched) -> None:
    page = watched.page
    watched.scroll_through()
    shown = page.locator("#table input:checked").count()
    assert page.locator("#samples figure").count() == shown
    first = names(page)[0]
    page.get_by_label(f"show {first}", exact=True).uncheck()
    assert page.locator("#samples figure").count() == shown - 1
    assert first not in page.locator("#curves .legend").inner_text()
    page.get_by_role("button", name="Show none").click()
    assert page.locator("#samples figure").count() == 0
    page.get_by_role("button", name="Show the first").click()
    assert first in page.locator("#curves .legend").inner_text()


def test_a_curve_says_what_is_below_the_pointer(watched: Watched) -> None:
    page = watched.page
    watched.scroll_through()
    page.locator("#curves").scroll_into_view_if_needed()
    for axis, unit in (("FLOPs", "FLOP"), ("seconds", " s"), ("examples", " examples")):
        page.locator("#curves .segments label", has_text=axis).click()
        page.locator("#curves .u-over").hover(position={"x": 300, "y": 120})
        told = page.locator("#curves .tip")
        assert told.is_visible()
        assert re.search(rf"at [\d.]+( [kMGTP])?{unit}$", told.inner_text()), told.inner_text()
    before = page.locator("#curves .legend .value").all_inner_texts()
    page.locator("#curves .plot").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#curves .legend .value").all_inner_texts() != before
    assert page.locator("#curves output").inner_text().startswith("at ")


def test_seeds_by_their_mean_or_each(watched: Watched) -> None:
    page = watched.page
    watched.scroll_through()
    means = page.locator("#curves .legend li").count()
    page.locator("#curves .segments label", has_text="each").click()
    assert page.locator("#curves .legend li").count() > means
    assert "seed 1" in page.locator("#curves .legend").inner_text()


def test_the_slider_goes_through_training(watched: Watched) -> None:
    page = watched.page
    watched.scroll_through()
    page.locator("#samples").scroll_into_view_if_needed()
    last = page.locator("#samples img").first.get_attribute("src")
    slider = page.get_by_role("slider")
    assert slider.get_attribute("aria-valuetext") == "at 64 k examples".removeprefix("at ")
    slider.fill("80")
    assert page.locator("#samples img").first.get_attribute("src") != last
    assert "after 21.3" in page.locator("#samples figcaption").first.inner_text()
    slider.fill("0")
    assert "nothing yet" in page.locator("#samples figcaption").first.inner_text()
    page.get_by_role("button", name="Play").click()
    watched.until("document.querySelector('#samples input[type=range]').value > 3")
    page.get_by_role("button", name="Pause").click()
    slider.fill("200")
    page.locator("#samples figure button").first.click()
    assert page.locator("dialog img").is_visible()
    page.keyboard.press("Escape")
    watched.until("!document.querySelector('dialog')")  # it goes with an event that comes after the key


def test_trials_by_state(watched: Watched) -> None:
    page = watched.page
    watched.scroll_through()
    page.locator("#trials button", has_text="failed 1").click()
    rows = page.locator("#trials tbody tr:not([hidden])")
    assert rows.count() == 1
    assert "out of GPU memory" in rows.inner_text()
    assert page.locator("#trials svg .line").count() >= 14


def test_points_and_lines_are_reached_by_arrow_keys(watched: Watched) -> None:
    page = watched.page
    watched.scroll_through()
    for section in ("#tradeoff", "#trials .parallel"):
        page.locator(f"{section} svg").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator(f"{section} .tip").is_visible()
        assert page.locator(f"{section} output").inner_text() != ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(browser: Any, report: Path, scheme: str) -> None:
    watched = Watched(browser, report, color_scheme=scheme)
    paper = "getComputedStyle(document.body).backgroundColor"
    before = watched.page.evaluate(paper)
    assert before == {"light": "rgb(252, 252, 250)", "dark": "rgb(19, 20, 22)"}[scheme]
    watched.page.locator("#theme").click()
    assert watched.page.evaluate(paper) != before
    watched.close()


def test_a_phone_scrolls_its_tables_not_its_page(browser: Any, report: Path) -> None:
    watched = Watched(browser, report, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    watched.scroll_through()
    page = watched.page
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.evaluate("document.querySelector('#results .scroll').scrollLeft = 300")
    name, number = (page.locator(f"#table tbody.run tr:first-child > :nth-child({n})").bounding_box() for n in (1, 3))
    assert 0 <= name["x"] < 30  # stays, and the others go below it
    assert number["x"] < name["x"] + name["width"]
    watched.close()
    assert watched.seen == []


def test_it_prints(watched: Watched) -> None:
    pdf = watched.page.pdf(landscape=True)
    assert pdf.startswith(b"%PDF")
    assert watched.page.locator("#samples figure").count() > 0  # what nobody had looked at is there too


def test_without_scripts_the_numbers_are_there(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.resolve().as_uri())
    assert page.locator("#table tbody.run tr").count() > 3
    assert "This is all without JavaScript" in page.inner_text("body")
    context.close()


def test_40_hostile_names_do_nothing_and_are_shown(browser: Any, tmp_path: Path) -> None:
    make_hostile(tmp_path / "runs")
    compare([str(tmp_path / "runs")], out=str(tmp_path / "out"), plots=False, allow_unequal=True)
    watched = Watched(browser, tmp_path / "out" / "report.html")
    page = watched.page
    elements = page.locator("script, style, iframe, object, form, base, link").count()
    watched.scroll_through()
    page.evaluate("document.querySelectorAll('#table tbody input:not(:checked)').forEach(box => box.click())")
    page.evaluate("document.querySelectorAll('details').forEach(part => (part.open = true))")
    page.evaluate("document.querySelectorAll('button').forEach(button => button.click())")
    page.evaluate("document.querySelectorAll('dialog').forEach(dialog => dialog.close())")
    page.get_by_role("button", name="Show the first").click()
    for place in range(len(NAMES)):
        page.locator("#curves select").select_option(index=place)
    for svg in page.locator("svg").all():
        svg.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
    for value in ("0", "120", "200"):
        page.get_by_role("slider").fill(value)
    page.fill("input[type=search]", NAMES[0])
    page.wait_for_timeout(200)
    assert watched.seen == []
    assert page.locator("script, style, iframe, object, form, base, link").count() == elements == 6
    text = " ".join(page.evaluate("document.body.textContent").split())
    for name in NAMES:
        printed = "".join(c if c.isprintable() else "?" for c in name)
        assert " ".join(printed[:150].split()) in text, name
    assert f"PROMPT: {NAMES[0]}" in text
    assert page.title() == "Comparison of 40 runs"
    watched.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, report: Path, scheme: str) -> None:
    source = axe()
    if source is None:
        pytest.skip("needs axe-core: npm install axe-core, or name its axe.min.js in AXE")
    watched = Watched(browser, report, color_scheme=scheme)
    watched.scroll_through()
    violations, passes = watched.accessibility(source)
    assert violations == []
    assert passes > 20
    watched.close()
