"""Commands that genlab suggests are written the way it was started, so that they work where they are shown."""

from pathlib import Path

import pytest

from genlab import cli, started_as
from tiny_run import REPOSITORY


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("/usr/bin/genlab", "genlab sample"),
        (".venv/lib/genlab/cli.py", "genlab sample"),  # python -m genlab.cli
        ("train.py", "python scripts/sample.py"),
        ("scripts/evaluate.py", "python scripts/sample.py"),
        (str(REPOSITORY / "train.py"), f"python {REPOSITORY}/scripts/sample.py"),
        ("elsewhere/train.py", "genlab sample"),  # a script of the user's own
    ],
)
def test_a_command_is_the_one_that_was_started(typed: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("sys.argv", [typed])
    assert started_as.command("sample") == said


def test_a_clone_elsewhere_is_named_by_the_way_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a clone" / "scripts").mkdir(parents=True)
    (tmp_path / "a clone" / "scripts" / "sample.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["a clone/scripts/plan.py"])
    assert started_as.command("train -m") == "python 'a clone/train.py' -m"


@pytest.mark.parametrize("arguments", [["sample", "--help"], ["train", "-m", "--help"], ["--help"]])
def test_help_names_the_command_that_was_started(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("sys.argv", ["/usr/bin/genlab", *arguments])
    cli.main(arguments)
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("usage: genlab " + ("" if arguments == ["--help"] else arguments[0]))
