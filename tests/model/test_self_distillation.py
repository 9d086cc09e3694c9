"""Self-distillation: what learns and what follows, views, batch norms, ranks, and that it learns."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.config.build import fits
from genlab.errors import ConfigError
from genlab.model.augment.views import IndependentViews, View
from genlab.model.base import Classifies, GenerativeModel, HasFeatures
from genlab.model.momentum import cosine_momentum
from genlab.model.network.projector import Projector
from genlab.model.network.prototype_head import PrototypeHead
from genlab.model.network.resnet import ResNet
from genlab.model.objective.distillation import BYOL, DINO
from genlab.model.schedule import Constant
from genlab.model.self_distillation import SelfDistillation
from ranks import on_ranks

SHAPE = (1, 8, 8)
CROPS = IndependentViews(View(scale=(0.5, 1.0), jitter=0.0, blur=0.0))


def byol() -> BYOL:
    return BYOL(*[partial(Projector, widths=(16, 8), last_norm=False)] * 2)


def dino(**options: Any) -> DINO:
    return DINO(partial(PrototypeHead, width=16, bottleneck=8), **{"prototypes": 8, "held": 0.0} | options)


def model(objective: Any = None, encoder: Any = None, **options: Any) -> SelfDistillation:
    torch.manual_seed(0)
    made = SelfDistillation(
        encoder or partial(ResNet, SHAPE, channels=8, channel_mult=(1, 2)), objective or byol(),
        schedule=Constant(), shape=SHAPE,
        **{"momentum": 0.9, "views": CROPS, "optimizer": lambda p: torch.optim.SGD(p, lr=0.1)} | options,
    )  # fmt: skip
    made.configure_model()
    made.log = lambda *_, **__: None  # type: ignore[method-assign]
    return made


def images(count: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.rand(count, *SHAPE, generator=generator) * 2 - 1, "index": torch.arange(count)}


def step(made: SelfDistillation, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor]) -> Tensor:
    optimizer.zero_grad()
    loss = made.training_step(batch, 0)
    loss.backward()
    made.on_before_optimizer_step(optimizer)
    optimizer.step()
    return loss.detach()


OBJECTIVES = pytest.mark.parametrize("objective", [byol, dino])


# --- what learns and what follows -------------------------------------------------------------------------------------


@OBJECTIVES
def test_no_gradient_goes_to_the_teacher(objective: Any) -> None:
    made = model(objective())
    made.training_step(images(), 0).backward()
    of_teacher = [*made.encoder.parameters(), *made.projector.parameters()]
    assert of_teacher
    assert all(p.grad is None and not p.requires_grad for p in of_teacher)
    assert all(p.grad is not None for p in made.student.parameters())
    for part in (made.student.encoder.stem, made.student.projector, made.student.predictor):
        assert all(p.grad.abs().max() > 0 for p in part.parameters() if p.ndim > 1)  # type: ignore[union-attr]
    trained = {id(p) for group in made.configure_optimizers().param_groups for p in group["params"]}
    assert trained == {id(p) for p in made.student.parameters()}


@OBJECTIVES
def test_the_teacher_begins_as_the_student_and_follows_it_after_every_step(objective: Any) -> None:
    made = model(objective())
    made.progress.fraction = 0.5
    before = copy.deepcopy(made.state_dict())
    for copied, of in made.copies.items():
        names = [name for name in before if name.startswith(of)]
        assert names
        assert all(torch.equal(before[name], before[copied + name.removeprefix(of)]) for name in names)
    step(made, made.configure_optimizers(), images())
    after = made.state_dict()
    momentum = cosine_momentum(0.9, 0.5)
    for name, p in [*made.encoder.named_parameters(prefix="encoder"), *made.projector.named_parameters("projector")]:
        students = after[f"student.{name}"]
        torch.testing.assert_close(p.detach(), momentum * before[name] + (1 - momentum) * students)
    assert not torch.equal(after["student.encoder.stem.weight"], before["student.encoder.stem.weight"])


def test_a_teacher_whose_momentum_is_1_stays() -> None:
    made = model(momentum=1.0)
    before = copy.deepcopy(made.encoder.state_dict())
    step(made, made.configure_optimizers(), images())
    assert all(torch.equal(value, before[name]) for name, value in made.encoder.state_dict().items())


def test_the_last_layer_of_dino_does_not_move_while_it_is_held() -> None:
    made = model(dino(held=0.5))
    made.make_optimizer = lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5)
    optimizer, last = made.configure_optimizers(), made.student.projector.last.weight  # type: ignore[union-attr]
    before = last.detach().clone()  # type: ignore[union-attr, operator]
    step(made, optimizer, images())
    assert torch.equal(last, before)  # type: ignore[arg-type]
    made.progress.fraction = 0.5
    step(made, optimizer, images())
    assert not torch.equal(last, before)  # type: ignore[arg-type]


@OBJECTIVES
def test_gains_and_biases_do_not_decay(objective: Any) -> None:
    made = model(objective())
    made.make_optimizer = lambda p: torch.optim.AdamW(p, weight_decay=0.3)
    decay = {
        id(p): group["weight_decay"] for group in made.configure_optimizers().param_groups for p in group["params"]
    }
    assert {decay[id(p)] for p in made.student.parameters() if p.ndim > 1} == {0.3}
    assert {decay[id(p)] for p in made.student.parameters() if p.ndim < 2} == {0.0}


# --- modes ------------------------------------------------------------------------------------------------------------


class Dropped(nn.Module):
    """A linear encoder with dropout and batch norm."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)

    def forward(self, image: Tensor) -> Tensor:
        return self.dropout(self.norm(self.linear(image.flatten(1))))


