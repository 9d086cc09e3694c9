"""StyleGAN2's networks, its penalty and its steps.

``stylegan2_reference.json`` was recorded with its authors' program (stylegan2-ada-pytorch, its plain PyTorch
operations, torch 2.13, one CPU thread): three small pairs of networks, one of each architecture, with the weights of
``fill``. Of the images, the products with ``probe`` and the colors of a pixel stand there; of gradients, products with
``wave`` of their shape.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.signal import upfirdn
from torch import Tensor, nn

from genlab.errors import ConfigError
from genlab.model.condition_kind import Label
from genlab.model.gan import slow_down
from genlab.model.generator_penalty import PathLength
from genlab.model.network.resample import Blur, doubled
from genlab.model.network.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
from genlab.model.objective.penalty import R1
from genlab.run import assemble
from tiny_run import compose, plain, small

REFERENCE = json.loads((Path(__file__).parent / "stylegan2_reference.json").read_text(encoding="utf-8"))
CLASSES = {"plain": 0, "skip": 3, "residual": 0}


def wave(*shape: int, phase: float = 0.0) -> Tensor:
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (1.4 * torch.sin(0.37 * i * (1 + 0.013 * i.remainder(17)) + phase)).float().reshape(shape)


@torch.no_grad()
def fill(network: nn.Module) -> None:
    for k, (name, values) in enumerate([*network.named_parameters(), *network.named_buffers()]):
        if name.endswith("kernel"):
            continue
        values.copy_(wave(*values.shape, phase=k))
        if any(part in name for part in ("bias", "strength", "average")):
            values.mul_(0.3)
        if ".mapping" in f".{name}" and name.endswith("weight") and "rows" not in name:
            values.mul_(100)


class Networks:
    def __init__(self, architecture: Any):
        told = {"label": Label(3)} if CLASSES[architecture] else {}
        self.generator = StyleGAN2Generator((3, 16, 16), told, 6, 64, 8, 10, 2, architecture=architecture, clamp=None)
        self.discriminator = StyleGAN2Discriminator((3, 16, 16), told, 64, 8, 2, architecture=architecture, clamp=None)
        fill(self.generator.eval())
        fill(self.discriminator.eval())
        self.noise, self.images = wave(4, 6, phase=3.0), wave(4, 3, 16, 16, phase=5.0)
        self.condition = {"label": torch.tensor([0, 1, 2, 1])} if told else None
        self.expected = REFERENCE[architecture]


@pytest.fixture(params=CLASSES)
def networks(request: pytest.FixtureRequest) -> Networks:
    return Networks(request.param)


def seen_of(images: Tensor) -> list[float]:
    return [*(images * wave(3, 16, 16, phase=7.0)).sum(dim=(1, 2, 3)).tolist(), *images[:, :, 5, 9].flatten().tolist()]


def close(values: Any, expected: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(values), torch.as_tensor(expected), rtol=1e-4, atol=1e-5)


# --- their authors' values --------------------------------------------------------------------------------------------


def test_images_are_those_of_their_authors(networks: Networks) -> None:
    close(seen_of(networks.generator(networks.noise, networks.condition)), networks.expected["images"])
    networks.generator.psi, networks.generator.psi_layers = 0.6, 3
    close(seen_of(networks.generator(networks.noise, networks.condition)), networks.expected["truncated"])


def test_scores_and_the_gradient_of_their_slope_are_those_of_their_authors(networks: Networks) -> None:
    network = networks.discriminator
    close(network(networks.images, networks.condition), networks.expected["scores"])
    penalty = R1(gamma=2.0, every=1).penalty(
        lambda images: network(images, networks.condition), networks.images, networks.images, torch.zeros(4)
    )
    close(penalty, networks.expected["r1"])
    coarse, fine = network.blocks
    weights = [fine.from_colors.weight, fine.conv.weight, coarse.down.weight, network.hidden.weight]  # type: ignore[union-attr]
    slopes = torch.autograd.grad(penalty, weights)  # type: ignore[arg-type]
    close([(slope * wave(*slope.shape)).sum() for slope in slopes], networks.expected["r1_gradient"])


def test_path_lengths_and_their_gradient_are_those_of_their_authors(networks: Networks) -> None:
    generator, expected = networks.generator, networks.expected
    penalty = PathLength(weight=2.0, every=4, decay=0.01)
    penalty.average.fill_(0.2)
    styles = generator.map(networks.noise, networks.condition)
    y = wave(4, 3, 16, 16, phase=11.0)
    value = penalty.penalty(generator.synthesize(styles), styles, lambda *shape: y)
    close(value, expected["path"])
    close(penalty.average, expected["path_average"])
    _, second, third = generator.synthesis.blocks
    weights = [generator.mapping.layers[0].weight, second.up.weight, second.conv.style.weight, third.to_colors.weight]  # type: ignore[union-attr]
    slopes = torch.autograd.grad(value, weights)  # type: ignore[arg-type]
    close([(slope.flatten() * wave(slope.numel())).sum() for slope in slopes], expected["path_gradient"])


def test_the_average_style_follows_as_their_authors_have_it(networks: Networks) -> None:
    networks.generator.mapping.average.zero_()
    networks.generator.follow(networks.generator.map(networks.noise, networks.condition))
    close(networks.generator.mapping.average[:4], networks.expected["w_avg"])


# --- properties -------------------------------------------------------------------------------------------------------


def test_resampling_is_a_filter_of_zeros_between_pixels() -> None:
    x, line = wave(2, 3, 6, 6), [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    up = x.numpy()
    for axis in (2, 3):
        up = upfirdn([2 * weight for weight in line], up, up=2, axis=axis)
    close(doubled(x).double(), up[:, :, 1:13, 1:13])
    down = F.pad(x, (1, 1, 1, 1)).numpy()
    for axis in (2, 3):
        down = upfirdn(line, down, axis=axis).take(range(3, 8, 2), axis=axis)
    close(Blur().halve(x).double(), down)


def test_styles_are_mixed_from_one_layer_of_a_batch_on() -> None:
    generator = Networks("skip").generator
    ones, twos = torch.ones(4, 6, 10), 2 * torch.ones(4, 6, 10)
    generator.style_mixing = 0.9
    for where, first in ((0.0, 1), (0.5, 3), (0.99, 5)):
        mixed = generator.mixed(ones, twos, torch.tensor([0.5, where]))
        assert mixed[:, :, 0].tolist() == 4 * [[1.0] * first + [2.0] * (6 - first)]
    assert torch.equal(generator.mixed(ones, twos, torch.tensor([0.95, 0.5])), ones)


def test_all_samples_without_deviation_are_the_average() -> None:
    networks = Networks("residual")
    networks.generator.psi = 0.0
    images = networks.generator(networks.noise, None)
    close(images, images[:1].expand_as(images))


def test_noise_of_pixels_matters_by_its_strength() -> None:
    networks = Networks("plain")
    styles = networks.generator.map(networks.noise, None)

    def normal(*shape: int) -> Tensor:
        return torch.ones(4, *shape)

    assert not torch.allclose(networks.generator.synthesize(styles, normal), networks.generator.synthesize(styles))
    for block in networks.generator.synthesis.blocks:
        for layer in (block.up, block.conv):
            if isinstance(layer, nn.Module):
                layer.strength.data.zero_()  # type: ignore[union-attr]
    close(networks.generator.synthesize(styles, normal), networks.generator.synthesize(styles))


@pytest.mark.parametrize("architecture", ["skip", "residual"])
def test_half_precision_is_for_the_finest_resolutions_and_near(architecture: str) -> None:
    networks = Networks(architecture)
    exact = networks.generator(networks.noise, networks.condition)
    scores = networks.discriminator(networks.images, networks.condition)
    for network in (networks.generator.synthesis, networks.discriminator):
        network.in_half = (
            [side > 4 for side in (4, 8, 16)] if network is networks.generator.synthesis else [True, False]
        )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = networks.generator(networks.noise, networks.condition)
        assert half.dtype == torch.float32
        assert 0 < (half - exact).norm() < 0.03 * exact.norm()
        torch.testing.assert_close(
            networks.discriminator(networks.images, networks.condition), scores, rtol=0.05, atol=0.05
        )
    networks.generator.synthesis.in_half, networks.discriminator.in_half = [False] * 3, [False] * 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(networks.generator(networks.noise, networks.condition), exact)
        assert torch.equal(networks.discriminator(networks.images, networks.condition), scores)


def test_feature_maps_are_clamped_after_their_gain() -> None:
    layer = Networks("residual").generator.synthesis.blocks[1].conv
    x, style = 100 * wave(4, layer.weight.shape[1], 8, 8), wave(4, 10)  # type: ignore[union-attr, misc]
    layer.requires_grad_(False).clamp = 0.5  # type: ignore[assignment]
    assert layer(x, style, None).abs().max().item() == 0.5
    assert layer(x, style, None, math.sqrt(0.5)).abs().max().item() == pytest.approx(0.5 * math.sqrt(0.5))


def test_steps_of_their_own_leave_an_optimizer_as_quick() -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.34, betas=(0.0, 0.99))
    slow_down(optimizer, 16)
    group = optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.32)
    assert group["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))


def test_the_weight_of_r1_can_be_found_from_size_and_batch() -> None:
    def scores(images: Tensor) -> Tensor:
        return 3 * images.flatten(1).sum(dim=1)  # of slope 3 at each of 3 x 4 x 4 numbers

    images = torch.zeros(2, 3, 4, 4)
    found = R1(gamma=None, every=2, batch_size=8).penalty(scores, images, images, torch.zeros(2))
    assert found.item() == pytest.approx(2 * (0.0002 * 16 / 8) / 2 * 9 * 48)
    with pytest.raises(ValueError, match="Add batch_size="):
        R1(gamma=None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.image_size=48"], "StyleGAN2 draws squares whose side is 8, 16, 32, 64"),
        (["model.generator.mapping_layers=40"], "mapping_layers=40 is not between 1 and 32"),
        (["model.generator.style_mixing=2"], "style_mixing=2 is outside"),
        (
            ["model.discriminator.channel_base=8"],
            "leaves no channels at 16x16. Use model.generator.channel_base=256",
        ),
        (["model/generator=dcgan", "model/generator_penalty=path_length"], "Use model/generator=stylegan2, or"),
        (["model/generator_penalty=path_length", "model.generator_penalty.every=0"], "every=0 and share=2 must be"),
    ],
)
def test_refused_in_a_sentence(overrides: list[str], message: str, tmp_path: Path) -> None:
    parts, values = [o for o in overrides if "/" in o], [o for o in overrides if "/" not in o]
    choices = small("model=stylegan2", "data=shapes", "data.image_size=16", *parts)
    config = compose(*choices, *values, outputs=tmp_path)
    assemble.build_data(config)
    config.run_dir, config.run_id = "", ""
    with pytest.raises((ConfigError, ValueError), match=message):
        assemble.build_model(plain(config)).configure_model()
