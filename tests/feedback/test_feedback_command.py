"""The command: samples of runs are drawn once, and a folder is continued."""

import json
from pathlib import Path

import pytest

from chats import SMALL, chats
from genlab import cli
from genlab.data.base import Split
from genlab.data.image_preferences import ImagePreferences
from genlab.errors import ConfigError
from genlab.feedback.begin import Column, arranged
from genlab.feedback.server import Page
from genlab.feedback.session import ITEMS, Output, Session
from tiny_run import BARE, MLP, train


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Page, "serve_forever", stop)


def test_answers_of_a_run_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("model=transformer", *chats(tmp_path), *SMALL, "metrics=[]", outputs=tmp_path / "outputs")
    (tmp_path / "p.txt").write_text("3?\n4?\n")
    typed = ["feedback", f"prompts={tmp_path / 'p.txt'}", "n=3", f"out={tmp_path / 'f'}", "model.sample_length=9"]
    cli.run([*typed, f"run={run}"])
    assert "open http://127.0.0.1:" in capsys.readouterr().out
    session = Session(tmp_path / "f")
    assert [item.prompt for item in session.items] == ["3?", "4?", "3?"]
    assert len({output.text for item in session.items for output in item.outputs}) == 6
    before = (tmp_path / "f" / ITEMS).stat().st_mtime_ns
    cli.run([*typed, f"run={run}"])
    cli.run(["feedback", f"out={tmp_path / 'f'}"])
    assert (tmp_path / "f" / ITEMS).stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="on something else: seed differ"):
        cli.run([*typed, f"run={run}", "seed=1"])
    cli.run([*typed, f"run={run}", f"out={tmp_path / 'rated'}", "rate=true"])
    rated = [json.loads(line)["outputs"] for line in (tmp_path / "rated" / ITEMS).read_text().splitlines()]
    assert sorted(one["number"] for (one,) in rated) == [0, 1, 2]


def test_labels_are_exported_and_read(tmp_path: Path) -> None:
    """Those that both pictures of a pair were drawn for; a folder from before there were any opens too."""
    run = train("model=diffusion", *BARE, *MLP, outputs=tmp_path / "outputs")
    folder, file = tmp_path / "f", tmp_path / "pairs.jsonl"
    cli.run(["feedback", f"run={run}", "n=24", f"out={folder}", "batch_size=9"])
    session = Session(folder)
    assert [item.classes for item in session.items] == [{"label": i % 10} for i in range(24)]
    assert {item.prompt for item in session.items} == {None}
    while session.next:
        assert session.judge(len(session.judgments), {"choice": "left", "seconds": 1.0, "remark": ""})
    cli.run(["feedback", f"report={folder}", f"export={file}"])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    drawn = {str((folder / f"pictures-{s}" / f"{i:06d}.png").resolve()): i % 10 for s in (0, 1) for i in range(24)}
    assert all(row["label"] == drawn[row["chosen"]] == drawn[row["rejected"]] for row in rows)
    assert len({row["label"] for row in rows}) == 10
    data = ImagePreferences(str(file), str(folder), channels=1, num_classes=10, cache_dir=str(tmp_path / "cache"))
    found = [int(x) for split in ("train", "val") for x in data.dataset(split)[keys(data, split)]["label"]]
    assert sorted(found) == sorted(row["label"] for row in rows)
    lines = [json.loads(line) for line in (folder / ITEMS).read_text().splitlines()]
    before = [{name: value for name, value in line.items() if name != "classes"} for line in lines]
    (folder / ITEMS).write_text("".join(json.dumps(line) + "\n" for line in before))
    cli.run(["feedback", f"report={folder}", f"export={file}"])
    without = [json.loads(line) for line in file.read_text().splitlines()]
    assert without == [{name: value for name, value in row.items() if name != "label"} for row in rows]


def keys(data: ImagePreferences, split: Split) -> list[tuple[int, int]]:
    return [(0, i) for i in range(len(data.dataset(split)))]


def test_a_pair_of_two_classes_has_none(tmp_path: Path) -> None:
    """Runs may know other classes. What is rated has its own."""
    of_each = [[{"label": 0}, {"label": 1}, {"label": 2}, {}], [{"label": 0}, {"label": 1}, {"label": 0}, {"label": 1}]]
    columns = [
        Column([Output(source, i, f"{source} {i}") for i in range(4)], [None] * 4, classes)
        for source, classes in enumerate(of_each)
    ]
    shared = [{"label": 0}, {"label": 1}, {}, {}]
    assert [item.classes for item in arranged(columns, False, 0, tmp_path)] == shared
    for item in arranged(columns, True, 0, tmp_path):
        (output,) = item.outputs
        assert item.classes == of_each[output.source][output.number]


@pytest.mark.matrix
def test_pictures_of_two_runs_are_compared(tmp_path: Path) -> None:
    runs = [train("model=diffusion", *BARE, *MLP, f"seed={seed}", outputs=tmp_path / "outputs") for seed in (0, 1)]
    cli.run(["feedback", *(f"run={run}" for run in runs), "n=5", f"out={tmp_path / 'f'}", "batch_size=2"])
    session = Session(tmp_path / "f")
    assert session.kind == "image"
    assert session.sources == [str(run) for run in runs]
    assert {session.file(output)[:4] for item in session.items for output in item.outputs} == {b"\x89PNG"}