def test_the_teacher_has_no_dropout_and_normalizes_by_the_batch_in_training_alone() -> None:
    made, x = model(encoder=Dropped).train(), images()["image"]
    assert made.student.encoder.dropout.training
    torch.testing.assert_close(made.features(x), F.batch_norm(
        made.encoder.linear(x.flatten(1)), None, None, made.encoder.norm.weight, made.encoder.norm.bias, training=True,
    ))  # fmt: skip
    kept = made.encoder.norm.running_mean.clone()
    assert kept.abs().max() > 0
    made.eval()
    torch.testing.assert_close(made.features(x[:1]), made.features(x)[:1])
    assert torch.equal(made.encoder.norm.running_mean, kept)


def test_averages_are_of_the_student_with_the_statistics_of_its_norms() -> None:
    made = model(encoder=Dropped)
    names = {name for name, _ in made.averaged()}
    assert all(name.startswith("student.") for name in names)
    assert {"student.encoder.norm.running_mean", "student.predictor.layers.1.running_var"} <= names
    assert names <= set(made.state_dict())
    assert {name for name, _ in made.named_parameters() if name.startswith("student.")} <= names


# --- views ------------------------------------------------------------------------------------------------------------


@OBJECTIVES
def test_an_image_has_its_own_views_wherever_it_stands(objective: Any) -> None:
    """In eval mode, where images do not meet in batch norms, the loss of four is the mean of those of two halves."""
    made, batch = model(objective()).eval(), images()
    halves = [{key: value[rows] for key, value in batch.items()} for rows in ([2, 0], [3, 1])]
    mean = sum(made.losses(half)["loss"] for half in halves) / 2
    torch.testing.assert_close(made.losses(batch)["loss"], mean)


def test_views_change_from_step_to_step() -> None:
    made, batch = model().eval(), images()
    losses = [made.compared(batch["image"], batch["index"], examples).loss for examples in (0, 0, 4)]
    assert losses[0] == losses[1] != losses[2]


