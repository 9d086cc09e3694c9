"""Size of the report of many runs, its speed in headless Chromium, and its accessibility by axe.

    python scripts/benchmark_report.py                 # of 200 synthetic runs: the figures of docs/report.md
    python scripts/benchmark_report.py 500             # of 500
    python scripts/benchmark_report.py <report.html>   # of a report that is there
    python scripts/benchmark_report.py <report.html> docs/images    # its pictures in docs/report.md

Needs `pip install genlab[browser]` and a Chromium ($CHROMIUM, or on the path); axe-core's axe.min.js is looked for in
$AXE and in node_modules/.
"""

import contextlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))
from synthetic_runs import make_sweep

from browser import Watched, axe, launched
from genlab.report.comparison import compare

TIMES = 7  # loads that a median is of
SORT = "document.querySelector('#table th:nth-child(2) button').click()"
FILTER = """const field = document.querySelector("input[type=search]");
            field.value = "gan";
            field.dispatchEvent(new Event("input"))"""
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}


def make_report(count: int, folder: Path) -> Path:
    runs = make_sweep(folder / "sweep", count, grids=10, points=400)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        compare([str(runs)], out=str(folder / "out"), plots=False)
    print(f"made of {count} runs in {time.perf_counter() - start:.1f} s (tables and pictures too)")
    return folder / "out" / "report.html"


def measure(report: Path) -> None:
    print(f"size: {report.stat().st_size / 1e6:.2f} MB")
    with launched() as browser:
        for name, options in (("desktop", {}), ("phone", {"viewport": PHONE, "is_mobile": True, "has_touch": True})):
            loads = [_interactive(browser, report, options) for _ in range(TIMES)]
            print(f"interactive after, {name}: {statistics.median(loads):.0f} ms "
                  f"(median of {TIMES}; {min(loads):.0f} to {max(loads):.0f})")  # fmt: skip
        watched = Watched(browser, report)
        print(f"sort: {_took(watched, SORT):.0f} ms; filter: {_took(watched, FILTER):.0f} ms")
        start = time.perf_counter()
        watched.scroll_through()
        print(f"all of it drawn: {time.perf_counter() - start:.1f} s of scrolling")
        print(f"asked for, said or popped up: {watched.seen or 'nothing'}")
        _axe(watched)


def _interactive(browser: Any, report: Path, options: dict[str, Any]) -> float:
    watched = Watched(browser, report, **options)
    moment = watched.page.evaluate("performance.getEntriesByName('interactive')[0].startTime")
    watched.close()
    return moment


def _took(watched: Watched, act: str) -> float:
    """Milliseconds until it is on the screen."""
    return watched.page.evaluate(
        f"""async () => {{
            const start = performance.now();
            {act};
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            return performance.now() - start;
        }}"""
    )


def _axe(watched: Watched) -> None:
    source = axe()
    if source is None:
        print("axe: not looked for (npm install axe-core, or name its axe.min.js in AXE)")
        return
    watched.page.evaluate(source.read_text())
    found = watched.page.evaluate("axe.run()")
    version = found["testEngine"]["version"]
    print(f"axe {version}: {len(found['violations'])} rules broken, {len(found['passes'])} kept, "
          f"{len(found['incomplete'])} that a person has to judge")  # fmt: skip
    for violation in found["violations"]:
        print(f"  {violation['id']}: {len(violation['nodes'])} x {violation['nodes'][0]['html'][:100]}")


def picture(report: Path, folder: Path) -> None:
    """The top of the page in light, its curves and samples in the dark, and a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    phone = {"viewport": PHONE, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
    desktop = {"viewport": DESKTOP}
    shots = {"report": ("light", "h1", desktop), "report-dark": ("dark", "#curves", desktop),
             "report-phone": ("light", "#curves", phone)}  # fmt: skip
    with launched() as browser:
        for name, (scheme, top, options) in shots.items():
            watched = Watched(browser, report, color_scheme=scheme, **options)
            watched.scroll_through()
            watched.page.evaluate(f"""scrollTo({{ behavior: "instant",
                top: document.querySelector("{top}").getBoundingClientRect().top + scrollY - 64 }})""")
            watched.page.wait_for_timeout(300)
            watched.page.screenshot(path=folder / f"{name}.png")
            print(f"{folder / name}.png: {(folder / f'{name}.png').stat().st_size / 1e3:.0f} kB")
            watched.close()


def main() -> None:
    given = sys.argv[1] if len(sys.argv) > 1 else "200"
    if len(sys.argv) > 2:
        picture(Path(given), Path(sys.argv[2]))
    elif given.isdigit():
        with tempfile.TemporaryDirectory() as folder:
            measure(make_report(int(given), Path(folder)))
    else:
        measure(Path(given))


if __name__ == "__main__":
    main()
