"""A Chromium that is installed, driven by Playwright; without either, tests say what is missing and are skipped."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
AXE = Path("node_modules", "axe-core", "axe.min.js")


def chromium() -> str | None:
    """Where it is: $CHROMIUM, or on the path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install 'genlab[browser]'")
    found = chromium()
    if found is None:
        pytest.skip("needs Chromium: install it, or name it in CHROMIUM")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=as_root)
        try:
            yield browser
        finally:
            browser.close()


def axe() -> Path | None:
    """axe-core's axe.min.js: $AXE, or where npm puts it."""
    named = os.environ.get("AXE")
    return Path(named) if named else AXE if AXE.exists() else None


class Watched:
    """A page of a file, or at an address, and all that it said, asked for elsewhere or popped up meanwhile."""

    def __init__(self, browser: Any, place: Path | str, **options: Any):
        url = place if isinstance(place, str) else place.resolve().as_uri()
        own = (url,) if isinstance(place, str) else ()  # what may be asked for begins so
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        self.page = self.context.new_page()
        self.seen: list[str] = []
        self.page.on("console", lambda message: self.seen.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.seen.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self._asked(request.url, url, own))
        self.context.on("page", lambda page: self.seen.append(f"window: {page.url}"))
        self.page.goto(url)
        if isinstance(place, Path):
            self.until("performance.getEntriesByName('interactive').length > 0")

    def until(self, expression: str) -> None:
        """Playwright's own waiting evaluates a string in the page, which its policy forbids."""
        for _ in range(500):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(20)
        raise AssertionError(f"never: {expression}")

    def _asked(self, url: str, page: str, own: tuple[str, ...]) -> None:
        if url != page and not url.startswith(("data:image/webp;", *own)):
            self.seen.append(f"request: {url[:200]}")

    def scroll_through(self) -> None:
        """So that all that is made when it is first looked at is made."""
        self.page.evaluate(
            """async () => {
                for (let y = 0; y < document.documentElement.scrollHeight; y += 400) {
                    scrollTo({ top: y, behavior: "instant" });
                    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 10)));
                }
                scrollTo({ top: 0, behavior: "instant" });
            }"""
        )

    def accessibility(self, source: Path) -> tuple[list[str], int]:
        """What axe-core finds against the page, and how many of its rules the page passes."""
        self.page.evaluate(source.read_text())
        found = self.page.evaluate("axe.run()")
        told = [f"{v['id']}: {node['html'][:120]}" for v in found["violations"] for node in v["nodes"]]
        return told, len(found["passes"])

    def close(self) -> None:
        self.context.close()
