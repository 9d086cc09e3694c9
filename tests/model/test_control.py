"""Control of a diffusion model: a new one is its base to the last bit, what is trained, and what hints are."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.errors import ConfigError
from genlab.model.condition_hint import HINT
from genlab.model.control import Control
from genlab.model.diffusion import Diffusion
from genlab.model.guidance.classifier_free import ClassifierFree
from genlab.model.hint.edges import Edges
from genlab.model.hint.layout import Layout
from genlab.model.hint.mask import Mask
from genlab.model.network.dit import DiT
from genlab.model.network.mlp import MLP
from genlab.model.network.unet import UNet
from genlab.model.objective.edm import EDM
from genlab.model.sampler.dpm_solver import DPMSolver2M
from genlab.model.sampler.grid import Karras
from genlab.model.schedule import Constant
from genlab.seeding import RandomStream

SHAPE = (3, 8, 8)
TOLD: dict[str, Any] = {
    "label": {"size": 3},
    "caption": {"size": 4, "length": 3, "names": ["<nothing>", "a", "red", "dot"]},
    "layout": {"size": 5},
}
NETWORKS: dict[str, Any] = {
    "unet": partial(UNet, SHAPE, channels=8, channel_mult=[1, 2], num_blocks=1, num_heads=1, dropout=0.5),
    "unet_of_words": partial(UNet, SHAPE, channels=8, channel_mult=[1], num_heads=1, attends_to_words=True),
    "dit": partial(DiT, SHAPE, width=8, depth=3, num_heads=2, dropout=0.5),
    "dit_of_words": partial(DiT, SHAPE, width=8, depth=2, num_heads=2, attends_to_words=True),
}
QUICK = ("unet", "dit_of_words")  # of `make test`
EACH = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.matrix]) for name in NETWORKS]
OPTIMIZER = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.5)


def diffusion(network: str = "unet", **changes: Any) -> Diffusion:
    """Trained, as it seems: no weight is 0."""
    make = NETWORKS.get(network, partial(MLP, SHAPE, width=8, depth=1))
    conditions = ["caption"] if "words" in network else ["label"]
    arguments = {"told": TOLD, "conditions": conditions, **changes}
    model = Diffusion(make, EDM(), DPMSolver2M(2, Karras()), OPTIMIZER, Constant(), SHAPE, **arguments)
    model.configure_model()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


def controlled(base: Diffusion, hint: Any = None, **changes: Any) -> Control:
    """As a new run begins."""
    model = Control(base, hint or Edges(), OPTIMIZER, Constant(), SHAPE, TOLD, **changes)
    model.configure_model()
    model.on_fit_start()
    return model.eval()


def batch(count: int = 4) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand(count, *SHAPE, generator=draw) * 2 - 1,
        "label": torch.arange(count) % 3,
        "caption": torch.tensor([[1, 2, 3], [1, 3, 0]])[torch.arange(count) % 2],
        "layout": torch.randint(5, (count, 8, 8), generator=draw).to(torch.uint8),
    }


def step(model: Any) -> None:
    optimizer = model.configure_optimizers()
    model.training_step(batch(), 0).backward()
    optimizer.step()


@pytest.mark.parametrize("network", EACH)
def test_a_new_one_is_its_base_to_the_last_bit(network: str) -> None:
    """Its D(x; sigma) for any hint, and its samples with guidance."""
    base = diffusion(network)
    model, given = controlled(base), batch()
    condition = model.conditions.of(given)
    assert condition is not None
    told = {key: value for key, value in condition.items() if key != HINT}
    sigma = torch.tensor([0.1, 0.5, 2.0, 20.0])
    with torch.no_grad():
        found = model.denoiser(condition)(given["image"], sigma)
        assert torch.equal(found, base.denoiser(told)(given["image"], sigma))
    base.guidance = model.guidance = ClassifierFree(3.0)
    drawn = [m.sample(4, c, RandomStream.for_samples(0, range(4))) for m, c in ((model, condition), (base, told))]
    assert torch.equal(*drawn)
    assert model.evaluations == base.evaluations == 4 + 2 * 2 * 4
    branch = model.network.branch.state_dict()
    copied = model.network.branch.copied_from(base.network.state_dict())
    assert len(copied) > len(branch) / 2
    assert all(torch.equal(value, branch[name]) for name, value in copied.items())


@pytest.mark.parametrize("network", EACH)
def test_the_branch_is_trained_and_the_base_is_not(network: str) -> None:
    """Not even by weight decay. The links that begin at 0 have gradients in the first step, all else from the second
    or third on, since the hint's own last layer begins at 0 too."""
    base = diffusion(network)
    model = controlled(base, condition_dropout=0.0).train()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.partition("branch.")[0] for name in names} == {"network."}
    assert {name for name, _ in model.averaged()} == names
    optimizer = model.configure_optimizers()
    seen: set[str] = set()
    for number in range(3):
        optimizer.zero_grad()  # type: ignore[union-attr]
        model.training_step(batch(), 0).backward()
        got = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        if number == 0:
            links = {name for name in names if ".links." in name and name.endswith("weight")}
            assert links <= got
            assert all("links" in name for name in got)
        seen |= got
        optimizer.step()  # type: ignore[union-attr]
    unseen = {name for name in names if "attention.qkv" not in name} - seen
    assert {name for name in unseen if "told" not in name} == set()
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    assert not any(module.training for module in base.modules())
    assert {name.partition(".")[0] for name in model.state_dict()} == {"is_copied", "network", "base"}  # of a run not


