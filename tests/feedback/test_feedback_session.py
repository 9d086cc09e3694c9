"""Folders of feedback: their order, what judgments say, what is exported, and damaged ones."""

import json
import random
from pathlib import Path

import pytest
from scipy.stats import binomtest

from feedback.folders import folder
from genlab import cli
from genlab.errors import ConfigError, DataError, StorageError
from genlab.feedback.asked import read_prompts
from genlab.feedback.preferences import export
from genlab.feedback.session import (
    ITEMS,
    JUDGMENTS,
    SESSION,
    Item,
    Output,
    Session,
    check_asked,
    drop_torn_line,
    is_begun,
    lock,
    order,
)
from genlab.feedback.statistics import Share, left_share, lines, self_agreement, win_rate

TEXTS = [(f"one {i}", f"other {i}") for i in range(100)]


def judged(path: Path, choose: object, remark: str = "") -> Session:
    """``choose(showing, item)``: left, right or tie."""
    session = Session(path)
    while showing := session.next:
        answer = {"choice": choose(showing), "seconds": 2.0, "remark": remark}  # type: ignore[operator]
        assert session.judge(len(session.judgments), answer)
    return Session(path)


def test_a_tenth_comes_again_later_with_sides_swapped() -> None:
    items = [Item(None, (Output(0, i, "a"), Output(1, i, "b"))) for i in range(100)]
    shown = order(items, 0)
    places = {one.item: place for place, one in enumerate(shown) if not one.again}
    again = [(place, one) for place, one in enumerate(shown) if one.again]
    assert (len(places), len(again)) == (100, 10)
    for place, one in again:
        assert place - places[one.item] > 5
        assert one.sides == shown[places[one.item]].sides[::-1]
    assert shown == order(items, 0) != order(items, 1)
    swapped = sum(one.sides == (1, 0) for one in shown if not one.again)
    assert binomtest(swapped, 100).pvalue > 0.001
    assert [one.item for one in order(items[:1], 0)] == [0]
    assert [one.item for one in order(items[:2], 0)] == [0, 1, 0] or len(order(items[:2], 0)) == 3
    sides = {one.item: one.sides for one in order(items[:50], 0) if not one.again}
    assert all(shown[places[i]].sides == side for i, side in sides.items())  # of (seed, item), for any number


@pytest.mark.parametrize(("part", "count"), [(0, 10), (10, 10), (3, 17), (50, 100)])
def test_intervals_are_wilsons(part: int, count: int) -> None:
    found = binomtest(part, count).proportion_ci(method="wilson")
    assert Share(part, count).interval == pytest.approx((found.low, found.high), abs=1e-12)


def test_who_always_takes_the_left_agrees_with_nothing(tmp_path: Path) -> None:
    session = judged(folder(tmp_path / "f", TEXTS), lambda _: "left")
    assert left_share(session) == Share(100, 100)
    assert self_agreement(session) == Share(0, 10)
    won = sum(session.showings[i].sides[0] == 0 for i in range(len(session.showings)) if not session.showings[i].again)
    assert win_rate(session) == Share(float(won), 100)


def test_who_knows_a_run_by_its_text_gives_it_all(tmp_path: Path) -> None:
    session = judged(folder(tmp_path / "f", TEXTS), lambda showing: ("left", "right")[showing.sides.index(0)])
    assert win_rate(session) == Share(100.0, 100)
    assert self_agreement(session) == Share(10, 10)
    assert 0.3 < left_share(session).mean < 0.7
    report = "\n".join(lines(session))
    assert "win rate of outputs/a over outputs/b: 100.0% of 100 (95 %: 96.3% to 100.0%), 0 tied" in report
    assert "seconds per judgment: median 2.0, mean 2.0" in report


def test_ties_count_half(tmp_path: Path) -> None:
    session = judged(folder(tmp_path / "f", TEXTS[:20]), lambda _: "tie")
    assert win_rate(session) == Share(10.0, 20)
    assert left_share(session).count == 0
    assert self_agreement(session) == Share(2, 2)
    assert lines(session)


def test_preferences_are_exported(tmp_path: Path) -> None:
    """Without ties, and without pairs that were judged otherwise when they came again."""
    path, draw = folder(tmp_path / "f", TEXTS), random.Random(0)
    session = judged(path, lambda _: draw.choice(["left", "right", "tie"]))
    kept, ties, unsure = export(session, tmp_path / "x.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert kept == len(rows)
    assert kept + ties + unsure == 100
    assert min(kept, ties, unsure) > 0
    winners = {j.showing.item: j.winner for j in session.judgments if not j.showing.again}
    for row in rows:
        i = int(row["prompt"].removeprefix("prompt "))
        assert (row["chosen"], row["rejected"]) == (TEXTS[i] if winners[i] == 0 else TEXTS[i][::-1])


def test_a_report_reads_files_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder(tmp_path / "f", TEXTS[:5])
    cli.run(["feedback", f"report={path}"])
    assert capsys.readouterr().out == "judged: 0 of 6\n"
    judged(path, lambda _: "left")
    cli.run(["feedback", f"report={path}", f"export={tmp_path / 'x.jsonl'}"])
    assert f"rows: {tmp_path / 'x.jsonl'}; left out: 0 ties, 1 judged otherwise" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"Use export=(\S+\.jsonl)$"):
        cli.run(["feedback", f"report={path}", "export=x.txt"])


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    path = folder(tmp_path / "f", TEXTS[:9])
    judged(path, lambda _: "left", remark="é" * 100)
    whole = (path / JUDGMENTS).read_bytes()
    for length in (*range(len(whole) - 200, len(whole), 49), 5, 0):
        (path / JUDGMENTS).write_bytes(whole[:length])
        kept = whole[:length].count(b"\n")
        assert len(Session(path).judgments) == kept  # of a folder that is shown, or was
        assert (path / JUDGMENTS).stat().st_size == length
        drop_torn_line(path)
        assert (path / JUDGMENTS).read_bytes() == b"".join(whole.splitlines(keepends=True)[:kept])


