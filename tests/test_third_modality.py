"""Signals, which genlab has never heard of: a datamodule, a task, a network and YAML in a project of one's own."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from genlab import cli
from genlab.errors import ConfigError
from genlab.trust import places

PROJECT = Path(__file__).parent / "signal_project"
TRAIN = ("data=waves", "model=diffusion", "model/network=wave_net", "model/optimizer=adamw", "trainer=cpu",
         "logger=[none]", "budget=examples", "model.sampler.num_steps=20")  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, as its owner would have it."""
    return Path(shutil.copytree(PROJECT, tmp_path_factory.mktemp("signals") / "my"))


@pytest.fixture(scope="module")
def run(project: Path) -> Path:
    folder = project / "outputs" / "first"
    genlab(
        "train",
        project,
        *TRAIN,
        "model.network.width=128",
        "budget.value=40_000",
        "callbacks.evaluation.times=1",
        f"folder={folder}",
    )
    return folder


def genlab(command: str, project: Path, *arguments: str) -> None:
    typed = ["--config-dir", str(project / "configs")]
    patch = pytest.MonkeyPatch()
    with patch.context() as here:
        here.setattr(places, "_typed", [])
        here.setattr(sys, "path", list(sys.path))
        here.setattr(sys, "argv", ["genlab", command, *typed, *arguments])
        here.chdir(project)
        sys.modules.pop("waves", None)
        cli.run([command, *typed, *arguments])


def test_signals_are_learned(run: Path) -> None:
    """The power at each frequency is nearer to the data's than that of noise, by far."""
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metrics"]["spectrum_200"] < 0.3, summary["metrics"]


def test_they_are_sampled_and_measured(run: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genlab("sample", project, f"run={run}", "n=20")
    drawn = np.load(run / "samples" / "seed=0-n=20.npy")
    assert drawn.shape == (20, 1, 16)
    assert abs(drawn).max() < 2
    genlab("evaluate", project, f"run={run}", "baselines=true")
    table = capsys.readouterr().out
    (written,) = run.glob("evaluation-*.json")
    report = json.loads(written.read_text())
    assert "spectrum_200" in table
    assert report["baselines"]["floor"]["spectrum_200"] < 0.01 < 0.5 < report["baselines"]["noise"]["spectrum_200"]


def test_a_resume_ends_where_one_run_does(project: Path) -> None:
    import torch

    for name, budgets in (("whole", ["256"]), ("halves", ["128", "256"])):
        folder = project / "outputs" / name
        for i, budget in enumerate(budgets):
            where = f"run={folder}" if i else f"folder={folder}"
            typed = () if i else (*TRAIN, "model/schedule=constant")
            genlab("train", project, *typed, where, f"budget.value={budget}", *(() if i else ("metrics=[]",)))
    states = [
        torch.load(max((project / "outputs" / name / "checkpoints").glob("*.ckpt")), weights_only=True)["state_dict"]
        for name in ("whole", "halves")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_what_is_for_images_is_refused(project: Path) -> None:
    for overrides, said in (
        (("metrics=[fid]",), r"metrics=fid needs features of signals, and none are chosen. Use metrics=\[spectrum\]"),
        (("metrics=[sharpness]",), r"metrics=sharpness is for images; the data are signal. Use metrics=\[spectrum\]"),
        (("task=generate",), "task=generate is for images; the data are signal"),
        (("model=transformer",), r"data of shape \(1, 16\) are neither text nor images \(C, H, W\)"),
    ):
        typed = [word for word in TRAIN if not (overrides[0].startswith("model=") and word.startswith("model"))]
        with pytest.raises(ConfigError, match=said):
            genlab("train", project, *typed, *overrides, "dry_run=true")