def test_a_hint_matters_once_it_is_trained_and_rows_without_one_are_the_bases() -> None:
    base = diffusion()
    model, given = controlled(base, Edges(0.4)), batch()
    for parameter in model.network.branch.parameters():
        nn.init.normal_(parameter, std=0.2)
    condition = dict(model.conditions.of(given) or {})
    condition[HINT][1] = torch.nan
    sigma = torch.ones(4)
    with torch.no_grad():
        found = model.denoiser(condition)(given["image"], sigma)
        own = base.denoiser({"label": given["label"]})(given["image"], sigma)
        assert torch.equal(model.denoiser({"label": given["label"]})(given["image"], sigma), own)
        assert torch.equal(model.denoiser(None)(given["image"], sigma), base.denoiser(None)(given["image"], sigma))
        same = (found == own).flatten(1).all(dim=1)
        assert same.tolist() == [False, True, False, False]
        other = {**condition, HINT: condition[HINT].flip(-1)}
        assert not torch.equal(model.denoiser(other)(given["image"], sigma)[0], found[0])
        model.network.strength = 0.0
        torch.testing.assert_close(model.denoiser(condition)(given["image"], sigma), own, rtol=0, atol=0)


def test_guidance_compares_with_a_prediction_that_sees_the_hint() -> None:
    model = controlled(diffusion(), guidance=ClassifierFree(2.0))
    condition = model.conditions.of(batch())
    assert condition is not None
    blank = model.unconditional(condition)
    assert blank is not None
    assert torch.equal(blank[HINT], condition[HINT])
    assert (blank["label"] == -1).all()
    assert set(model.unconditional({"label": condition["label"]}) or {}) == {"label", HINT}


def test_conditions_of_the_base_are_dropped_and_the_hint_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = controlled(diffusion(), condition_dropout=1.0), []
    monkeypatch.setattr(
        model.objective, "loss", lambda network, x, condition, progress: seen.append(condition) or x.sum()
    )
    model.training_step(batch(), 0)
    assert (seen[0]["label"] == -1).all()
    assert torch.equal(seen[0][HINT], Edges().draw(batch()["image"]))
    assert model.losses(batch())
    assert torch.equal(seen[1]["label"], batch()["label"])


def test_what_is_not_new_begins_with_what_it_is_given() -> None:
    """The branch is copied once: a run that goes on has its own."""
    model = controlled(diffusion())
    assert bool(model.is_copied)
    before = torch.zeros_like(model.network.branch.stem.weight)
    model.network.branch.stem.weight.data.zero_()
    model.on_fit_start()
    assert torch.equal(model.network.branch.stem.weight, before)


# --- hints ------------------------------------------------------------------------------------------------------------


