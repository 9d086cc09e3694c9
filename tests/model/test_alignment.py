"""Alignment of a denoiser with trained features, by closed forms, and the maps of frozen networks."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.model.alignment.repa import REPA
from genlab.model.frozen_features import as_map, maps_of, without_memory
from genlab.model.network.dit import DiT
from genlab.model.network.vit import ViTFeatures
from genlab.model.objective.edm import EDM

SHAPE = (1, 4, 4)


class Pixels(nn.Module):
    """Patches of one pixel, whose vector is (pixel, 1)."""

    def __init__(self, grid: tuple[int, int] = (4, 4)):
        super().__init__()
        self.grid = grid
        self.scale = nn.Parameter(torch.ones(()))
        self.blocks = nn.ModuleList([nn.Identity(), nn.Dropout(0.5)])

    def tokens(self, image: Tensor) -> Tensor:
        side = image.shape[2] // self.grid[0]
        pixels = self.scale * nn.functional.avg_pool2d(image, side).flatten(2).mT
        for block in self.blocks:
            pixels = block(pixels)
        pixels = torch.cat([pixels, torch.ones_like(pixels)], dim=2)
        return torch.cat([torch.zeros_like(pixels[:, :1]), pixels], dim=1)

    def of_patches(self, tokens: Tensor) -> Tensor:
        return tokens[:, 1:]


class Trained(nn.Module):
    """A trained model; without ``patches`` its network has no vectors of them."""

    feature_network = "network"

    def __init__(self, patches: bool = True, grid: tuple[int, int] = (4, 4)):
        super().__init__()
        self.shape, self.network = SHAPE, None
        self.grid, self.patches = grid, patches

    def configure_model(self) -> None:
        if self.network is None:
            self.network = Pixels(self.grid) if self.patches else nn.Flatten()

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Blocks(nn.Module):
    """A denoiser whose first block puts out what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1)])

    def forward(self, x: Tensor, noise_level: Tensor, condition: Any) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def prepared(features: Trained, network: nn.Module | None = None, **arguments: Any) -> REPA:
    alignment = REPA(features, SHAPE, **{"layer": 0.0, "width": 8} | arguments)
    alignment.prepare(network or Blocks(), SHAPE)
    return alignment


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("length", [0.1, 7.0])
def test_vectors_that_point_alike_have_the_least_loss(sign: int, length: float) -> None:
    alignment = prepared(Trained())
    alignment.projector = nn.Identity()
    images = torch.randn(3, *SHAPE)
    hidden = torch.cat([images, torch.ones_like(images)], dim=1)  # of each place (pixel, 1), as the features
    for form in (hidden, hidden.flatten(2).mT):
        torch.testing.assert_close(alignment.alignment(sign * length * form, images), torch.tensor(-float(sign)))
    across = torch.cat([torch.ones_like(images), -images], dim=1)
    torch.testing.assert_close(alignment.alignment(across, images), torch.tensor(0.0))


def test_features_of_whole_images_are_compared_with_means_over_places() -> None:
    alignment = prepared(Trained(patches=False))
    alignment.projector = nn.Identity()
    images = torch.randn(3, *SHAPE)
    deviations = torch.randn(3, 16, 5, 5)
    hidden = images.flatten(1)[:, :, None, None] + deviations - deviations.mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(alignment.alignment(hidden, images), torch.tensor(-1.0))
    vectors = images.flatten(1)  # a denoiser without places, whatever features there are
    torch.testing.assert_close(alignment.alignment(vectors, images), torch.tensor(-1.0))


@pytest.mark.parametrize(("coarse", "fine"), [((2, 2), (4, 4)), ((4, 4), (2, 2)), ((1, 1), (4, 4))])
def test_patches_are_resized_to_the_places_of_the_block(coarse: tuple[int, int], fine: tuple[int, int]) -> None:
    """A gradient over the picture stays one: symmetric, and with the same mean."""
    alignment = prepared(Trained(grid=coarse))
    image = torch.linspace(-1, 1, 4).expand(1, 1, 4, 4)
    targets = alignment.targets(image, fine).unflatten(1, fine)[0, :, :, 0]
    assert targets.shape == fine
    torch.testing.assert_close(targets, -targets.flip(1))
    torch.testing.assert_close(targets, targets[:1].expand_as(targets))
    assert bool((targets.diff(dim=1) >= 0).all())
    assert (targets[0, -1] > 0.1) == (coarse != (1, 1))


