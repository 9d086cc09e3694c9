"""The page's server, driven over HTTP: who may ask, what is kept, and what is never told."""

import json
import re
import threading
from pathlib import Path

import pytest

from feedback.folders import WEBM, Client, choice, folder, pictures, served, videos
from genlab.errors import ResourceError
from genlab.feedback import server
from genlab.feedback.server import LARGEST, Page
from genlab.feedback.session import JUDGMENTS, Session

TEXTS = [(f"one {i}", f"other {i}") for i in range(20)]
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "javascript:alert(1)",
    "\u2028\u2029\u202e\x00",
    '"}]};alert(1)//',
    "{{7*7}} ${7*7}",
    "\ud800",
)


def written(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / JUDGMENTS).read_text().splitlines()]


def test_a_judgment_is_on_disk_before_the_next_is_shown(tmp_path: Path) -> None:
    path = folder(tmp_path / "f", TEXTS)
    with served(path) as client:
        for number in range(22):  # 20, and a tenth of them again
            before = client.state()
            assert (before["showing"], before["done"], before["of"]) == (number, number, 22)
            status, after = client.post(choice(number, ("left", "right", "tie")[number % 3], remark="ok"))
            assert status == 200
            assert len(written(path)) == number + 1 == after["done"]
        assert after["showing"] is None
        assert any("22 of 22" in line for line in after["report"])
    assert [row["choice"] for row in written(path)[:3]] == ["left", "right", "tie"]
    assert {row["remark"] for row in written(path)} == {"ok"}


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    path = folder(tmp_path / "f", TEXTS)
    shown = []
    for number in range(4):
        with served(path) as client:
            shown.append(client.state()["sides"])
            assert client.post(choice(number))[1]["showing"] == number + 1
    with served(folder(tmp_path / "again", TEXTS)) as client:
        assert shown[0] == client.state()["sides"]  # the same side, for the same seed


def test_a_kill_between_the_disk_and_the_answer_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "f", TEXTS)
    with served(path) as client, monkeypatch.context() as patch:

        def killed(*_: object) -> None:
            raise ConnectionAbortedError

        patch.setattr(server._Request, "_send", killed)
        with pytest.raises(OSError):  # noqa: PT011  the connection is closed without an answer
            client.post(choice(0, "right"))
    with served(path) as client:
        assert client.state()["showing"] == 1
        assert client.post(choice(0, "left"))[1]["showing"] == 1  # sent again by the page: the first one stays
    assert [row["choice"] for row in written(path)] == ["right"]


def test_double_clicks_and_two_tabs_make_one_judgment(tmp_path: Path) -> None:
    path = folder(tmp_path / "f", TEXTS)
    with served(path) as client:
        found: list[int] = []
        clicks = [threading.Thread(target=lambda: found.append(client.post(choice(0))[0])) for _ in range(8)]
        for click in clicks:
            click.start()
        for click in clicks:
            click.join()
        assert found == [200] * 8
        assert client.state()["showing"] == 1
        assert client.post(choice(5)) == (400, "this one is not shown yet")
    assert len(written(path)) == 1


def test_a_full_disk_is_said_and_the_pair_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "f", TEXTS)
    with served(path) as client:
        client.post(choice(0))

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("genlab.feedback.session.os.fsync", full)
            status, told = client.post(choice(1))
        assert (status, len(written(path))) == (507, 1)
        assert "no space left" in told
        assert client.post(choice(1))[1]["showing"] == 2
    assert len(Session(path).judgments) == 2


