"""The page as people have it who judge, in headless Chromium: by keyboard and on a phone; and what it never does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from browser import Watched, axe, launched
from feedback.folders import WEBM, Client, folder, pictures, served, videos
from genlab.feedback.session import Session
from genlab.feedback.statistics import left_share, self_agreement, win_rate
from hostile_texts import NAMES

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@contextmanager
def shown(browser: Any, path: Path, **options: Any) -> Iterator[tuple[Watched, Client]]:
    """A page that in the end has asked for nothing elsewhere, and said nothing to the console."""
    with served(path) as client:
        watched = Watched(browser, client.page.url, **options)
        try:
            ready(watched, 0)
            yield watched, client
        finally:
            watched.close()
    assert watched.seen == []


def ready(watched: Watched, done: int) -> None:
    """Until ``done`` judgments are made, and the next can be."""
    watched.until(
        f"document.getElementById('count').textContent.startsWith('{done} of ') && (document.querySelector("
        "'#choices [aria-disabled=false]') || !document.getElementById('finished').hidden)"
    )


def texts(watched: Watched) -> list[str]:
    return [side.text_content() for side in watched.page.locator(".side").all()]


def test_sixty_judgments_by_keyboard(browser: Any, tmp_path: Path) -> None:
    """Of who prefers the first run's texts, which can be told from the page by what they say."""
    path = folder(tmp_path / "f", [(f"good {i}", f"bad {i}") for i in range(55)])
    with shown(browser, path) as (watched, _):
        page = watched.page
        for done in range(60):
            if done == 3:
                page.keyboard.press("r")
                page.keyboard.type("1, 2 and 0 are written here")  # and judge nothing
                page.keyboard.press("Escape")
            page.keyboard.press("1" if texts(watched)[0].startswith("good") else "2")
            ready(watched, done + 1)
        assert "same judgment when shown again: " in page.inner_text("#agreement")
        page.keyboard.press("0")
        ready(watched, 61)
        assert page.is_visible("#finished")
        assert "judged: 61 of 61" in page.inner_text("#report")
    session = Session(path)
    assert len(session.judgments) == 61
    assert win_rate(session).part >= 54.5
    assert self_agreement(session).part >= 5
    assert 10 < left_share(session).part < 45
    assert [judged.remark for judged in session.judgments if judged.remark] == ["1, 2 and 0 are written here"]
    assert all(0 < judged.seconds < 600 for judged in session.judgments)


def test_a_page_without_a_mouse_reaches_all_buttons(browser: Any, tmp_path: Path) -> None:
    path = folder(tmp_path / "f", [(f"text {i}",) for i in range(3)], rate=True, sources=("outputs/a",))
    with shown(browser, path) as (watched, _):
        reached = set()
        for _ in range(12):
            watched.page.keyboard.press("Tab")
            reached.add(watched.page.evaluate("document.activeElement.textContent || document.activeElement.id"))
        assert {"1", "2", "3", "4", "5", "remark"} <= reached
        watched.page.locator("#choices button", has_text="4").focus()
        watched.page.keyboard.press("Enter")
        ready(watched, 1)
        watched.page.keyboard.press("2")
        ready(watched, 2)
    assert [judged.rating for judged in Session(path).judgments] == [4, 2]


def test_the_last_judgment_is_taken_back_by_a_key(browser: Any, tmp_path: Path) -> None:
    path = folder(tmp_path / "f", [("one", "other")])
    with shown(browser, path) as (watched, _):
        page, first = watched.page, texts(watched)
        assert not page.is_visible("#undo")
        for key in ("u", "Backspace", "button"):
            page.keyboard.press("1")
            ready(watched, 1)
            assert page.is_visible("#finished")
            page.locator("#undo").click() if key == "button" else page.keyboard.press(key)
            ready(watched, 0)
            assert texts(watched) == first
        page.keyboard.press("r")
        page.keyboard.type("bu")
        page.keyboard.press("Backspace")
        page.keyboard.type("y")
        page.keyboard.press("Escape")
        page.keyboard.press("0")
        ready(watched, 1)
    session = Session(path)
    assert [(judged.winner, judged.remark) for judged in session.judgments] == [(None, "by")]
    assert session.taken_back == 3


def test_two_tabs_judge_each_pair_once(browser: Any, tmp_path: Path) -> None:
    path = folder(tmp_path / "f", [(f"one {i}", f"other {i}") for i in range(9)])
    with shown(browser, path) as (watched, client):
        second = Watched(browser, client.page.url)
        ready(second, 0)
        before = texts(watched)
        assert texts(second) == before
        watched.page.keyboard.press("1")
        ready(watched, 1)
        second.page.keyboard.press("2")  # of a pair that is judged: it shows the next
        ready(second, 1)
        assert texts(second) == texts(watched) != before
        second.page.keyboard.press("2")
        ready(second, 2)
        watched.page.keyboard.press("0")
        ready(watched, 2)
        second.close()
        assert second.seen == []
    session = Session(path)
    assert [judged.winner == judged.showing.sides[0] for judged in session.judgments] == [True, False]


