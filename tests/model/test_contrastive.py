"""Losses of two views against lightly, the family that has them, and how spread its features are."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.callbacks.feature_collapse import FeatureCollapse
from genlab.config.build import fits
from genlab.errors import ConfigError
from genlab.model.augment.views import IndependentViews, View, numbers_by_index
from genlab.model.base import Classifies, GenerativeModel, HasFeatures
from genlab.model.contrastive import Contrastive
from genlab.model.network.batch_norm import BatchNorm
from genlab.model.network.projector import Projector
from genlab.model.network.resnet18 import ResNet18
from genlab.model.objective.views import BarlowTwins, NTXent, VICReg
from genlab.model.schedule import Constant
from genlab.model.spread import effective_rank, feature_std, log_spread
from ranks import on_ranks

SHAPE = (3, 6, 6)


def model(views: Any = None, objective: Any = None, **options: Any) -> Contrastive:
    torch.manual_seed(0)
    made = Contrastive(
        partial(ResNet18, SHAPE, width=2, stages=(1, 1)), partial(Projector, widths=(8, 6)),
        views or IndependentViews(View()), objective or NTXent(), lambda p: torch.optim.SGD(p, lr=0.1), Constant(),
        SHAPE, **options,
    )  # fmt: skip
    made.configure_model()
    return made


def batch_of(count: int) -> dict[str, Tensor]:
    images = 2 * torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)) - 1
    return {"image": images, "index": torch.arange(count)}


# --- losses ----------------------------------------------------------------------------------------------------------

# Recorded from lightly 1.6.0 in float64 on ``pair()``: the loss, an element of the first view's gradient, and its norm.
RECORDED: dict[str, tuple[Any, tuple[float, float, float]]] = {
    "nt_xent 0.5": (NTXent(0.5), (1.5047689882487194, 0.07669480917202992, 0.22214501343236376)),
    "nt_xent 0.1": (NTXent(0.1), (0.6831398996195285, 0.21682207856251268, 0.6326518070280591)),
    "barlow": (BarlowTwins(), (0.41203012364023783, 0.030369399066223893, 2.393512475027527)),
    "barlow 0.1": (BarlowTwins(0.1), (0.7149985855610236, 0.027733505148250664, 2.21564983278609)),
    "vicreg": (VICReg(), (11.540961815040388, 0.8653593938331569, 3.7037455023358192)),
    "vicreg 1 2 3": (VICReg(1, 2, 3), (2.138242260703352, 0.20851059064414001, 0.9098483290859994)),
}


def pair() -> tuple[Tensor, Tensor]:
    place = torch.arange(24.0).view(6, 4)
    first = (place * 1.7).sin() + 0.3 * (place * 0.3).cos()
    second = first + 0.4 * (place * 2.3 + 1).cos()
    return first.double().requires_grad_(), second.double().requires_grad_()


@pytest.mark.parametrize("name", RECORDED)
def test_losses_are_those_of_lightly(name: str) -> None:
    objective, recorded = RECORDED[name]
    first, second = pair()
    loss = objective.loss(first, second)
    (slope,) = torch.autograd.grad(loss, first)
    assert (float(loss.detach()), float(slope[2, 1]), float(slope.norm())) == pytest.approx(recorded, rel=1e-6)
    assert objective.loss(first.float(), second.float()).item() == pytest.approx(recorded[0], rel=1e-5)


@pytest.mark.parametrize("objective", [NTXent(), BarlowTwins(), VICReg()], ids=lambda o: type(o).__name__)
def test_views_may_change_places_and_so_may_images(objective: Any) -> None:
    first, second = pair()
    order = torch.tensor([3, 1, 0, 2, 5, 4])
    loss = objective.loss(first, second).detach()
    torch.testing.assert_close(objective.loss(second, first).detach(), loss)
    torch.testing.assert_close(objective.loss(first[order], second[order]).detach(), loss)


@pytest.mark.parametrize("objective", [NTXent(), BarlowTwins(), VICReg()], ids=lambda o: type(o).__name__)
def test_a_batch_of_one_has_a_loss(objective: Any) -> None:
    """The last batch of a validation may have."""
    first, second = pair()
    assert math.isfinite(objective.loss(first[:1], second[:1]).item())


def test_of_n_images_that_look_alike_nt_xent_is_the_logarithm_of_the_other_views() -> None:
    assert NTXent().loss(torch.ones(5, 3), torch.ones(5, 3)).item() == pytest.approx(math.log(9))


def test_barlow_and_vicreg_are_least_for_views_that_agree_and_elements_that_do_not() -> None:
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]) * 1.5
    assert BarlowTwins().loss(signs, signs).item() == pytest.approx(0, abs=1e-8)
    assert VICReg().loss(signs, signs).item() == 0
    assert VICReg().loss(0.1 * signs, 0.1 * signs) > 1
    same = signs[:, :1].expand(-1, 2)
    assert BarlowTwins().loss(same, same).item() == pytest.approx(2 * 5e-3, rel=1e-4)
    assert VICReg().loss(same, same).item() == pytest.approx(2 * 3.0**2, rel=1e-6)  # the covariance is 9 / 4 * 4 / 3


# --- ranks -----------------------------------------------------------------------------------------------------------


def of_all(rank: int, world: int, name: str) -> dict[str, Tensor]:
    """A step's gradients on one of several ranks, averaged as DDP does."""
    made, batch = model(objective=RECORDED[name][0]), batch_of(8)
    mine = {key: rows[rank::world] for key, rows in batch.items()}
    made.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    loss = made.training_step(mine, 0)
    loss.backward()
    found = {"loss": loss.detach()} | {name: buffer.float() for name, buffer in made.named_buffers()}
    for name, p in made.named_parameters():
        assert p.grad is not None, name
        if world > 1:
            torch.distributed.all_reduce(p.grad)
        found[name] = p.grad / world
    return found


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["nt_xent 0.5", "barlow", "vicreg"])
def test_two_ranks_have_the_loss_and_the_gradients_of_the_global_batch(name: str, tmp_path: Path) -> None:
    """With batch norm in encoder and projector, and views that do not depend on the rank."""
    alone = of_all(0, 1, name)
    assert max(float(slope.abs().max()) for slope in alone.values()) > 0.01
    for result in on_ranks(2, tmp_path, of_all, 2, name):
        assert result.keys() == alone.keys()
        for key, slope in result.items():
            torch.testing.assert_close(slope, alone[key], rtol=1e-4, atol=1e-5)