def test_only_who_knows_the_token_gets_in(tmp_path: Path) -> None:
    with served(folder(tmp_path / "f", TEXTS)) as client:
        token = client.page.token
        for path in ("/", "/state", f"/{token}", f"/{token[:-1]}/state", "/wrong/", f"/x/{token}/", "x"):
            assert client.ask("GET", path)[0] in (400, 404), path
        assert client.ask("POST", "/wrong/judge", json.dumps(choice(0)).encode())[0] == 404
        assert client.get("")[0] == client.get("page.js")[0] == client.get("page.css")[0] == 200
        for path in ("../session.json", "items.jsonl", "picture/0/0", "page.html", "judge", "%2e%2e/session.json"):
            assert client.get(path)[0] == 404, path
        assert client.state()["done"] == 0
        assert len(token) == 32


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "[::1]:80", None])
def test_another_host_is_refused(host: str | None, tmp_path: Path) -> None:
    with served(folder(tmp_path / "f", TEXTS)) as client:
        assert client.get("state", Host=host)[0] == 403
        assert client.post(choice(0), Host=host)[0] == 403
        assert client.state()["done"] == 0


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_another_origin_is_refused(origin: str, tmp_path: Path) -> None:
    with served(folder(tmp_path / "f", TEXTS)) as client:
        assert client.get("state", Origin=origin)[0] == client.post(choice(0), Origin=origin)[0] == 403
        assert client.post(choice(0), Origin=None)[0] == 403
        assert client.get("", Origin=None)[0] == 200  # an address that is typed
        assert client.state()["done"] == 0


