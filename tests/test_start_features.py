"""``start=`` from another family's network of features: a classifier begins with what was learned without labels, and a
frozen network stays as it is, bit for bit."""

import re
from pathlib import Path

import pytest
import torch

from genlab.checkpoint import read
from genlab.errors import ConfigError
from genlab.run import run_folder
from tiny_run import resume, same, small, train

RESNET = ("model/network=resnet18", "model.network.width=4", "model.network.stages=[1,1]")
ENCODER = tuple(override.replace("network", "encoder") for override in RESNET)
SOURCE = (*small("model=contrastive", ENCODER[0]), *ENCODER[1:], "budget.value=24")
CLASSIFIER = ("model=classifier", *RESNET, "budget.value=24")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*SOURCE, outputs=tmp_path_factory.mktemp("source"))


def averaged(run: Path) -> dict[str, torch.Tensor]:
    last = read.newest(run)
    return {**last.state, **last.content["ema"]}


def beginning(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def frozen(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier on a frozen network, which decays what it trains by a third in a step."""
    decaying = ("model/schedule=constant", "model.optimizer.weight_decay=60")
    return train(*CLASSIFIER, *decaying, f"start={source}", "start.only=[network.*]", "start.freeze=[network.*]",
                 outputs=tmp_path_factory.mktemp("frozen"))  # fmt: skip


def test_a_frozen_network_stays_what_another_family_learned(source: Path, frozen: Path) -> None:
    """Batch norms' running statistics and counts too, in the weights and in their averages."""
    last = read.newest(frozen)
    theirs, now = beginning(averaged(source), "encoder."), beginning(dict(last.state), "network.")
    assert any(name.endswith("running_var") for name in now)
    assert any(name.endswith("num_batches_tracked") for name in now)
    assert same(now, theirs)
    of_network = {name: value for name, value in last.content["ema"].items() if name.startswith("network.")}
    assert of_network
    assert all(name.endswith(("running_mean", "running_var")) for name in of_network)
    assert same(beginning(averaged(frozen), "network."), theirs)


def test_what_is_not_frozen_moves(
    source: Path, frozen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Statistics included, where nothing is frozen; weight decay shrinks the head on a frozen network."""
    run = train(*CLASSIFIER, f"start={source}", "start.only=[network.*]", outputs=tmp_path)
    assert re.search(r"^start: .*; its encoder\.\* are network\.\* here$", capsys.readouterr().out, re.M)
    theirs, now = beginning(averaged(source), "encoder."), beginning(dict(read.newest(run).state), "network.")
    assert not [name for name in now if torch.equal(now[name], theirs[name])]
    heads = [read.newest(each).state["head.weight"] for each in (frozen, run)]
    assert heads[0].norm() < heads[1].norm() / 2


def test_the_message_names_the_other_familys_network_by_its_name_here(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Take over what fits: start\.only=\[network\.\*\]$"):
        train(*CLASSIFIER, f"start={source}", outputs=tmp_path)
    with pytest.raises(ConfigError, match=r"network\.conv\.weight is \(4, 1, 3, 3\) there and \(6, 1, 3, 3\) here"):
        train(*CLASSIFIER, f"start={source}", "start.only=[network.*]", "model.network.width=6", outputs=tmp_path)


@pytest.mark.matrix
@pytest.mark.parametrize("family", ["contrastive", "self_distillation"])
def test_a_classifier_is_a_beginning_too(family: str, tmp_path: Path) -> None:
    labelled = train(*CLASSIFIER, outputs=tmp_path / "labelled")
    run = train(*small(f"model={family}", ENCODER[0]), *ENCODER[1:], f"start={labelled}", "start.only=[encoder.*]",
                "model.optimizer.lr=0", "budget.value=8", outputs=tmp_path / family)  # fmt: skip
    theirs, now = beginning(averaged(labelled), "network."), beginning(dict(read.newest(run).state), "encoder.")
    weights = [name for name in theirs if name.endswith(("weight", "bias"))]
    assert weights
    assert all(torch.equal(now[name], theirs[name]) for name in weights)


@pytest.mark.matrix
@pytest.mark.parametrize("family", ["masked_autoencoder", "jepa"])
def test_a_transformer_that_saw_parts_of_images_begins_a_classifier(family: str, tmp_path: Path) -> None:
    class_token = ["model.encoder.class_token=true"] if family == "jepa" else []
    begun = train(*small(f"model={family}"), *class_token, "budget.value=16", outputs=tmp_path / family)
    encoder = run_folder.read_config(begun)["model"]["encoder"]
    sizes = [f"model.network.{name}={encoder[name]}" for name in ("width", "depth", "num_heads", "patch_size")]
    run = train("model=classifier", "model/network=masked_vit", *sizes, f"start={begun}", "start.only=[network.*]",
                "start.freeze=[network.*]", "budget.value=16", outputs=tmp_path / "run")  # fmt: skip
    assert same(beginning(averaged(run), "network."), beginning(averaged(begun), "encoder."))


@pytest.mark.matrix
def test_a_frozen_network_is_still_frozen_when_the_run_goes_on(source: Path, frozen: Path, tmp_path: Path) -> None:
    run = train(*CLASSIFIER, f"start={source}", "start.only=[network.*]", "start.freeze=[network.*]",
                outputs=tmp_path)  # fmt: skip
    resume(run, "budget.value=48")
    assert same(beginning(averaged(run), "network."), beginning(averaged(frozen), "network."))