def test_gradients_go_to_the_denoiser_and_the_perceptron_alone() -> None:
    torch.manual_seed(0)
    network, features = Blocks(), Trained()
    alignment = prepared(features, network, weight=2.0).train()
    assert not features.training
    images = torch.randn(3, *SHAPE)
    losses = alignment.losses(network, images, lambda: network(images, torch.zeros(3), None).mean())
    parts = network(images, torch.zeros(3), None).mean(), losses["alignment"]
    torch.testing.assert_close(losses["loss"], parts[0] + 2 * parts[1])
    losses["alignment"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in alignment.projector.parameters())
    assert all(p.grad is not None for p in network.blocks[0].parameters())
    assert all(p.grad is None for p in network.blocks[1].parameters()), "it stands behind the block that is read"
    assert all(p.grad is None and not p.requires_grad for p in features.parameters())


def test_a_weight_of_0_changes_nothing() -> None:
    alignment = prepared(Trained(), weight=0.0)
    assert alignment.projector is None
    loss = torch.tensor(3.0)
    assert alignment.losses(Blocks(), torch.zeros(1, *SHAPE), lambda: loss) == {"loss": loss}


def test_a_training_step_sees_the_noise_that_it_would_without() -> None:
    network = DiT((1, 4, 4), {}, patch_size=2, width=8, depth=2, num_heads=1, dropout=0.3)
    alignment, objective, images = prepared(Trained(), network), EDM(), torch.randn(4, *SHAPE)
    losses = []
    for losses_of in (alignment.losses, lambda _network, _images, loss: {"loss": loss(), "alignment": 0.0}):
        torch.manual_seed(3)
        found = losses_of(network, images, lambda: objective.loss(network, images, None, 0.0))
        losses.append(found["loss"] - 0.5 * found["alignment"])
    torch.testing.assert_close(*losses)


# --- maps of frozen networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "sides", "expected"), [
    ((2, 3, 4, 5), (8, 10), (2, 3, 4, 5)),
    ((2, 16, 3), (8, 8), (2, 3, 4, 4)),
    ((2, 17, 3), (8, 8), (2, 3, 4, 4)),
    ((2, 2, 3), (8, 8), (2, 3, 1, 1)),
    ((2, 8, 3), (4, 8), (2, 3, 2, 4)),
    ((2, 9, 3), (8, 4), (2, 3, 4, 2)),
    ((2, 3), (8, 8), (2, 3, 1, 1)),
])  # fmt: skip
def test_what_blocks_put_out_as_maps(shape: tuple[int, ...], sides: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert as_map(torch.zeros(shape), sides).shape == expected


def test_vectors_of_places_are_in_rows() -> None:
    places = torch.arange(8.0).view(1, 1, 2, 4)
    rows = places.flatten(2).mT
    assert torch.equal(as_map(rows, (4, 8)), places)
    assert torch.equal(as_map(torch.cat([torch.full((1, 1, 1), 9.0), rows], dim=1), (4, 8)), places)
    with pytest.raises(ValueError, match=r"puts out 7 vectors of an input of 8x8 has none for each place of a grid"):
        as_map(torch.zeros(1, 7, 1), (8, 8))


def test_shapes_are_known_without_memory_and_without_random_numbers() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Conv2d(1, 3, 3))
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in network.state_dict().items()}
    made = without_memory(network, lambda x: network(x), (2, 1, 8, 8))
    assert (made.device.type, tuple(made.shape)) == ("meta", (2, 3, 6, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_a_vision_transformer_of_features_has_vectors_of_patches() -> None:
    torch.manual_seed(0)
    network = ViTFeatures((1, 4, 8), patch_size=2, width=8, depth=2, num_heads=1, features="mean")
    x = torch.randn(3, 1, 4, 8)
    assert network.grid == (2, 4)
    torch.testing.assert_close(network.of_patches(network.tokens(x)).mean(dim=1), network(x))
    trained = Trained()
    trained.network = network
    assert [tuple(m.shape) for m in maps_of(trained, x)] == [(3, 8, 2, 4)] * 2
    torch.testing.assert_close(
        network.norm(maps_of(trained, x)[1].flatten(2).mT), network.of_patches(network.tokens(x))
    )