def test_other_methods_and_bodies_are_refused(tmp_path: Path) -> None:
    with served(folder(tmp_path / "f", TEXTS)) as client:
        for method in ("PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "PATCH"):
            assert client.ask(method, f"/{client.page.token}/judge")[0] == 405
        assert client.post(choice(0), Content_Type="text/plain")[0] == 415
        assert client.post(choice(0), Content_Length=None)[0] == 411
        assert client.post(b"", Content_Length=str(LARGEST + 1))[0] == 413
        assert client.post(b"", Content_Length="-1")[0] == 411
        assert client.post(choice(0, remark="x" * 2001))[0] == 400
        for wrong in (b"[" * 30000, b"\xff", b"[]", b"1", b'{"showing": true, "choice": "left", "seconds": 1}'):
            assert client.post(wrong)[0] == 400
        for seconds in (-1, float("nan"), float("inf"), "1", True, None, 1e9):
            assert client.post(choice(0, seconds=seconds))[0] == 400
        for wrong_choice in ("both", "", None, 1, ["left"]):
            assert client.post({"showing": 0, "choice": wrong_choice, "seconds": 1})[0] == 400
        assert client.post(choice(0, rating=3))[0] == 400
        assert client.state()["done"] == 0


def test_whose_a_side_is_stays_on_disk(tmp_path: Path) -> None:
    with served(folder(tmp_path / "f", TEXTS)) as client:
        told = client.get("state")[1].decode()
        assert "outputs" not in told
        assert {*client.state()} == {
            *("done", "of", "agreed", "rate", "showing", "prompt", "sides", "ratings", "longest")
        }


def test_hostile_texts_stay_text(tmp_path: Path) -> None:
    """They come as strings of JSON, the page's scripts never make markup of a string, and its policy runs none."""
    path = folder(tmp_path / "f", [(text, text[::-1] + "x") for text in HOSTILE])
    seen = set()
    with served(path) as client:
        for number in range(len(HOSTILE)):
            seen |= {side["text"] for side in client.state()["sides"]}
            assert client.get("state")[2]["content-type"] == "application/json"
            assert client.post(choice(number, remark=HOSTILE[number]))[0] == 200
        headers = client.get("")[2]
        script = client.get("page.js")[1].decode()
        page = client.get("")[1].decode()
    assert {text.encode("utf-8", "replace").decode() for text in HOSTILE} <= seen
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "require-trusted-types-for 'script'" in policy
    assert not re.search(r"unsafe|https?:|\*|data:", policy)
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function|srcdoc|parseHTML", script)
    assert not re.search(r"https?:|//[a-z]|\son\w+=|style=", page)
    assert len(Session(path).judgments) == len(HOSTILE)


def test_pictures_are_shown_of_this_pair_alone(tmp_path: Path) -> None:
    with served(pictures(tmp_path / "f")) as client:
        sides = client.state()["sides"]
        found = [client.get(side["picture"]) for side in sides]
        assert [status for status, *_ in found] == [200, 200]
        assert {kind["content-type"] for *_, kind in found} == {"image/png"}
        assert found[0][1] != found[1][1]
        for path in ("picture/1/0", "picture/0/2", "picture/0/-1", "picture/0/0/0", "picture/%C2%B2/0", "picture/0"):
            assert client.get(path)[0] == 404


def test_videos_are_shown_by_parts(tmp_path: Path) -> None:
    """Players ask for ranges of bytes (RFC 9110, 14)."""
    contents = [(WEBM + bytes(range(100)), WEBM + bytes(range(100, 200))) for _ in range(3)]
    with served(videos(tmp_path / "f", contents)) as client:
        sides = client.state()["sides"]
        assert [*sides[0]] == ["video"]
        whole = [client.get(side["video"]) for side in sides]
        assert sorted(content for _, content, _ in whole) == sorted(contents[0])
        assert {kind["content-type"] for *_, kind in whole} == {"video/webm"}
        content = whole[0][1]
        for asked, told, start, end in (
            ("bytes=0-", "bytes 0-103/104", 0, 104),
            ("bytes=10-19", "bytes 10-19/104", 10, 20),
            ("bytes=100-999", "bytes 100-103/104", 100, 104),
            ("bytes=-5", "bytes 99-103/104", 99, 104),
        ):
            status, part, headers = client.get(sides[0]["video"], Range=asked)
            assert (status, part, headers["content-range"]) == (206, content[start:end], told)
        assert client.get(sides[0]["video"], Range="bytes=104-")[0] == 416
        for other in ("bytes=-", "bytes=0-1,3-4", "lines=0-1", "bytes=x-", "bytes=9-3"):
            assert client.get(sides[0]["video"], Range=other)[0] in (200, 416)
        for path in ("picture/0/0", "video/1/0", "video/0/2", "video/0/..", "videos-0/000000.webm"):
            assert client.get(path)[0] == 404


def test_ratings(tmp_path: Path) -> None:
    path = folder(tmp_path / "f", [(f"text {i}",) for i in range(4)], rate=True, sources=("outputs/a",))
    with served(path) as client:
        assert client.state()["ratings"] == [1, 2, 3, 4, 5]
        for wrong in (0, 6, 2.0, True, "3", None):
            assert client.post({"showing": 0, "rating": wrong, "seconds": 1})[0] == 400
        for number in range(5):
            assert client.post({"showing": number, "rating": 4, "seconds": 1})[0] == 200
    assert [judged.rating for judged in Session(path).judgments] == [4] * 5


def test_the_last_judgment_is_taken_back(tmp_path: Path) -> None:
    """By a line of its own: nothing is deleted."""
    path = folder(tmp_path / "f", TEXTS)
    with served(path) as client:
        assert client.post({"showing": 0}, to="undo")[1]["showing"] == 0  # there is none yet
        before = client.state()
        client.post(choice(0, "left"))
        client.post(choice(1, "right"))
        assert client.post({"showing": 0}, to="undo")[1]["showing"] == 2  # of a tab that is behind
        assert client.post({"showing": 1}, to="undo")[1]["showing"] == 1
        assert client.post({"showing": 1}, to="undo")[1]["showing"] == 1  # pressed twice
        again = client.post({"showing": 0}, to="undo")[1]
        assert again == before
        assert client.post({}, to="undo")[0] == client.post({"showing": -1}, to="undo")[0] == 400
        assert client.post({"showing": 0}, to="undo", Origin="http://evil.example")[0] == 403
        for number in range(22):
            client.post(choice(number, "tie"))
        assert "taken back and judged anew: 2" in client.state()["report"]
        assert client.post({"showing": 21}, to="undo")[1]["showing"] == 21  # all was judged
        client.post(choice(21, "right"))
    rows = written(path)
    assert [row.get("takes_back", row.get("choice")) for row in rows[:5]] == ["left", "right", 1, 0, "tie"]
    assert len(rows) == 2 + 2 + 22 + 1 + 1
    session = Session(path)
    assert (len(session.judgments), session.taken_back) == (22, 3)
    assert sum(judged.winner is None for judged in session.judgments) == 21


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    path = folder(tmp_path / "f", TEXTS)
    with served(path) as client:
        taken = client.page.server_port
        with pytest.raises(ResourceError, match=rf"^port={taken} cannot be used .*in use\)\. Use port=0, "):
            Page(Session(path), taken)
        with served(path) as other:
            assert isinstance(other, Client)