def test_40_hostile_texts_do_nothing_and_are_shown(browser: Any, tmp_path: Path) -> None:
    """As prompts, answers, remarks and names of runs."""
    assert len(NAMES) == 40
    pairs = [(name, f"{name} {i}") for i, name in enumerate(NAMES)]
    path = folder(tmp_path / "f", pairs, sources=(NAMES[0], NAMES[8]), prompts=NAMES)
    with shown(browser, path) as (watched, _):
        page = watched.page
        made = page.locator("head *, body *")
        elements = made.count()
        for done in range(44):
            prompt = page.text_content("#prompt")
            assert prompt == min(texts(watched), key=len)
            assert prompt in NAMES
            assert made.count() == elements
            page.fill("#remark", NAMES[done % 40][:2000])
            page.locator("#choices button").nth(done % 3).click()
            ready(watched, done + 1)
        assert NAMES[8] in page.inner_text("#report")
        assert page.locator("#report *").count() == page.locator("#report > li").count()
        page.wait_for_timeout(100)
    kept = [judged.remark for judged in Session(path).judgments]
    assert kept[:4] == NAMES[:4]


RECORD = """async (shade) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 32;
    const recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: "video/webm;codecs=vp8" });
    const parts = [];
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.start();
    for (let i = 0; i < 9; i++) {
        canvas.getContext("2d").fillStyle = `rgb(${20 * i}, ${shade}, 0)`;
        canvas.getContext("2d").fillRect(0, 0, 32, 32);
        await new Promise((done) => setTimeout(done, 30));
    }
    await new Promise((done) => ((recorder.onstop = done), recorder.stop()));
    return [...new Uint8Array(await new Blob(parts).arrayBuffer())];
}"""


def test_videos_play_and_are_judged(browser: Any, tmp_path: Path) -> None:
    recording = browser.new_context().new_page()
    first, second = (bytes(recording.evaluate(RECORD, shade)) for shade in (0, 200))
    recording.context.close()
    path = videos(tmp_path / "f", [(first, second), (second, first)])
    with shown(browser, path, reduced_motion="no-preference") as (watched, _):
        page = watched.page
        assert page.locator(".side video.small").count() == 2
        playing = "[...document.querySelectorAll('video')].map((video) => !video.paused)"
        watched.until(f"{playing}.join() === 'true,true'")
        watched.until("[...document.querySelectorAll('video')].every((video) => video.currentTime > 0)")
        page.keyboard.press("p")
        assert page.evaluate(playing) == [False, False]
        page.keyboard.press("p")
        watched.until(f"{playing}.join() === 'true,true'")
        if (source := axe()) is not None:
            assert watched.accessibility(source)[0] == []
        for done in range(3):
            page.keyboard.press("2")
            ready(watched, done + 1)
    assert len(Session(path).judgments) == 3
    with shown(browser, videos(tmp_path / "still", [(first, second)]), reduced_motion="reduce") as (watched, _):
        assert watched.page.evaluate(playing) == [False, False]


def test_a_video_that_is_none_is_said(browser: Any, tmp_path: Path) -> None:
    with served(videos(tmp_path / "f", [(WEBM, WEBM + b"x")])) as client:
        watched = Watched(browser, client.page.url)
        watched.until("!document.getElementById('problem').hidden")
        assert "cannot be shown" in watched.page.inner_text("#problem")
        watched.page.keyboard.press("1")
        watched.page.wait_for_timeout(50)
        assert client.state()["done"] == 0
        watched.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(browser: Any, tmp_path: Path, scheme: str) -> None:
    with shown(browser, pictures(tmp_path / "f"), color_scheme=scheme) as (watched, _):
        paper = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(246, 246, 244)", "dark": "rgb(22, 22, 21)"}[scheme]
        assert watched.page.locator(".side img.small").count() == 2  # pixels of small pictures are enlarged
        watched.page.keyboard.press("2")
        ready(watched, 1)


def test_a_phone_scrolls_no_page_sideways(browser: Any, tmp_path: Path) -> None:
    long = "W" * 900
    path = folder(tmp_path / "f", [(f"{long} {i}", f"word {i} " * 200) for i in range(2)], sources=(long, long[1:]))
    with shown(browser, path, **PHONE) as (watched, _):
        for done in range(3):
            assert watched.page.evaluate("document.documentElement.scrollWidth") == 360
            boxes = [side.bounding_box() for side in watched.page.locator(".side").all()]
            assert boxes[0]["x"] == boxes[1]["x"]  # one below the other
            assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
            for button in watched.page.locator("#choices button").all():
                assert button.bounding_box()["height"] >= 44
            watched.page.locator("#choices button").first.tap()
            ready(watched, done + 1)
        assert watched.page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, tmp_path: Path, scheme: str) -> None:
    """While texts are compared or rated, while pictures are compared, and at the end."""
    source = axe()
    if source is None:
        pytest.skip("needs axe-core: npm install axe-core, or name its axe.min.js in AXE")
    compared, rated = folder(tmp_path / "c", [("one", "other")]), folder(tmp_path / "r", [("one",)], rate=True)
    for path in (compared, rated, pictures(tmp_path / "pictures", 1)):
        with served(path) as client:
            watched = Watched(browser, client.page.url, color_scheme=scheme)
            ready(watched, 0)
            for done in (0, 1):
                violations, passes = watched.accessibility(source)
                assert violations == []
                assert passes > (20 if done == 0 else 12)
                watched.page.keyboard.press("1")
                ready(watched, 1)
            watched.close()
