"""A project outside of genlab, as docs/architecture.md shows it: a run holds the name of its class, never code."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from genlab import cli
from genlab.config.build import resolve
from genlab.errors import ConfigError
from genlab.trust import places
from tiny_run import BARE, REPOSITORY

SECTION = "## A project of your own\n"
EVIL = """from pathlib import Path
Path("acted").touch()
class Evil: ...
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the documentation shows, in ``my``; the user has confirmed nothing."""
    text = (REPOSITORY / "docs/architecture.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    shown = re.findall(r"```\w+\n# (\S+)\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in shown] == ["my/mynet.py", "my/configs/model/network/mynet.yaml"]
    for name, content in shown:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(places, "_typed", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["genlab"])
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my"


def fresh(arguments: tuple[str, ...]) -> None:
    """This process as one that was just started, with that command, in the current folder."""
    places._typed.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mynet", "evil", "outputs")]:
        del sys.modules[name]
    sys.path[:] = ["", *(path for path in sys.path if path and "mynet.py" not in _names(path))]
    sys.argv[1:] = arguments
    importlib.invalidate_caches()


def genlab(*arguments: str) -> None:
    fresh(arguments)
    cli.run(list(arguments))


def _names(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()] if Path(folder).is_dir() else []


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    fresh(arguments)
    with pytest.raises(SystemExit) as left:
        cli.main(list(arguments))
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_project_outside_of_genlab(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ("--config-dir", "my/configs")
    genlab(
        "train",
        *typed,
        "model/network=mynet",
        *BARE,
        "model.sampler.num_steps=2",
        "budget.value=16",
        "folder=my/outputs/first",
    )
    assert f"genlab sample {' '.join(typed)} run=my/outputs/first" in capsys.readouterr().out
    run = project / "outputs/first"
    genlab("sample", *typed, f"run={run}", "n=2", f"out={tmp_path / 'typed'}")

    untyped = ("sample", f"run={run}", "n=2", f"out={tmp_path / 'untyped'}")
    remedy = (" If it is your own project: type --config-dir <project>/configs, or write the project's folder into "
              f"{tmp_path / 'xdg/genlab/trusted'}.")  # fmt: skip
    assert refused(capsys, *untyped) == (
        f"error: model.network._target_: there is no 'mynet.MyNet' (No module named 'mynet').{remedy}")  # fmt: skip
    monkeypatch.chdir(project)  # that it can be found there makes it no place
    assert refused(capsys, *untyped) == (
        f"error: model.network._target_: 'mynet' is {project / 'mynet.py'}, which is not in a place that classes may "
        f"come from.{remedy}")  # fmt: skip
    assert not (tmp_path / "untyped").exists()

    moved = project.rename(tmp_path / "moved")  # the run holds the name alone
    monkeypatch.chdir(tmp_path)
    (tmp_path / "xdg/genlab").mkdir(parents=True, exist_ok=True)
    (tmp_path / "xdg/genlab/trusted").write_text(f"# mine\n{moved}\n")
    genlab("sample", f"run={moved / 'outputs/first'}", "n=2", f"out={tmp_path / 'confirmed'}")
    for name in ("typed", "confirmed"):
        assert len(list((tmp_path / name).iterdir())) == 2
    for one, other in zip(*(sorted((tmp_path / name).iterdir()) for name in ("typed", "confirmed")), strict=True):
        assert one.read_bytes() == other.read_bytes()

    # Code that is in the folder of a run is not imported, not even from within a place.
    run = moved / "outputs/first"
    (run / "evil.py").write_text(EVIL)
    config = (run / "config.yaml").read_text()

    def names(target: str, *arguments: str) -> str:
        (run / "config.yaml").write_text(config.replace("mynet.MyNet", target))
        return refused(capsys, "sample", *arguments, f"run={run}", "n=2", f"out={tmp_path / 'never'}")

    monkeypatch.chdir(run)
    assert "which is not in a place that classes may come from." in names("evil.Evil")
    monkeypatch.chdir(moved)
    typed = ("--config-dir", "configs")
    assert "'outputs' is a folder without an __init__.py" in names("outputs.first.evil.Evil", *typed)
    for folder in (run, run.parent):
        (folder / "__init__.py").write_text(EVIL if folder == run else "")
    assert "is in the folder of a run, where no code is trusted." in names("outputs.first.evil.Evil", *typed)
    assert not list(tmp_path.rglob("acted"))
    assert not (tmp_path / "never").exists()


def test_the_current_folder_hides_no_package(tmp_path: Path) -> None:
    """``python -m`` puts the current folder first, where a run of somebody else's may lie."""
    for name in ("hydra", "omegaconf", "yaml"):
        (tmp_path / f"{name}.py").write_text(EVIL)
    command = [sys.executable, "-m", "genlab.cli", "train", "nope=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr[:29]) == (2, "error: unknown option 'nope'.")
    assert not (tmp_path / "acted").exists()


@pytest.mark.parametrize("beside", ["overrides.yaml", "command.txt"])
def test_a_run_in_a_place_holds_no_code(beside: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not behind a link either, and whichever of its files are there."""
    run = project.parent / "elsewhere"
    run.mkdir()
    for name in ("config.yaml", beside):
        (run / name).touch()
    (run / "__init__.py").write_text(EVIL)
    (project / "stranger").symlink_to(run)
    places.add(project.resolve())
    with pytest.raises(ConfigError, match="is in the folder of a run"):
        resolve("stranger.Evil", "model")
    assert not Path("acted").exists()
