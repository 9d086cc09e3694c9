"""`genlab compare` from the command line: files alone, at once; a mistake is one line."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image
from run_folders import make_run, write

from genlab import cli

REPOSITORY = Path(__file__).parents[2]
DIT = {"_target_": "genlab.model.network.dit.DiT", "depth": 6}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # cli.main sets it: put it back afterwards
    monkeypatch.setenv("COLUMNS", "1000")  # a narrow terminal shows a table in parts


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, exit_code: int = 2) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", *arguments])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (exit_code, "")
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("error: ").removesuffix("\n")


def test_from_folders_to_files_without_torch(tmp_path: Path) -> None:
    for i in range(20):
        make_run(tmp_path / "outputs" / "diffusion-digits" / f"run-{i:02}", data__batch_size=i + 1, color="blue")
    make_run(tmp_path / "outputs" / "deep" / "down" / "x", {"fid_digits64_1k": 0.5}, model__network=DIT)
    # what W&B leaves inside of a run, and hidden folders, are no runs
    write(tmp_path / "outputs" / "deep" / "down" / "x" / "wandb" / "files" / "config.yaml", "wandb_version: 1")
    write(tmp_path / "outputs" / ".hydra" / "config.yaml", "a: 1")
    code = "import sys; from genlab.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", f"runs={tmp_path / 'outputs'}", "plots=false"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *shown, modules = done.stdout.splitlines()
    assert not {"torch", "pytorch_lightning", "wandb", "numpy"} & set(modules.split())
    names = [line.partition("  ")[0] for line in shown if line.startswith("diffusion")]
    assert len(names) == len(set(names)) == 21
    assert names[0] == "diffusion network=dit batch_size=64"
    (folder,) = (tmp_path / "outputs").glob("comparison-*")
    assert shown[-2:] == [
        f"written: {folder}/comparison.md, comparison.csv, comparison.tex, comparison.png",
        f"the page: {folder}/report.html",
    ]
    with Image.open(folder / "comparison.png") as picture:
        assert picture.height > 6 * 256  # 21 tiles, four across


def test_a_copied_run_compares_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "here" / "a", run_dir="/scratch/cluster/a", outputs="/scratch/cluster")
    cli.main(["compare", f"runs=[{tmp_path}/here/a,{tmp_path}/here]", f"out={tmp_path}/c"])  # a is one run, named twice
    assert capsys.readouterr().out.count("\ndiffusion  ") == 1


TAKES = "compare takes: runs, out, sort, protocol, allow_unequal, plots, transfer, wandb."
MISTAKES = [
    ("", "runs has no value. Set it: runs=outputs/<model>-<data>"),
    ("runs=null", "runs has no value. Set it: runs=outputs/<model>-<data>"),
    ("runs=/no/such", "runs=/no/such: there is no such folder."),
    ("runs={tmp}/empty", "runs={tmp}/empty: there is no run here (no config.yaml, at any depth)."),
    ("runs=[{tmp}/good,{tmp}/empty]", "runs={tmp}/empty: there is no run here (no config.yaml, at any depth)."),
    ("runs=[]", "runs=[] names no folder. Set it: runs=outputs/<model>-<data>"),
    ("runs=a,b", "runs=a,b: put several folders into brackets, 'runs=[a,b]'."),
    ("runs={tmp}/good srot=fid",
     "unknown option 'srot'. Did you mean 'sort'? {takes}"),
    ("runs={tmp}/good model.guidance=2",
     "unknown option 'model.guidance'. {takes}"),
    ("runs={tmp}/good --cfg job", "unknown option '--cfg'. {takes}"),
    ("runs={tmp}/good allow_unequal=1", "allow_unequal must be true or false, got 1."),
    ("runs={tmp}/other", "{tmp}/other: its config.yaml is not a run's (it lacks the model or the data)."),
    ("runs={tmp}/list", "cannot read {tmp}/list/config.yaml (it holds no names and values)."),
    ("runs={tmp}/half", "cannot read {tmp}/half/summary.json (Expecting value: line 1 column 13 (char 12))."),
    ("runs={tmp}/text", "{tmp}/text/summary.json: fid_digits64_1k is not a number."),
    ("runs={tmp}/bare", "{tmp}/bare/evaluation-a.json: not what genlab writes (no protocol in it, or a damaged one)."),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "line"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_a_mistake_is_one_line(typed: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "good")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "other" / "config.yaml", "wandb_version: 1")
    write(tmp_path / "list" / "config.yaml", "[1, 2]")
    write(make_run(tmp_path / "half") / "summary.json", '{"metrics": ')
    make_run(tmp_path / "text", {"fid_digits64_1k": "1.2"})  # type: ignore[dict-item]
    write(make_run(tmp_path / "bare") / "evaluation-a.json", '{"metrics": {}}')
    before = sorted(tmp_path.rglob("*"))
    assert refusal(capsys, *typed.format(tmp=tmp_path).split()) == line.format(tmp=tmp_path, takes=TAKES)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "a")
    write(tmp_path / "file", "")
    said = refusal(capsys, f"runs={run}", f"out={tmp_path}/file", exit_code=4)
    assert said == f"cannot write to {tmp_path}/file (file exists). Choose another place: out=<folder>"
    cli.main(["compare", f"runs={run}", f"out={tmp_path}/elsewhere", "plots=false"])
    assert (tmp_path / "elsewhere" / "report.html").exists()


def test_help_names_the_options_and_no_parts(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["compare", "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: genlab compare [name=value ...]\n")
    for name in cli.OPTIONS["compare"]:
        assert f"\n  {name}=" in shown
    assert "model/network" not in shown