# --- the family ------------------------------------------------------------------------------------------------------


class Listed:
    """An objective that keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[Tensor, Tensor]] = []

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        self.given.append((first.detach(), second.detach()))
        return (first - second).square().mean()


def test_batch_norm_of_a_view_does_not_know_the_other() -> None:
    """Vectors of the first views are the same, whatever the second ones are; but not, whatever the other images are."""
    objective, batch = Listed(), batch_of(4)
    made = model(objective=objective)
    made.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    made.training_step(batch, 0)
    made.views = IndependentViews(View(), View(solarize=1.0))
    made.training_step(batch, 0)
    batch["image"][3] = 1.0
    made.training_step(batch, 0)
    (first, second), (again, other), (third, _) = objective.given
    assert torch.equal(again, first)
    assert not torch.allclose(other, second)
    assert not torch.allclose(third[:3], first[:3])


def test_a_step_is_of_views_by_seed_examples_and_index() -> None:
    objective, batch = Listed(), batch_of(4)
    made = model(objective=objective, seed=3)
    made.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    made.progress.examples = 96
    made.training_step(batch, 0)
    seen = made.views(batch["image"], numbers_by_index(3, 96, batch["index"]))
    for vectors, view in zip(objective.given[0], seen, strict=True):
        assert torch.equal(vectors, made.projector(made.encoder(view)))


def test_validation_has_the_same_views_and_changes_nothing() -> None:
    made, batch = model().eval(), batch_of(5)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    loss = made.losses(batch)["loss"]
    made.progress.examples = 1000
    torch.rand(1)
    assert made.losses(batch)["loss"] == loss
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    assert math.isfinite(float(made.losses(batch_of(1))["loss"].detach()))


def test_it_is_a_judge_and_draws_nothing() -> None:
    made = model().eval()
    assert fits(Contrastive, HasFeatures, partial=False)
    assert not isinstance(made, Classifies | GenerativeModel)
    x = batch_of(4)["image"]
    features = made.features(x)
    assert features.shape == (4, 4)
    torch.testing.assert_close(made.features(x[:1]), features[:1])  # of an image alone


def test_statistics_of_batch_norm_are_averaged_with_the_weights() -> None:
    made = model()
    names = {name for name, _ in made.averaged()}
    assert names == {name for name in made.state_dict() if "num_batches" not in name}
    assert {"encoder.norm.running_mean", "projector.layers.1.running_var"} <= names


def test_all_weights_are_in_groups_and_gains_do_not_decay() -> None:
    groups: list[Any] = []
    made = model()
    made.make_optimizer = lambda given: groups.extend(given) or torch.optim.SGD(given, 0.1, weight_decay=0.1)  # type: ignore[func-returns-value]
    made.configure_optimizers()
    assert sum(len(group["params"]) for group in groups) == len(list(made.parameters()))
    still = {id(p) for group in groups if group.get("weight_decay") == 0 for p in group["params"]}
    norms = [m for m in made.modules() if isinstance(m, BatchNorm)]
    assert still == {id(p) for m in norms for p in (m.weight, m.bias)}


@pytest.mark.parametrize("name", ["nt_xent 0.1", "barlow", "vicreg"])
def test_it_learns_which_views_are_of_one_image(name: str) -> None:
    """Images of one color each, whose views keep it."""
    made = model(IndependentViews(View(jitter=0, gray=0, blur=0)), RECORDED[name][0])
    made.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    batch = batch_of(12)
    batch["image"] = batch["image"].mean(dim=(2, 3), keepdim=True).mul(4).clamp(-1, 1).expand(-1, -1, 6, 6).clone()
    optimizer = torch.optim.Adam(made.parameters(), lr=5e-3)
    losses = []
    for step in range(60):
        made.progress.examples = 12 * step
        optimizer.zero_grad()
        loss = made.training_step(batch, step)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.6 * sum(losses[:3]) / 3 * 10


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NTXent(0.0), r"^temperature=0.0 must be above 0"),
        (lambda: NTXent(float("nan")), r"^temperature=nan must be above 0"),
        (lambda: BarlowTwins(-1), r"^redundancy=-1 must be 0 or more"),
        (lambda: VICReg(covariance=-1.0), r"^invariance=25.0, variance=25.0 and covariance=-1.0 must be 0 or more"),
        (lambda: model(IndependentViews(View(), count=1)), r"^a contrastive model compares two views, and these are 1"),
        (lambda: model(IndependentViews(View(), small=View(), num_local=2)), r"two views, and these are 4 an image"),
    ],
)  # fmt: skip
def test_bad_values(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_single_image_has_nothing_to_be_compared_with() -> None:
    with pytest.raises(ConfigError, match=r"needs two images or more on each device\. Use a larger data\.batch_size"):
        model().training_step(batch_of(1), 0)


# --- collapse --------------------------------------------------------------------------------------------------------


def test_the_spread_of_features() -> None:
    generator = torch.Generator().manual_seed(0)
    healthy = torch.randn(4000, 16, generator=generator)
    assert feature_std(healthy).item() == pytest.approx(1, abs=0.01)
    assert feature_std(7 * healthy).item() == pytest.approx(feature_std(healthy).item())
    assert feature_std(torch.ones(8, 5)).item() == pytest.approx(0, abs=1e-6)
    assert effective_rank(healthy).item() == pytest.approx(16, abs=0.05)
    signs = torch.tensor([[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]])
    assert effective_rank(5 + 3 * signs).item() == pytest.approx(2)
    uneven = effective_rank(signs * torch.tensor([3.0, 1, 1])).item()  # singular values 3/4 and 1/4 of their sum
    assert uneven == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)), rel=1e-5)
    assert effective_rank(torch.ones(8, 5)).item() == pytest.approx(1)


def logged_for(features: Tensor) -> tuple[dict[str, Any], int | None]:
    found: dict[str, Any] = {}
    made = model()
    made.log = lambda name, value, **kwargs: found.__setitem__(name, value)  # type: ignore[assignment, method-assign]
    log_spread(made, features)
    return found, made.most_rank


def looked(features: Tensor, looks: int = 5) -> dict[str, str]:
    watch, (logged, most) = FeatureCollapse(), logged_for(features)
    found: dict[str, str] = {}
    for look in range(looks):
        assert not found
        again = FeatureCollapse()
        again.load_state_dict(watch.state_dict())
        watch, found = again, again.look(logged, 1000 * look, most)
    return found


def test_collapsed_features_are_named_and_healthy_ones_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    healthy = torch.randn(64, 100, generator=generator).relu()
    assert looked(healthy) == {}
    assert looked(torch.ones(64, 100) + 0.01 * healthy, looks=4) == {}
    (complete,) = looked(torch.ones(64, 100) + 0.01 * healthy).items()
    assert complete[0] == "complete collapse"
    assert "all images had nearly the same features" in complete[1]
    flat = F.normalize(healthy[:, :2] - 0.5) @ torch.randn(2, 100, generator=generator)
    (dimensional,) = looked(flat + 1e-3 * healthy).items()
    assert dimensional[0] == "dimensional collapse"
    assert "of 63 directions" in dimensional[1]
    assert FeatureCollapse().look({}, 0, None) == {}


def test_only_what_a_logger_looks_at_is_computed() -> None:
    made = model()
    made.unlogged = {}
    log_spread(made, torch.ones(4, 3))
    assert made.most_rank is None
    assert made.unlogged == {}