def damage(path: Path, name: str, old: str, new: str) -> None:
    text = (path / name).read_text()
    assert old in text
    (path / name).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (JUDGMENTS, '"choice": "left"', '"choice": "up"'),
        (JUDGMENTS, '"item": 0', '"item": 3'),
        (JUDGMENTS, "outputs/a", "outputs/c"),
        (JUDGMENTS, "{", "["),
        (JUDGMENTS, '"showing": 3', '"takes_back": 1, "showing": 3'),
        (JUDGMENTS, '"showing": 0', '"takes_back": -1, "showing": 0'),
        (JUDGMENTS, '"seconds": 2.0', '"seconds": NaN'),
        (ITEMS, '"source": 0', '"source": 7'),
        (ITEMS, '"number": 0', '"number": "../x"'),
        (ITEMS, '"outputs"', '"classes": {"label": -1}, "outputs"'),
        (ITEMS, '"outputs"', '"classes": {"label": true}, "outputs"'),
        (ITEMS, '"outputs"', '"classes": 3, "outputs"'),
        (ITEMS, '"text": "one 0"', '"text": 3'),
        (ITEMS, '"text": "one 0"', '"suffix": ".svg"'),
        (ITEMS, '"text": "one 0"', '"suffix": []'),
        (SESSION, '"text"', '"sound"'),
        (SESSION, '"seed": 0', '"seed": "x"'),
        (SESSION, "{", "[" * 9000),
    ],
)
def test_damaged_files_are_named(name: str, old: str, new: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "f", TEXTS[:5])
    judged(path, lambda _: "left")
    damage(path, name, old, new)
    with pytest.raises(DataError, match=rf"{name}.*(Put|judge in a new folder)"):
        Session(path)


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no feedback here"):
        cli.run(["feedback", f"report={tmp_path}"])
    with pytest.raises(ConfigError, match="there is no feedback here"):
        cli.run(["feedback", f"out={tmp_path}"])
    assert not is_begun(tmp_path)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ConfigError, match=r"the folder holds mine\.txt, and no feedback\. Name a new one\."):
        is_begun(tmp_path)
    path = folder(tmp_path / "f", TEXTS[:5])
    assert is_begun(path)
    check_asked(path, {})
    with pytest.raises(ConfigError, match="holds feedback on something else: runs, seed differ"):
        check_asked(path, {"runs": ["other"], "seed": 1})


def test_one_process_at_a_time_shows_a_folder(tmp_path: Path) -> None:
    held = lock(tmp_path)
    with pytest.raises(StorageError, match="another process shows the page"):
        lock(tmp_path)
    held.release()
    lock(tmp_path).release()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("", r"out has no value\. Set it: out=feedback/first"),
        ("out=x report=y", "leave out= out"),
        ("out=x export=y.jsonl", "goes with report=<folder>"),
        ("out=x n=3", r"n=3 goes with run="),
        ("out=x port=70000", "port must be a whole number from 0 to 65535"),
        ("out=x rate=1", "rate must be true or false"),
        ("out=x model=gan", "unknown option 'model'"),
        ("out=x run=[a,b,c]", r"3 runs: at most two are compared\. Leave out run=c"),
        ("out=x run=a run=b run=c", "3 runs"),
        ("out=x run=nowhere", "there is no run here"),
        ("out=x run=a samples=b", "run= and samples= are two sources of what is judged: leave one out"),
        ("out=x samples=a import=b", "samples= and import= are two sources"),
        ("out=x samples=a", r"samples=a is one folder: name a second one, samples=\.\.\., or rate it by rate=true"),
        ("out=x samples=a samples=b samples=c", r"3 folders: at most two are compared\. Leave out samples=c"),
        ("out=x import=a.jsonl n=3", "n=3 goes with run="),
        ("import=a.jsonl", "out has no value"),
        ("report=x samples=a", "leave samples= out"),
    ],
)
def test_what_does_not_go_together(typed: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        cli.run(["feedback", *typed.split()])


def test_prompts_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffone\n\ntwo\r\n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "a\\nb", "x": 1}\n')
    assert read_prompts(tmp_path / "a.txt") == ["one", "two"]
    assert read_prompts(tmp_path / "a.jsonl") == ["a\nb"]
    for name, content, told in (
        ("b.txt", b"\n", "is empty"),
        ("b.txt", b"\xff", "is not UTF-8"),
        ("b.jsonl", b'{"text": "a"}', "line 1: not a row like"),
        ("b.jsonl", b'\n{"prompt": 3}', "line 2: not a row like"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=told):
            read_prompts(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(tmp_path)
