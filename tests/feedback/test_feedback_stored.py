"""Samples that are stored as files, and judgments that were made elsewhere, as folders of feedback."""

import json
from pathlib import Path
from typing import Any

import pytest

from feedback.folders import WEBM
from genlab import cli
from genlab.errors import ConfigError, DataError
from genlab.feedback.server import Page
from genlab.feedback.session import JUDGMENTS, Session
from genlab.feedback.statistics import ratings, win_rate

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Page, "serve_forever", stop)


def files(path: Path, contents: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in contents.items():
        (path / name).write_bytes(content)
    return path


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_files_of_one_name_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = files(tmp_path / "one", {"b.webm": WEBM + b"1", "a.mp4": b"0000ftyp", "b.txt": b"a prompt\n", "x.webm": WEBM})
    two = files(tmp_path / "two", {"b.mp4": b"0000ftyp2", "a.webm": WEBM + b"2", ".hidden": b""})
    typed = ["feedback", f"samples={one}", f"samples={two}", f"out={tmp_path / 'f'}"]
    cli.run(typed)
    assert "1 files are left out: the other folder has none of that name." in capsys.readouterr().out
    session = Session(tmp_path / "f")
    assert (session.kind, session.sources) == ("video", [str(one), str(two)])
    assert [item.prompt for item in session.items] == [None, "a prompt"]
    assert [[session.file(output) for output in item.outputs] for item in session.items] == [
        [b"0000ftyp", WEBM + b"2"],
        [WEBM + b"1", b"0000ftyp2"],
    ]
    session.judge(0, {"choice": "left", "seconds": 1})
    cli.run(typed)  # goes on
    assert len(Session(tmp_path / "f").judgments) == 1
    with pytest.raises(ConfigError, match="on something else: samples differ"):
        cli.run([*typed[:1], f"samples={two}", f"samples={one}", typed[-1]])
    session = Session(tmp_path / "f")
    while session.next:
        session.judge(len(session.judgments), {"choice": "left", "seconds": 1})
    cli.run(["feedback", f"report={tmp_path / 'f'}", f"export={tmp_path / 'x.jsonl'}"])
    for line in (tmp_path / "x.jsonl").read_text().splitlines():
        assert Path(json.loads(line)["chosen"]).read_bytes()[4:] in (b"ftyp", b"ftyp2", b"1", b"2")


def test_texts_and_pictures_are_rated(tmp_path: Path) -> None:
    texts = files(tmp_path / "texts", {"1.txt": "é".encode(), "2.txt": b"two", "notes.md": b""})
    (tmp_path / "p.txt").write_text("first\nsecond\n")
    typed = ["rate=true", f"prompts={tmp_path / 'p.txt'}", f"out={tmp_path / 'f'}"]
    cli.run(["feedback", f"samples={texts}", *typed])
    session = Session(tmp_path / "f")
    assert {(item.prompt, item.outputs[0].text) for item in session.items} == {("first", "é"), ("second", "two")}
    pictures = files(tmp_path / "pictures", {"1.JPEG": b"\xff\xd8\xff", "2.png": PNG})
    cli.run(["feedback", f"samples={pictures}", "rate=true", f"out={tmp_path / 'g'}", "n=1"])
    assert [item.outputs[0].suffix for item in Session(tmp_path / "g").items] == [".jpg"]


@pytest.mark.parametrize(
    ("one", "two", "told"),
    [
        ({"a.png": PNG}, {"b.png": PNG}, "no file of the same name. Give what answers one prompt one name"),
        ({"a.png": PNG}, {"a.webm": WEBM}, "holds images and .* videos: name two of a kind"),
        ({"a.png": PNG}, {"a.png": PNG}, "all 1 pairs of samples are equal"),
        ({"a.png": PNG}, {"a.png": b"<svg onload=alert(1)>"}, r"a\.png is not a png file\. Remove it"),
        (
            {"a.webm": WEBM},
            {"a.webm": b"0000ftyp"},
            r"not a webm file\. Remove it, or give it the suffix of what it is",
        ),
        ({"a.png": PNG, "b.webm": WEBM}, {}, "holds pictures and videos. Name a folder of"),
        ({"a.md": b""}, {}, r"holds no samples\. Name a folder of pictures"),
        ({"a.png": PNG, "a.jpg": b""}, {}, r"two samples of the name a\. Remove one"),
        ({"a.txt": b"\xff"}, {"a.txt": b""}, r"not UTF-8 text\. Save it as UTF-8"),
    ],
)
def test_folders_that_cannot_be_compared(
    one: dict[str, bytes], two: dict[str, bytes], told: str, tmp_path: Path
) -> None:
    typed = [f"samples={files(tmp_path / 'one', one)}", f"samples={files(tmp_path / 'two', two)}"]
    with pytest.raises((ConfigError, DataError), match=told):
        cli.run(["feedback", *typed, f"out={tmp_path / 'f'}"])


def test_a_prompt_for_each_sample(tmp_path: Path) -> None:
    texts = files(tmp_path / "texts", {"1.txt": b"one", "2.txt": b"two"})
    (tmp_path / "p.txt").write_text("first\n")
    typed = ["feedback", f"samples={texts}", "rate=true", f"out={tmp_path / 'f'}"]
    with pytest.raises(ConfigError, match="1 prompts for 2 samples: write one for each"):
        cli.run([*typed, f"prompts={tmp_path / 'p.txt'}"])
    cli.run(typed)  # into the same folder, in which nothing was begun
    with pytest.raises(ConfigError, match="cannot be read"):
        cli.run(["feedback", f"samples={tmp_path / 'nowhere'}", "rate=true", f"out={tmp_path / 'g'}"])


def test_preferences_are_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And exported as they were; which was chosen, the order of a folder does not say."""
    rows = [{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(40)]
    path = lines(tmp_path / "in.jsonl", *rows, "", rows[0] | {"tie": True}, rows[0] | {"rejected": "good 0"})
    cli.run(["feedback", f"import={path}", f"out={tmp_path / 'f'}"])
    told = capsys.readouterr().out
    assert "1 of 42 pairs are left out: chosen and rejected are equal." in told
    assert "judged: 41 of 41" in told
    assert "left won" not in told
    session = Session(tmp_path / "f")
    assert 8 < win_rate(session).part < 32
    assert session.next is None
    cli.run(["feedback", f"report={tmp_path / 'f'}", f"export={tmp_path / 'x.jsonl'}"])
    assert [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()] == rows
    cli.run(["feedback", f"import={path}", f"out={tmp_path / 'f'}"])  # is there
    lines(path, *rows[1:])
    with pytest.raises(ConfigError, match="on something else: content differ"):
        cli.run(["feedback", f"import={path}", f"out={tmp_path / 'f'}"])


def test_an_imported_judgment_is_taken_back_and_made_anew(tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"})
    cli.run(["feedback", f"import={path}", f"out={tmp_path / 'f'}"])
    session = Session(tmp_path / "f")
    before = session.judgments[0].winner
    assert session.judgments[0].seconds is None
    assert session.take_back(0)
    assert session.next is not None
    assert session.judge(0, {"choice": "tie", "seconds": 1.0})
    assert (before in (0, 1), Session(tmp_path / "f").judgments[0].winner) == (True, None)
    assert len((tmp_path / "f" / JUDGMENTS).read_text().splitlines()) == 3


def test_ratings_are_imported(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "completion": f"c{i}", "rating": 1 + i % 5} for i in range(7)]
    cli.run(["feedback", f"import={lines(tmp_path / 'in.jsonl', *rows)}", f"out={tmp_path / 'f'}"])
    session = Session(tmp_path / "f")
    assert ratings(session, 0) == [1, 2, 3, 4, 5, 1, 2]
    cli.run(["feedback", f"report={tmp_path / 'f'}", f"export={tmp_path / 'x.jsonl'}"])
    assert [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()] == rows


def test_messages_become_text(tmp_path: Path) -> None:
    user, good, bad = ({"role": role, "content": role} for role in ("user", "assistant", "other"))
    rows = [
        {"prompt": [user], "chosen": [good], "rejected": [bad]},
        {"chosen": [user, good], "rejected": [user, bad]},
        {"prompt": [user, good, user], "chosen": "a", "rejected": "b"},
    ]
    cli.run(["feedback", f"import={lines(tmp_path / 'in.jsonl', *rows)}", f"out={tmp_path / 'f'}"])
    items = Session(tmp_path / "f").items
    assert [item.prompt for item in items] == ["user", "user", "user: user\n\nassistant: assistant\n\nuser: user"]
    assert [{output.text for output in item.outputs} for item in items] == [{"assistant", "other"}] * 2 + [{"a", "b"}]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", "line 2: not a JSON object"),
        ("[]", "line 2: not a JSON object"),
        ("[" * 9000, "line 2: not a JSON object"),
        ({"prompt": "p", "chosen": "a"}, r"line 2: there is no rejected\. A row has prompt, chosen and rejected, or"),
        ({"prompt": "p", "rating": 3}, "line 2: there is no completion"),
        ({"completion": "c", "rating": 6}, r"line 2: rating is 6\. Write a whole number from 1 to 5"),
        ({"completion": "c", "rating": True}, "line 2: rating is True"),
        ({"completion": "c", "rating": 3}, "has pairs and ratings"),
        ({"chosen": "a", "rejected": "b", "tie": "yes"}, r"line 2: tie is 'yes'\. Write true or false"),
        ({"chosen": 3, "rejected": "b"}, "line 2: chosen is neither a text nor messages"),
        ({"chosen": [], "rejected": [{"role": "x"}]}, "line 2: chosen is neither"),
        ({"prompt": [1], "chosen": "a", "rejected": "b"}, "line 2: prompt is neither"),
    ],
)
def test_rows_that_are_no_judgments(row: Any, told: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"}, row)
    with pytest.raises(DataError, match=told):
        cli.run(["feedback", f"import={path}", f"out={tmp_path / 'f'}"])
    assert not (tmp_path / "f").exists()


def test_files_without_judgments(tmp_path: Path) -> None:
    for content, told in ((b"", "is empty"), (b"\xff", "not UTF-8"), (b'{"chosen": "a", "rejected": "a"}', "equal")):
        (tmp_path / "in.jsonl").write_bytes(content)
        with pytest.raises(DataError, match=told):
            cli.run(["feedback", f"import={tmp_path / 'in.jsonl'}", f"out={tmp_path / 'f'}"])
    with pytest.raises(DataError, match="cannot be read"):
        cli.run(["feedback", f"import={tmp_path}", f"out={tmp_path / 'f'}"])