def test_edges_of_a_step_are_the_two_columns_beside_it() -> None:
    """A step of height h between black and white has the Sobel gradient h / 2, and a corner less."""
    picture = torch.full((1, 3, 6, 6), -1.0)
    picture[:, 1, :, 3:] = -1 + 2 * 0.3  # in one channel
    edges = Edges(threshold=0.29).draw(picture)
    assert edges.shape == (1, 1, 6, 6)
    assert edges[0, 0].eq(torch.tensor([0, 0, 1, 1, 0, 0])).all()
    assert not Edges(threshold=0.31).draw(picture).any()
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    noise = batch()["image"]
    padded = nn.functional.pad(noise, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    x, y = (nn.functional.conv2d(padded, k[None, None]) for k in (kernel, kernel.T))
    size = ((x**2 + y**2).sqrt() / 8).unflatten(0, (4, 3)).amax(dim=1)
    assert torch.equal(Edges(threshold=0.3).draw(noise), (size > 0.3).float())


def test_a_mask_is_what_differs_from_the_border() -> None:
    picture = torch.full((2, 3, 8, 8), 0.25)
    picture[1] = -0.5
    picture[:, 2, 2:5, 3:6] += 0.3
    expected = torch.zeros(2, 1, 8, 8)
    expected[:, :, 2:5, 3:6] = 1
    assert torch.equal(Mask(threshold=0.14).draw(picture), expected)
    assert not Mask(threshold=0.16).draw(picture).any()


@pytest.mark.parametrize("kind", [Edges, Mask])
def test_hints_are_functions_of_the_picture_alone(kind: Any) -> None:
    images = batch(6)["image"]
    together = kind(0.2).draw(images)
    assert torch.equal(torch.cat([kind(0.2).draw(image[None]) for image in images]), together)
    assert torch.equal(kind(0.2).draw(images.flip(0)), together.flip(0))
    assert set(together.unique().tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match=r"model.hint.threshold=1 must be at least 0 and below 1"):
        kind(1)


def test_a_layout_has_a_map_for_each_class() -> None:
    layout = Layout()
    assert layout.channels(TOLD) == 5
    given = batch()["layout"]
    found = layout.draw(given)
    assert torch.equal(found.argmax(dim=1), given.long())
    assert torch.equal(found.sum(dim=1), torch.ones(4, 8, 8))
    with pytest.raises(ValueError, match="a layout has the class 5, and those of the data are 0 to 4"):
        layout.draw(given + 1)
    model = controlled(diffusion(), Layout())
    assert model.network.branch.hint.first.in_channels == 5
    assert torch.equal((model.conditions.of(batch()) or {})[HINT], found)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_data_unlike_the_bases_are_refused() -> None:
    base = diffusion()

    def made(hint: Any = None, shape: Any = SHAPE, told: Any = TOLD, **changes: Any) -> Control:
        return Control(base, hint or Edges(), OPTIMIZER, Constant(), shape, told, **changes)

    with pytest.raises(ValueError, match=r"trained on images of shape \(3, 8, 8\), the data have \(1, 8, 8\)"):
        made(shape=(1, 8, 8))
    for told in ({}, {"label": {"size": 4}}, {"label": None}):
        with pytest.raises(
            ValueError, match=r"model\.base was trained with a label of 3 values, and those of the data"
        ):
            made(told=told)
    words = {**TOLD, "caption": {**TOLD["caption"], "names": ["<nothing>", "a", "blue", "dot"]}}
    with pytest.raises(ValueError, match=r"model\.base was trained with a caption of 4 values"):
        Control(diffusion("dit_of_words"), Edges(), OPTIMIZER, Constant(), SHAPE, words)
    with pytest.raises(ValueError, match=r"model/hint=layout needs data that know where their objects are"):
        made(Layout(), told={"label": TOLD["label"]})
    with pytest.raises(ValueError, match=r"model\.strength=-1 must be finite and at least 0"):
        made(strength=-1)
    model = Control(diffusion("mlp"), Edges(), OPTIMIZER, Constant(), SHAPE, TOLD)
    with pytest.raises(
        ConfigError, match=r"its network, a MLP, cannot be controlled\. Name a run of model/network=unet"
    ):
        model.configure_model()
