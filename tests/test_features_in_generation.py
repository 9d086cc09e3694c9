"""Runs whose loss, or whose discriminator, has the features of another run: what is trained, kept and refused."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.command.train import Interrupted
from genlab.errors import ConfigError
from genlab.run import run_folder
from genlab.run.load import load_run
from test_flops import run_of
from tiny_run import MLP, SHORT, SignalAt, only_run, resume, same, small, train

FEATURES = ("model=masked_autoencoder", "model/views=none", "model.views.count=1", "budget.value=8")
DIT = ("model=diffusion", "model/network=dit_small", "budget.value=24", "model/optimizer=adamw")
REPA = ("model/alignment=repa", "model.alignment.features={}")
PROJECTED = ("model=gan", "model/discriminator=projected", "model/objective=hinge", "model/augment=diffaugment",
             "model.discriminator.features={}", "budget.value=24")  # fmt: skip


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*small(*FEATURES), outputs=tmp_path_factory.mktemp("features"))


def made(choices: tuple[str, ...], features: Any) -> tuple[str, ...]:
    """Small; the features keep the size that they have."""
    return (*small(*(c for c in choices if "{}" not in c)), *(c.format(features) for c in choices if "{}" in c))


def state(run: Path) -> dict[str, Any]:
    content = read.newest(run).content
    return {key: content[key] for key in ("state_dict", "ema", "optimizer_states")}


@pytest.fixture(scope="module")
def aligned(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*made((*DIT, *REPA), features), outputs=tmp_path_factory.mktemp("aligned"))


@pytest.fixture(scope="module")
def projected(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*made(PROJECTED, features), outputs=tmp_path_factory.mktemp("projected"))


@pytest.mark.matrix
@pytest.mark.parametrize(("kind", "choices"), [("aligned", (*DIT, *REPA)), ("projected", PROJECTED)])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    kind: str, choices: tuple[str, ...], features: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train(*made(choices, features), SignalAt.override(8), outputs=tmp_path)
    run = only_run(tmp_path)
    before = read.newest(run)
    assert before.progress.examples == 16
    resume(run)
    assert same(state(run), state(request.getfixturevalue(kind)))
    fixed = [name for name in before.state if name.startswith("discriminator.mix_")]
    assert len(fixed) == (2 if kind == "projected" else 0)  # of the one block of a small encoder
    now = state(run)["state_dict"]
    assert all(torch.equal(now[name], before.state[name]) for name in fixed)
    trained = [
        n for n in now if re.search(r"discriminator\.scales\..*original|alignment\.projector|network\.blocks", n)
    ]
    assert trained
    assert not any(torch.equal(now[name], before.state[name]) for name in trained if "original0" not in name)


@pytest.mark.parametrize(
    ("kind", "place"), [("aligned", "alignment.features"), ("projected", "discriminator.features")]
)
def test_the_features_are_those_of_the_run_and_in_no_checkpoint(
    kind: str, place: str, features: Path, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(kind)
    assert run_folder.read_config(run)["pretrained"][f"model.{place}"]["where"] == str(features)
    assert not any(name.startswith(place) for name in (*state(run)["state_dict"], *state(run)["ema"]))
    model, _ = load_run(OmegaConf.create(run_folder.read_config(run)), run)
    theirs, _ = load_run(OmegaConf.create(run_folder.read_config(features)), features)
    assert same(dict(model.get_submodule(place).state_dict()), dict(theirs.state_dict()))
    assert not any(p.requires_grad for p in model.get_submodule(place).parameters())


def test_the_perceptron_is_trained_and_kept_and_no_part_of_averages(aligned: Path) -> None:
    kept, averages = state(aligned)["state_dict"], state(aligned)["ema"]
    names = {name for name in kept if name.startswith("alignment.projector.")}
    assert len(names) == 6
    assert {name for name in kept if name.startswith("network.")} >= set(averages)
    assert not names & set(averages)
    (optimizer,) = state(aligned)["optimizer_states"]
    moved = {tuple(s["exp_avg"].shape) for s in optimizer["state"].values() if s["exp_avg"].abs().sum() > 0}
    assert {tuple(kept[name].shape) for name in names} <= moved


def test_the_alignment_is_logged(aligned: Path) -> None:
    with (aligned / "metrics.csv").open() as file:
        logged = [float(row["train/alignment"]) for row in csv.DictReader(file) if row.get("train/alignment")]
    assert len(logged) == 3
    assert all(-1 <= value <= 1 for value in logged)


@pytest.mark.matrix
def test_with_a_weight_of_0_a_run_is_the_one_without(features: Path, tmp_path: Path) -> None:
    without = train(*made(DIT, ""), outputs=tmp_path / "without")
    nothing = train(*made((*DIT, *REPA), features), "model.alignment.weight=0", outputs=tmp_path / "0")
    assert same(state(nothing), state(without))


@pytest.mark.matrix
def test_a_run_without_alignment_can_be_begun_with(features: Path, tmp_path: Path) -> None:
    before = train(*made(DIT, ""), "budget.value=8", outputs=tmp_path / "before")
    run = train(*made((*DIT, *REPA), features), f"start={before}", "budget.value=8", outputs=tmp_path / "after")
    assert (run / "summary.json").exists()


@pytest.mark.matrix
@pytest.mark.parametrize("network", ["unet", "dit_small", "mmdit", "mlp"])
@pytest.mark.parametrize("family", ["contrastive", "masked_autoencoder", "classifier"])
def test_every_kind_of_features_with_every_kind_of_denoiser(family: str, network: str, tmp_path: Path) -> None:
    features = train(*small(f"model={family}"), "budget.value=8", outputs=tmp_path / "features")
    choices = ("model=diffusion", f"model/network={network}", "budget.value=16", *REPA)
    run = train(*made(choices, features), outputs=tmp_path / "run")
    assert json.loads((run / "summary.json").read_text())


@pytest.mark.matrix
def test_latents_are_aligned_with_features_of_their_pictures(features: Path, tmp_path: Path) -> None:
    autoencoder = train(*small("model=vae", "model.latent_shape=[2,4,4]", "budget.value=8"), outputs=tmp_path / "vae")
    choices = ("model=latent_diffusion", "model.autoencoder={}", "budget.value=24")
    given = (*made(choices, autoencoder), *(c.format(features) for c in REPA))
    run = train(*given, outputs=tmp_path / "latent")
    kept, averages = state(run)["state_dict"], state(run)["ema"]
    assert len([name for name in kept if name.startswith("diffusion.alignment.")]) == 6
    assert averages
    assert all(name.startswith("diffusion.network.") for name in averages)
    with pytest.raises(Interrupted):
        train(*given, SignalAt.override(8), outputs=tmp_path / "stopped")
    stopped = only_run(tmp_path / "stopped")
    resume(stopped)
    assert same(state(stopped), state(run))


@pytest.mark.matrix
@pytest.mark.parametrize("family", ["contrastive", "jepa", "classifier", "self_distillation"])
@pytest.mark.parametrize("generator", ["gan", "stylegan2"])
def test_every_kind_of_features_in_a_discriminator(family: str, generator: str, tmp_path: Path) -> None:
    features = train(*small(f"model={family}"), "budget.value=8", outputs=tmp_path / "features")
    choices = (f"model={generator}", *PROJECTED[1:])
    run = train(*made(choices, features), outputs=tmp_path / "run")
    assert json.loads((run / "summary.json").read_text())


@pytest.mark.matrix
@pytest.mark.parametrize("choices", [(*DIT, *REPA), PROJECTED], ids=["aligned", "projected"])
def test_operations_of_frozen_features_count(choices: tuple[str, ...], features: Path, tmp_path: Path) -> None:
    model, steps = run_of(made(choices, features), tmp_path)
    assert model.progress.flops == steps.counter.get_total_flops() > 0


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("choices", "said"), [
    ((*DIT, *REPA, "data=shapes", "data.image_size=16"),
     r"model\.alignment: the features are of images of shape \(1, 16, 16\), the data have \(3, 16, 16\)\. Name"),
    ((*PROJECTED, "data=shapes", "data.image_size=16"),
     r"model\.discriminator: the features are of images of shape \(1, 16, 16\), the data have \(3, 16, 16\)\. Name"),
    (("model=diffusion", *REPA, "model.alignment.layer=2"), r"a layer of 2 in \[0, 1\]"),
    (("model=progan", "model/discriminator=projected", "model.discriminator.features={}"),
     r"model/discriminator=progan"),
], ids=["aligned", "projected", "layer", "growing"])  # fmt: skip
def test_what_does_not_fit(choices: tuple[str, ...], said: str, features: Path, outputs: Path) -> None:
    data = () if any(c.startswith("data=") for c in choices) else ("data=digits",)
    given = [c.format(features) for c in (*SHORT, *data, *choices)]
    with pytest.raises(ConfigError, match=said) as error:
        command_line(["train", *given, f"outputs={outputs}"])
    assert "\n" not in str(error.value)
    assert not outputs.exists()


def test_a_run_without_features_is_refused(tmp_path: Path) -> None:
    run = train(*MLP, "budget.value=8", outputs=tmp_path)
    with pytest.raises(
        ConfigError, match=r"features=\S+: a Diffusion has no features of images\. Name a run of model="
    ):
        command_line(["train", "data=digits", "logger=[none]", *DIT, *(c.format(run) for c in REPA)])
