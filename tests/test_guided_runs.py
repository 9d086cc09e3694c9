"""Guidance of a trained run, as it is typed: parts from other runs, negative conditions, and what is refused."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.errors import GenlabError
from genlab.model.base import GenerativeModel
from genlab.run import run_folder
from genlab.run.load import load_run
from test_contract import Interrupted, state
from tiny_run import MLP, SignalAt, only_run, resume, same, small, train

SHORT = ("budget.value=16",)
CLASSIFIER = ("model=classifier", "data=digits", "model/noise=uniform")
NOISY = "model/guidance=classifier"


GIVEN = {
    "run": (*MLP, "budget.value=104", "model.optimizer.lr=0.03"),
    "weak": (*MLP, "seed=1", "model.network.width=4"),
    "noisy": small(*CLASSIFIER, "model.network.channels=8"),
    "clean": small("model=classifier", "data=digits", "model.network.channels=8"),
}


class Runs(dict[str, Path]):
    """Each trained when it is asked for: a run, a weaker one, and classifiers of noisy and of clean images."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __missing__(self, name: str) -> Path:
        self[name] = train(*SHORT, *GIVEN[name], outputs=self.folder / name)
        return self[name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


def drawn(run: Path, out: Path, *typed: str) -> Any:
    command_line(["sample", f"run={run}", f"out={out}", "n=3", *typed])
    return np.load(out)["images"]


def said(run: Path, *typed: str) -> str:
    """The one line of an error."""
    with pytest.raises(GenlabError) as refused:
        command_line(["sample", f"run={run}", "n=1", *typed])
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_run_is_guided_by_a_weaker_one_and_stays_as_it_is(runs: Runs, tmp_path: Path) -> None:
    run, out = runs["run"], tmp_path / "x.npz"
    before = (run / "config.yaml").read_bytes()
    usual = drawn(run, out)
    weak = ("model/guidance=autoguidance", f"model.guidance.weak={runs['weak']}", "model.guidance.strength=90")
    assert not np.array_equal(usual, drawn(run, out, *weak))
    assert np.array_equal(usual, drawn(run, out, *weak, "model.guidance.strength=1"))
    assert np.array_equal(usual, drawn(run, out))
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.matrix
def test_every_guidance_draws_other_samples(runs: Runs, tmp_path: Path) -> None:
    run, out = runs["run"], tmp_path / "x.npz"
    usual = drawn(run, out)
    ways = [
        (NOISY, f"model.guidance.classifier={runs['noisy']}", "model.guidance.strength=90"),
        ("model/guidance=score", "model.guidance.score._target_=genlab.rewards.pictures.Brightness",
         "model.guidance.strength=40"),
        ("model/guidance=score", "model.guidance.score._target_=genlab.rewards.label.LabelProbability",
         f"+model.guidance.score.model={runs['clean']}", "model.guidance.strength=90"),
        ("model/guidance=apg", "model.guidance.strength=900", "model.guidance.norm_threshold=0"),
        ("model/guidance=each", "model.guidance.strength={label:90}"),
        ("model.guidance=900", "negative_label=7"),
        ("model.guidance=900",),
    ]  # fmt: skip
    found = [drawn(run, out, *way) for way in ways]
    assert len({pictures.tobytes() for pictures in (usual, *found)}) == len(ways) + 1
    assert found[1].mean() > usual.mean(), "brighter, as the score asks"


@pytest.mark.matrix
def test_a_weak_model_of_a_run_is_a_file_beside_its_checkpoints(runs: Runs, tmp_path: Path) -> None:
    given = (*MLP, "model/guidance=autoguidance", f"model.guidance.weak={runs['weak']}", "budget.value=32")
    run = train(*given, outputs=tmp_path / "whole")
    assert [path.suffix for path in (run / "parts").iterdir()] == [".safetensors"]
    assert not any("weak" in name or "guidance" in name for name in state(run)["state_dict"])
    model, _ = load_run(DictConfig(run_folder.read_config(run)), run)
    assert isinstance(model, GenerativeModel)
    mine: Any = model
    theirs, _ = load_run(DictConfig(run_folder.read_config(runs["weak"])), runs["weak"])
    assert same(mine.guidance.weak.state_dict(), theirs.state_dict())
    model.sample(3, {"label": torch.arange(3)})
    assert model.evaluations == 2 * 3 * 2, "two networks, two steps"
    plain = train(*MLP, "budget.value=32", outputs=tmp_path / "plain")
    assert same(state(run)["state_dict"], state(plain)["state_dict"]), "guidance is of samples alone"


@pytest.mark.matrix
def test_a_noisy_classifier_goes_on_as_if_it_had_never_stopped(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(*small(*CLASSIFIER, "model.network.channels=8"), *SHORT, SignalAt.override(0), outputs=tmp_path)
    run = only_run(tmp_path)
    assert read.newest(run).progress.examples == 8
    resume(run)
    assert same(state(run)["state_dict"], state(runs["noisy"])["state_dict"])


def test_a_negative_label_needs_guidance(runs: Runs) -> None:
    run = runs["run"]
    away = said(run, "negative_label=3")
    assert "NoGuidance leads away from no condition. Use model/guidance=classifier_free" in away
    assert "negative_label=11: it must be a class from 0 to 9" in said(run, "model.guidance=2", "negative_label=11")


@pytest.mark.matrix
def test_what_does_not_fit_is_refused_with_what_does(runs: Runs) -> None:
    run = runs["run"]
    by_weak = "model/guidance=autoguidance"
    assert "model.guidance.weak has no value" in said(run, by_weak)
    of_classifier = said(run, by_weak, f"model.guidance.weak={runs['clean']}")
    assert "is not a diffusion model. Name a run of model=diffusion." in of_classifier
    of_clean = said(run, NOISY, f"model.guidance.classifier={runs['clean']}")
    assert "Name a run of model=classifier model/noise=uniform." in of_clean
    of_diffusion = said(run, NOISY, f"model.guidance.classifier={runs['weak']}")
    assert "is not a classifier. Name a run of model=classifier model/noise=uniform." in of_diffusion
    assert "a MLP has none. Use model/guidance=classifier_free" in said(run, "model/guidance=perturbed_attention")
    assert "takes no prompt. It takes negative_label=..." in said(run, "model.guidance=2", "negative=a dog")
    assert "negative_label must be one class" in said(run, "model.guidance=2", "negative_label=[1,2]")


OF_DENOISERS = {
    "autoguidance": "model.guidance.weak=outputs",
    "apg": "model.guidance.eta=1",
    "perturbed_attention": "model.guidance.layers=[0]",
    "classifier": "model.guidance.classifier=outputs",
    "score": "model.guidance.score._target_=genlab.rewards.pictures.Brightness",
    "each": "model.guidance.strength=2",
    "interval": "model.guidance.low=1",
}


@pytest.mark.parametrize(("option", "family"), [
    pytest.param(option, family, marks=[] if (option, family) == ("apg", "masked") else [pytest.mark.matrix])
    for option, family in itertools.product(OF_DENOISERS, ("transformer", "masked", "flow"))
])  # fmt: skip
def test_tokens_and_flows_take_no_guidance_of_denoisers(option: str, family: str, runs: Runs) -> None:
    value = OF_DENOISERS[option].replace("=outputs", f"={runs[{'classifier': 'noisy'}.get(option, 'weak')]}")
    with pytest.raises(GenlabError) as refused:
        command_line(["train", f"model={family}", f"model/guidance={option}", value, "logger=[none]"])
    assert "no noise levels and no denoiser" in str(refused.value)
    assert "\n" not in str(refused.value)
