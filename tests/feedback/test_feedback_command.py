"""The command: samples of runs are drawn once, and a folder is continued."""

import json
from pathlib import Path

import pytest

from chats import SMALL, chats
from genlab import cli
from genlab.errors import ConfigError
from genlab.feedback.server import Page
from genlab.feedback.session import ITEMS, Session
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


@pytest.mark.matrix
def test_pictures_of_two_runs_are_compared(tmp_path: Path) -> None:
    runs = [train("model=diffusion", *BARE, *MLP, f"seed={seed}", outputs=tmp_path / "outputs") for seed in (0, 1)]
    cli.run(["feedback", *(f"run={run}" for run in runs), "n=5", f"out={tmp_path / 'f'}", "batch_size=2"])
    session = Session(tmp_path / "f")
    assert session.kind == "image"
    assert session.sources == [str(run) for run in runs]
    assert {session.file(output)[:4] for item in session.items for output in item.outputs} == {b"\x89PNG"}
