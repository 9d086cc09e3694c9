"""JEPA: its blocks, that only the trained networks get gradients, the moving average, and that it learns."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.model.augment.views import IndependentViews, View, numbers_by_index
from genlab.model.base import GenerativeModel, HasFeatures
from genlab.model.block_masks import BlockMasks, Blocks, Sizes
from genlab.model.jepa import JEPA
from genlab.model.network.masked_vit import MaskedPredictor, MaskedViT
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.schedule import Constant
from genlab.model.spread import effective_rank

SHAPE = (3, 12, 12)
GRIDS = [(2, 2), (2, 3), (1, 6), (4, 4), (8, 8), (14, 14), (3, 16)]


def model(
    masks: BlockMasks | None = None, shape: tuple[int, ...] = SHAPE, patch_size: int = 2, encoder: Any = None,
    **options: Any,
) -> JEPA:  # fmt: skip
    torch.manual_seed(0)
    sizes = {"depth": 1, "num_heads": 2, "mlp_ratio": 2.0}
    network = {"width": 16, "class_token": False} | sizes | (encoder or {})
    made = JEPA(
        partial(MaskedViT, shape, patch_size=patch_size, **network),
        partial(MaskedPredictor, width=8, **sizes),
        masks or BlockMasks(),
        IndependentViews(View(scale=(1.0, 1.0), flip=0, jitter=0, gray=0, blur=0), count=1),
        lambda p: torch.optim.AdamW(p, lr=1e-2), Constant(), shape, **options,
    )  # fmt: skip
    made.configure_model()
    return made


def batch(count: int = 4, shape: tuple[int, ...] = SHAPE) -> dict[str, Tensor]:
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return {"image": images, "index": torch.arange(count) + 10}


def drawn(grid: tuple[int, int], sizes: Sizes, count: int = 500, masks: BlockMasks | None = None) -> Blocks:
    return (masks or BlockMasks()).draw(grid, sizes, numbers_by_index(0, 0, torch.arange(count)))


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("uniform", [(0, 0, 0), (1, 0.5, 1), (0.3, 1, 0.6)])
def test_something_is_hidden_and_something_else_is_seen(grid: tuple[int, int], uniform: Sequence[float]) -> None:
    """Of every image, however few patches it has."""
    masks = BlockMasks()
    masks.check(grid)
    sizes = masks.sizes(grid, uniform)
    seen, targets = drawn(grid, sizes)
    assert seen.shape == (500, masks.num_seen(grid, sizes))
    assert seen.shape[1] >= 1
    assert targets.shape == (500, 4, math.prod(sizes.target))
    for numbers in (seen, targets.flatten(1)):
        assert 0 <= int(numbers.min()) <= int(numbers.max()) < math.prod(grid)
    assert not (seen[:, :, None] == targets.flatten(1)[:, None]).any()  # nothing seen is asked for
    assert (seen.sort(dim=1).values.diff(dim=1) > 0).all()  # nothing twice


def test_targets_are_blocks_and_what_is_seen_is_in_one() -> None:
    grid, sizes = (8, 8), Sizes((3, 4), (6, 7))
    seen, targets = drawn(grid, sizes)
    for numbers in targets[:20].flatten(0, 1):
        rows, columns = numbers // 8, numbers % 8
        assert rows.unique().tolist() == list(range(int(rows[0]), int(rows[0]) + 3))
        assert columns.unique().tolist() == list(range(int(columns[0]), int(columns[0]) + 4))
        assert len(numbers.unique()) == 12
    for numbers, of in ((seen // 8, 6), (seen % 8, 7)):
        assert (numbers.amax(dim=1) - numbers.amin(dim=1) < of).all()


def test_all_places_of_a_block_are_as_likely() -> None:
    _, targets = drawn((5, 6), Sizes((2, 3), (5, 6)), count=6000, masks=BlockMasks(num_targets=1))
    share = (
        targets[:, 0, 0].bincount(minlength=24)[[row * 6 + column for row in range(4) for column in range(4)]] / 6000
    )
    assert (share - 1 / 16).abs().max() < 0.0125  # 4 deviations


def test_sizes_are_those_of_the_paper() -> None:
    """On 14 x 14 patches: by the largest scale of 0.2 a square of 6 x 6, by an aspect of 1.5 one of 8 x 5."""
    masks = BlockMasks()
    assert masks.sizes((14, 14), (1, 1 / 3, 1)) == Sizes((6, 6), (14, 14))
    assert masks.sizes((14, 14), (1, 1, 0)) == Sizes((8, 5), (13, 13))
    assert masks.sizes((14, 14), (0, 0, 0)).target == (5, 6)
    assert masks.largest((14, 14)).context == (14, 14)
    assert math.prod(masks.largest((14, 14)).target) >= 40


def test_so_many_are_seen_as_99_of_100_draws_leave() -> None:
    """Counted by other draws, in plain Python."""
    grid, sizes, rng = (6, 6), Sizes((2, 3), (5, 6)), np.random.default_rng(0)
    left = []
    for _ in range(2000):
        top, seen = rng.integers(0, 2), set()
        seen = {(row, column) for row in range(top, top + 5) for column in range(6)}
        for _ in range(4):
            row, column = rng.integers(0, 5), rng.integers(0, 4)
            seen -= {(row + i, column + j) for i in range(2) for j in range(3)}
        left.append(len(seen))
    assert abs(BlockMasks().num_seen(grid, sizes) - np.quantile(left, 0.01)) <= 1


def test_blocks_depend_on_the_index_and_not_on_the_batch() -> None:
    masks, grid, index = BlockMasks(), (6, 6), torch.tensor([5, 1000, 7])
    sizes = masks.sizes(grid, (0.5, 0.5, 0.5))
    whole = masks.draw(grid, sizes, numbers_by_index(3, 64, index))
    part = masks.draw(grid, sizes, numbers_by_index(3, 64, index[[2, 0]]))
    assert all(torch.equal(a, b[[2, 0]]) for a, b in zip(part, whole, strict=True))
    others = masks.draw(grid, sizes, numbers_by_index(3, 128, index))
    assert not torch.equal(others.targets, whole.targets)


def test_sizes_of_a_step_are_named_and_its_dearest_is_known() -> None:
    made = model(shape=(3, 28, 28))
    made.accumulation.begin_batch()
    kinds, areas = set(), []
    for examples in range(0, 64 * 200, 64):
        made.progress.examples = examples
        kinds.add(made.step_kind(0))
        areas.append(math.prod(made.sizes().target))
    assert len(kinds) > 5
    made.at_full_cost()
    assert math.prod(made.sizes().target) >= max(areas)
    assert made.sizes().context == (14, 14)


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "of"), [("smooth_l1", F.smooth_l1_loss), ("squared_error", F.mse_loss)])
def test_it_is_of_normalised_vectors_of_each_block(loss: Any, of: Any) -> None:
    """Written out, image by image and block by block."""
    made, images = model(loss=loss), batch()["image"]
    blocks = drawn((6, 6), Sizes((2, 3), (5, 5)), count=4)
    losses = []
    for i, image in enumerate(images):
        whole = made.encoder.tokens(image[None])[0]
        whole = (whole - whole.mean(dim=1, keepdim=True)) / (whole.var(dim=1, correction=0, keepdim=True) + 1e-5).sqrt()
        tokens = made.context_encoder.tokens(image[None], blocks.seen[i : i + 1])
        for asked in blocks.targets[i]:
            predicted = made.predictor(tokens, blocks.seen[i : i + 1], asked[None])[0]
            losses.append(of(predicted, whole[asked]))
    torch.testing.assert_close(made.loss(images, blocks), torch.stack(losses).mean())


def test_the_trained_encoder_sees_no_target() -> None:
    """And the other one sees all."""
    made, images = model(), batch(1)["image"]
    blocks = Blocks(torch.arange(18)[None], torch.arange(18, 36).view(1, 2, 9))  # the upper half, and the lower
    predicted, target = made.predict(images, blocks), made.targets(made.whole(images), blocks)
    changed = images.clone()
    changed[:, :, 6:] *= -1
    assert torch.equal(made.predict(changed, blocks), predicted)
    assert not torch.equal(made.targets(made.whole(changed), blocks), target)


def test_gradients_are_of_the_trained_networks_alone() -> None:
    made = model()
    made.losses(batch())["loss"].backward()
    for name, p in made.named_parameters():
        is_target = name.startswith("encoder.")
        assert p.requires_grad != is_target
        assert (p.grad is None) == is_target
        # the last gains and biases of a normalised output's network have gradients as all have
        assert is_target or (p.grad is not None and bool(p.grad.any())), name
    averaged = {name for name, _ in made.averaged()}
    assert averaged == {name for name, _ in made.named_parameters() if not name.startswith("encoder.")}


def test_gains_biases_and_norms_are_not_decayed() -> None:
    made = model()
    groups = parameter_groups(made)
    kept = {id(p) for group in groups if group.get("weight_decay") == 0 for p in group["params"]}
    names = {name for name, p in made.named_parameters() if id(p) in kept}
    trained = {name for name, _ in made.named_parameters() if not name.startswith("encoder.")}
    assert names == {name for name in trained if name.endswith("bias") or "norm" in name}


# --- the moving average -----------------------------------------------------------------------------------------------


def test_it_begins_as_a_copy() -> None:
    made = model()
    for average, weight in zip(made.encoder.parameters(), made.context_encoder.parameters(), strict=True):
        assert torch.equal(average, weight)
        assert average.data_ptr() != weight.data_ptr()


def test_it_follows_by_its_momentum() -> None:
    """k steps toward weights that stay: momentum^k of the distance is left."""
    made = model()
    before = [p.clone() for p in made.encoder.parameters()]
    with torch.no_grad():
        for p in made.context_encoder.parameters():
            p += 1
    for _ in range(3):
        made.follow(0.9)
    for was, p in zip(before, made.encoder.parameters(), strict=True):
        torch.testing.assert_close(p, was + 1 - 0.9**3)
    made.follow(1.0)
    for was, p in zip(before, made.encoder.parameters(), strict=True):
        torch.testing.assert_close(p, was + 1 - 0.9**3)


def test_its_momentum_rises_to_one_over_the_budget() -> None:
    made = model(momentum=0.9)
    assert [made.momentum_at(f) for f in (0.0, 0.5, 1.0)] == pytest.approx([0.9, 0.95, 1.0])


# --- what it gives ----------------------------------------------------------------------------------------------------


def test_features_are_the_mean_of_the_moving_averages_patches() -> None:
    made, images = model(), batch()["image"]
    with torch.no_grad():
        for p in made.context_encoder.parameters():
            p.zero_()
    assert isinstance(made, HasFeatures)
    assert not isinstance(made, GenerativeModel)
    torch.testing.assert_close(made.features(images), made.encoder.tokens(images).mean(dim=1))
    assert made.features(images).std() > 0.01
    assert made.train().encoder.training is False


def test_a_class_token_is_seen_and_not_predicted() -> None:
    made = model(encoder={"class_token": True})
    assert torch.isfinite(made.losses(batch())["loss"])
    assert made.targets(made.whole(batch()["image"]), drawn((6, 6), Sizes((2, 2), (6, 6)), 4)).shape == (4, 4, 4, 16)


def test_it_learns_and_its_features_do_not_collapse() -> None:
    """Images of two slopes: their vectors are predicted, and the slopes are a linear map of them."""
    slopes = torch.rand(2, 600, 1, 1, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ramp = torch.linspace(-1, 1, 8)
    images = slopes[0] * ramp[:, None] + slopes[1] * ramp
    made = model(shape=(1, 8, 8), encoder={"width": 32}, momentum=0.95)
    optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=3e-3)
    held_out = {"image": images[500:], "index": torch.arange(100)}
    with torch.no_grad():
        before = float(made.losses(held_out)["loss"])
    steps = 100
    for step in range(steps):
        index = torch.from_numpy(np.random.default_rng(step).integers(0, 500, 32))
        made.progress.examples = 32 * step
        blocks = made.masks.draw((4, 4), made.sizes(), numbers_by_index(0, 32 * step, index))
        loss = made.loss(images[index], blocks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        made.follow(made.momentum_at(step / steps))
    with torch.no_grad():
        after = float(made.losses(held_out)["loss"])
        features = torch.cat([made.features(held_out["image"]), torch.ones(100, 1)], dim=1)
    assert after < before / 4
    slope = slopes[:, 500:].flatten(1).T  # (100, 2)
    found = features[50:] @ torch.linalg.lstsq(features[:50], slope[:50], driver="gelsd").solution
    assert (found - slope[50:]).square().mean() < 0.1 * slope[50:].var()
    assert effective_rank(features[:, :-1]) > 2


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan")])
def test_a_momentum_outside_its_range_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match=r"use a value from 0 to 1, such as model\.momentum=0\.996"):
        model(momentum=momentum)


@pytest.mark.parametrize(("options", "message"), [
    ({"num_targets": 0}, "num_targets=0 must be 1 or more"),
    ({"target_scale": (0.0, 0.2)}, r"target_scale=\[0.0, 0.2\] must be two shares of the image in order"),
    ({"target_scale": (0.3, 0.2)}, "must be two shares of the image in order"),
    ({"context_scale": (0.9, 1.1)}, "context_scale=.* must be two shares of the image in order"),
    ({"target_aspect": (1.5, 0.75)}, "must be two ratios in order"),
    ({"target_aspect": (0.0, 0.75)}, "must be two ratios in order"),
    ({"context_scale": (0.5,)}, "must be two shares of the image in order"),
])  # fmt: skip
def test_ranges_that_are_none_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlockMasks(**options)


def test_images_of_too_few_patches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in images of 1 x 1 patches a target of 1 x 1 can leave nothing to see"):
        model(patch_size=12)
    with pytest.raises(ValueError, match=r"can leave nothing to see\. Use a smaller model\.encoder\.patch_size"):
        model(BlockMasks(target_scale=(0.5, 1.0)))
    assert torch.isfinite(model(patch_size=6).losses(batch())["loss"])  # 2 x 2
