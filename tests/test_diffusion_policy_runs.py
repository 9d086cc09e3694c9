"""Runs of diffusion policies: rewards of a classifier that was trained, the same steps on two devices, refusals."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.errors import ConfigError, GenlabError
from genlab.model.diffusion_policy import DiffusionPolicy
from genlab.run import run_folder
from genlab.run.load import load_run
from test_contract import state
from test_ddp import finish
from tiny_run import only_run, resume, same, small, start, train

MLP = ("model/network=mlp", "model.network.width=8", "model.network.depth=1")
DIGITS = ("data=digits", *MLP)
REWARDS = ("model/rewards=[label,second_label,jpeg_size]", "model.sampler.num_steps=3", "model.minibatches=2")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*small("model=diffusion", *DIGITS), outputs=tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The overrides that name two of them, of different seeds."""
    folder = tmp_path_factory.mktemp("classifiers")
    given = small("model=classifier", "data=digits", "model.network.channels=8")
    runs = [train(*given, f"seed={seed}", outputs=folder / str(seed)) for seed in (0, 1)]
    return tuple(f"model.rewards.{name}.model={run}" for name, run in zip(("label", "second_label"), runs, strict=True))


@pytest.fixture(scope="module")
def overrides(base: Path, classifiers: tuple[str, ...]) -> tuple[str, ...]:
    return (
        *small("model=diffusion_policy", *DIGITS, f"start={base}", *REWARDS, *classifiers),
        "callbacks.samples.times=0",
    )


@pytest.fixture(scope="module")
def run(overrides: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*overrides, "callbacks.evaluation.times=1", outputs=tmp_path_factory.mktemp("run"))


def logged(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_classifiers_reward_and_judge(run: Path, base: Path) -> None:
    """Their weights are files beside the checkpoints, of which none holds them. At the start the policy is the
    reference."""
    rows = [row for row in logged(run) if row["train/reward"]]
    first = {name.removeprefix("train/"): float(value) for name, value in rows[0].items() if value}
    assert first["ratio_gap"] == first["kl"] == 0
    assert float(rows[-1]["train/kl"]) > 0
    total = first["reward_label"] + first["reward_jpeg_size"]
    assert first["reward"] == pytest.approx(total, abs=1e-5)  # the second one has no weight
    assert first["reward_second_label"] < 0
    assert first["reward_second_label"] != first["reward_label"]
    assert {name.partition(".")[0] for name in read.newest(run).state} == {"network", "reference"}
    assert len(list((run / "parts").iterdir())) == 2
    last = [row for row in logged(run) if row["val/loss"]][-1]
    wanted = -float(last["val/reward_label"]) - float(last["val/reward_jpeg_size"])
    assert float(last["val/loss"]) == pytest.approx(wanted, abs=1e-5)
    model, _ = load_run(OmegaConf.create(run_folder.read_config(run)), run)
    assert isinstance(model, DiffusionPolicy)
    reward: Any = model.rewards["label"]
    assert not reward.model.training
    assert not any(p.requires_grad for p in reward.model.parameters())
    begun = read.newest(base).content["ema"]
    kept = read.newest(run).state
    assert all(torch.equal(kept[f"reference.{name.removeprefix('network.')}"], value) for name, value in begun.items())


def test_a_run_that_goes_on_ends_as_one_that_never_stopped(
    overrides: tuple[str, ...], run: Path, tmp_path: Path
) -> None:
    """Its classifiers are in its folder."""
    again = train(*overrides, "callbacks.evaluation.times=1", "budget.value=48", outputs=tmp_path)
    resume(again, "budget.value=104", "callbacks.evaluation.times=1", allow_changes=True)
    assert same(state(again)["state_dict"], state(run)["state_dict"])


@pytest.mark.matrix  # two processes that start anew
@pytest.mark.parametrize("more", [(), ("model.advantages=condition", "trainer.accumulate_grad_batches=2")])
def test_two_ranks_take_the_same_steps(more: tuple[str, ...], overrides: tuple[str, ...], tmp_path: Path) -> None:
    # A large eps: without it Adam divides by gradients that are next to nothing.
    given = (*overrides, "budget.value=64", "model.optimizer.eps=1e-3", *more)
    alone = train(*given, outputs=tmp_path / "one")
    finish(start(*given, "trainer=ddp_cpu", outputs=tmp_path / "two"))
    together = only_run(tmp_path / "two")
    for name, value in read.newest(alone).state.items():
        torch.testing.assert_close(read.newest(together).state[name], value, rtol=0, atol=1e-6)
    for ours, theirs in zip(logged(alone), logged(together), strict=True):
        for name in ("train/reward", "train/reward_std", "train/kl", "train/loss"):
            if ours[name]:
                assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=1e-4)


def refused(*typed: str, outputs: Path) -> str:
    with pytest.raises(GenlabError) as caught:
        command_line(["train", "trainer=cpu", "logger=[none]", *typed, f"outputs={outputs}"])
    assert isinstance(caught.value, ConfigError)
    assert "\n" not in str(caught.value)
    assert not outputs.exists()
    return str(caught.value)


def test_what_does_not_fit_is_refused_in_a_line(base: Path, classifiers: tuple[str, ...], tmp_path: Path) -> None:
    """Each before a folder is made."""
    given, outputs = ("model=diffusion_policy", *DIGITS, f"start={base}"), tmp_path / "out"
    assert "start=outputs/" in refused(*given[:-1], outputs=outputs)
    assert "Use model/sampler=ancestral or ddim" in refused(*given, "model/sampler=euler", outputs=outputs)
    assert "model.sampler.eta=1" in refused(*given, "model/sampler=ddim", outputs=outputs)
    assert "model.minibatches=2" in refused(*given, "model.minibatches=3", outputs=outputs)
    assert "model.rewards.label.model has no value" in refused(*given, "model/rewards=[label]", outputs=outputs)
    label = ("model/rewards=[label]", classifiers[0])
    bare = ("model.conditions=[]", "model.condition_dropout=0")
    assert "Use model.conditions=[label] if" in refused(*given, *label, *bare, outputs=outputs)
    other = refused(*given, "model/rewards=[label]", f"model.rewards.label.model={base}", outputs=outputs)
    assert "is not a classifier. Name a run of model=classifier." in other
    of_text = refused(*given, "model/rewards=[checker]", outputs=outputs)
    assert "This place needs a PictureReward" in of_text
    assert "model/rewards=" in refused(*given, "model.rewards.jpeg_size.weight=0", outputs=outputs)
    by_condition = refused(*given, *bare, "model.advantages=condition", outputs=outputs)
    assert by_condition.endswith("Use model.advantages=batch.")
    assert "quality=95" in refused(*given, "model.rewards.jpeg_size.quality=0", outputs=outputs)