@OBJECTIVES
def test_small_views_are_the_students_alone(objective: Any) -> None:
    views = IndependentViews(View(jitter=0.0), small=View(size=4, jitter=0.0), num_local=3)
    made, batch = model(objective(), views=views), images()
    seen: list[tuple[str, int]] = []
    for name, encoder in (("teacher", made.encoder), ("student", made.student.encoder)):
        encoder.register_forward_pre_hook(lambda _, given, name=name: seen.append((name, given[0].shape[-1])))
    said = made.compared(batch["image"], batch["index"], 0)
    assert seen == [("teacher", 8)] * 2 + [("student", 8)] * 2 + [("student", 4)] * 3
    assert len(said.teacher) == 2
    assert torch.isfinite(said.loss)


# --- ranks ------------------------------------------------------------------------------------------------------------


def of_rank(rank: int, world: int) -> dict[str, Tensor]:
    """Three steps with DINO, without batch norm, on one of several ranks. Small ones: a bottleneck that is near 0 at
    first has large slopes."""
    made = model(dino(), views=IndependentViews(View(jitter=0.0)), optimizer=lambda p: torch.optim.SGD(p, lr=1e-3))
    optimizer = made.configure_optimizers()
    for count in range(3):
        made.progress.examples, made.progress.fraction = 8 * count, count / 3
        made.training_step({key: value[rank::world] for key, value in images(8).items()}, 0).backward()
        for p in made.student.parameters():
            assert p.grad is not None
            if world > 1:
                torch.distributed.all_reduce(p.grad)
                p.grad /= world
        optimizer.step()
        optimizer.zero_grad()
    return dict(made.state_dict())


@pytest.mark.matrix  # two processes
def test_two_ranks_move_student_teacher_and_center_as_one_does(tmp_path: Path) -> None:
    alone = of_rank(0, 1)
    assert alone["objective.center"].abs().max() > 0.01
    for result in on_ranks(2, tmp_path, of_rank, 2):
        assert result.keys() == alone.keys()
        for name, value in result.items():
            torch.testing.assert_close(value, alone[name], rtol=0, atol=1e-6)


# --- learning ---------------------------------------------------------------------------------------------------------


def test_it_learns_which_views_are_of_one_image() -> None:
    """Features of an image's views become more alike than those of different images, which do not become one."""
    made, batch = model(momentum=0.9), images(8)
    optimizer = torch.optim.Adam(made.student.parameters(), lr=3e-3)
    optimizer.register_step_post_hook(lambda *_: made.move_teacher())
    before = made.eval().losses(batch)["loss"]
    for count in range(40):
        made.train()
        made.progress.examples = 8 * count
        step(made, optimizer, batch)
    after = made.eval().losses(batch)["loss"]
    units = F.normalize(made.features(batch["image"]) - made.features(batch["image"]).mean(dim=0), dim=1)
    assert after < 0.5 * before
    assert units.std(dim=0).mean() > 0.5 / units.shape[1] ** 0.5


# --- what it is -------------------------------------------------------------------------------------------------------


def test_it_has_features_and_draws_nothing() -> None:
    made = model()
    assert isinstance(made, HasFeatures)
    assert fits(SelfDistillation, HasFeatures, partial=False)
    assert not isinstance(made, Classifies | GenerativeModel)
    assert made.features(images()["image"]).shape == (4, 24)


@pytest.mark.parametrize(("options", "message"), [
    ({"momentum": 1.5}, r"momentum=1\.5 must be in \[0, 1\]"),
    ({"momentum": -0.1}, r"momentum=-0\.1 must be in \[0, 1\]"),
    ({"momentum": float("nan")}, r"momentum=nan must be in \[0, 1\]"),
    ({"views": IndependentViews(View(), count=1)}, r"there is one\. Use model/views=byol"),
])  # fmt: skip
def test_bad_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**options)


def test_small_views_are_refused_where_the_encoder_takes_one_size() -> None:
    views = IndependentViews(View(), small=View(size=4), num_local=2)
    with pytest.raises(ConfigError, match=r"4 x 4 pixels, and a Dropped takes .*Use model\.views\.num_local=0, or mod"):
        model(encoder=Dropped, views=views)


def test_a_single_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs two images or more on each device\. Use a larger data\.batch_size"):
        model().training_step(images(1), 0)
