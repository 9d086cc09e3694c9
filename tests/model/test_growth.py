"""Progressive growth: its schedule, its images, and networks at the ends of a fade."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.condition_kind import Label
from genlab.model.growth import ProgressiveGrowth, Stage, enlarged, shrunk
from genlab.model.network.image_size import ImageSizeError
from genlab.model.network.progan import ProGANDiscriminator, ProGANGenerator
from genlab.model.objective.adversarial import Wasserstein
from genlab.model.objective.penalty import NoPenalty

TOLD = {"label": Label(3)}


def noise(count: int = 4) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(1))


def images(side: int, count: int = 4) -> Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.fixture
def generator() -> ProGANGenerator:
    torch.manual_seed(0)
    return ProGANGenerator((1, 16, 16), TOLD, latent_dim=8, channels=4)


@pytest.fixture
def discriminator() -> ProGANDiscriminator:
    torch.manual_seed(0)
    return ProGANDiscriminator((1, 16, 16), TOLD, channels=4)


# --- the schedule -----------------------------------------------------------------------------------------------------


def test_the_schedule_by_hand() -> None:
    """Stable up to 10; 8x8 fades from 10 to 14 and is stable up to 24; 16x16 fades from 24 to 28."""
    growth = ProgressiveGrowth(fade=4, stable=10)
    expected = {0: (0, 1.0), 9: (0, 1.0), 10: (1, 0.0), 11: (1, 0.25), 13: (1, 0.75), 14: (1, 1.0), 23: (1, 1.0),
                24: (2, 0.0), 26: (2, 0.5), 28: (2, 1.0), 38: (2, 1.0), 10**9: (2, 1.0)}  # fmt: skip
    assert {examples: growth.stage(examples, 3) for examples in expected} == expected
    assert growth.stage(10**9, 1) == (0, 1.0)
    assert [Stage(level, 1.0).resolution for level in range(4)] == [4, 8, 16, 32]


def test_without_a_fade_resolutions_follow_each_other() -> None:
    growth = ProgressiveGrowth(fade=0, stable=10)
    assert [growth.stage(examples, 3) for examples in (0, 9, 10, 19, 20)] == [(0, 1), (0, 1), (1, 1), (1, 1), (2, 1)]


def test_batches_are_divided_where_a_resolution_has_smaller_ones() -> None:
    growth = ProgressiveGrowth(4, 10, batch_size={8: 4, 16: 16})
    assert [growth.steps_of(Stage(level, 1.0), 16) for level in (0, 1, 2)] == [1, 4, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fade": -1}, "model.growth.fade=-1 must be >= 0"),
        ({"stable": 0}, "model.growth.stable=0 >= 1"),
        ({"batch_size": {12: 8}}, "model.growth.batch_size names the resolution 12; there are 4, 8, 16"),
        ({"batch_size": {"8": 8}}, "names the resolution '8'"),
        ({"lr_factor": {2: 1.5}}, "model.growth.lr_factor names the resolution 2"),
        ({"lr_factor": {8: 0.0}}, "model.growth.lr_factor of 8 is 0.0, and must be above 0"),
    ],
)
def test_schedules_that_cannot_be(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProgressiveGrowth(**given)  # type: ignore[arg-type]


# --- real images ------------------------------------------------------------------------------------------------------


def test_real_images_are_means_of_pixels() -> None:
    x = images(16)
    means = x.view(4, 1, 4, 4, 4, 4).mean(dim=(3, 5))
    torch.testing.assert_close(shrunk(x, Stage(0, 1.0)), means)
    assert shrunk(x, Stage(2, 1.0)) is x


def test_in_a_fade_real_images_are_mixed_with_their_half_resolution() -> None:
    x = images(8)
    coarse = x.view(4, 1, 4, 2, 4, 2).mean(dim=(3, 5)).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    for alpha in (0.0, 0.25):
        torch.testing.assert_close(shrunk(x, Stage(1, alpha)), alpha * x + (1 - alpha) * coarse)


def test_an_enlarged_image_shrinks_to_itself() -> None:
    x = images(4)
    torch.testing.assert_close(shrunk(enlarged(x, 16), Stage(0, 1.0)), x)
    assert enlarged(x, 4) is x


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2])
def test_a_generators_fade_goes_from_the_enlarged_lower_stage_to_the_next_one(
    generator: ProGANGenerator, level: int
) -> None:
    label = {"label": torch.tensor([0, 1, 2, -1])}
    drawn = {}
    for alpha in (0.0, 0.5, 1.0):
        generator.grow(level, alpha)
        drawn[alpha] = generator(noise(), label)
    generator.grow(level - 1, 1.0)
    lower = generator(noise(), label)
    assert lower.shape == (4, 1, 2 ** (level + 1), 2 ** (level + 1))
    assert torch.equal(drawn[0.0], enlarged(lower, 2 ** (level + 2)))
    torch.testing.assert_close(drawn[0.5], (drawn[0.0] + drawn[1.0]) / 2)
    generator.grow(level, 1.0)
    generator.is_fading = True  # the mixture itself, all of which is the new layers
    assert torch.equal(generator(noise(), label), drawn[1.0])
    assert not torch.equal(drawn[0.0], drawn[1.0])


@pytest.mark.parametrize("level", [1, 2])
def test_a_discriminators_fade_goes_from_the_lower_stage_to_the_next_one(
    discriminator: ProGANDiscriminator, level: int
) -> None:
    x, label = images(2 ** (level + 2)), {"label": torch.tensor([0, 1, 2, -1])}
    discriminator.grow(level, 0.0)
    first = discriminator(x, label)
    discriminator.grow(level - 1, 1.0)
    assert torch.equal(first, discriminator(F.avg_pool2d(x, 2), label))
    discriminator.grow(level, 1.0)
    last = discriminator(x, label)
    discriminator.is_fading = True
    assert torch.equal(discriminator(x, label), last)
    assert not torch.equal(first, last)


def test_the_networks_as_by_the_paper(generator: ProGANGenerator, discriminator: ProGANDiscriminator) -> None:
    """Table 2 in plain layers, with weights scaled by sqrt(2 / fan-in), at 8x8."""
    g, d = dict(generator.named_parameters()), dict(discriminator.named_parameters())

    def conv(x: Tensor, w: dict[str, Tensor], name: str, gain: float = 2.0) -> Tensor:
        weight = w[f"{name}.weight"]
        scale = (gain / weight[0].numel()) ** 0.5
        return F.conv2d(x, scale * weight, w[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def normed(x: Tensor) -> Tensor:
        return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()

    for network in (generator, discriminator):
        network.grow(1, 1.0)  # type: ignore[operator]
    label = {"label": torch.tensor([0, 1, 2, 0])}
    z = torch.cat([normed(noise()), generator.told["label"].rows.weight[label["label"] + 1]], dim=1)  # type: ignore
    kernel = g["stem.weight"].view(16, 4, 4, 16).permute(3, 0, 1, 2)  # as a transposed 4x4 convolution of one pixel
    h = F.conv_transpose2d(z[:, :, None, None], (2 / (16 * 16)) ** 0.5 * kernel)
    h = normed(F.leaky_relu(h, 0.2))
    h = normed(F.leaky_relu(conv(h, g, "conv"), 0.2))
    h = F.interpolate(h, scale_factor=2)
    for name in ("blocks.0.conv1", "blocks.0.conv2"):
        h = normed(F.leaky_relu(conv(h, g, name), 0.2))
    torch.testing.assert_close(generator(noise(), label), conv(h, g, "to_image.1", gain=1.0), rtol=1e-4, atol=1e-5)

    x = images(8)
    h = F.leaky_relu(conv(x, d, "from_image.1"), 0.2)
    for name in ("blocks.0.conv1", "blocks.0.conv2"):
        h = F.leaky_relu(conv(h, d, name), 0.2)
    h = F.avg_pool2d(h, 2)
    deviation = ((h - h.mean(dim=0)).square().mean(dim=0) + 1e-8).sqrt().mean()  # four images are one group
    h = torch.cat([h, deviation.expand(4, 1, 4, 4)], dim=1)
    h = F.leaky_relu(conv(h, d, "conv"), 0.2)
    h = F.conv2d(h, (2 / 256) ** 0.5 * d["hidden.weight"].view(16, 16, 4, 4), d["hidden.bias"])
    h = F.leaky_relu(h, 0.2).flatten(1)
    expected = h @ d["head.linear.weight"][0] / 4 + d["head.linear.bias"]
    expected = expected + (h * d["head.told.label.weight"][label["label"] + 1]).sum(dim=1)
    torch.testing.assert_close(discriminator(x, label), expected, rtol=1e-4, atol=1e-5)


def test_layers_of_other_stages_have_no_gradient(
    generator: ProGANGenerator, discriminator: ProGANDiscriminator
) -> None:
    """At the second stage, without and with its fade: the third's layers never; the first's colors in the fade."""

    def used(network: nn.Module) -> set[str]:
        found = {name.rpartition(".")[0] for name, p in network.named_parameters() if p.grad is not None}
        network.zero_grad()
        return {name for name in found if name.startswith(("blocks", "to_image", "from_image"))}

    block = {"blocks.0.conv1", "blocks.0.conv2"}
    for alpha, more in ((1.0, False), (0.5, True)):
        generator.grow(1, alpha)
        discriminator.grow(1, alpha)
        discriminator(generator(noise(), None), None).sum().backward()
        assert used(generator) == block | {"to_image.1"} | ({"to_image.0"} if more else set())
        assert used(discriminator) == block | {"from_image.1"} | ({"from_image.0"} if more else set())


def test_weights_know_their_stage(generator: ProGANGenerator) -> None:
    other = ProGANGenerator((1, 16, 16), TOLD, latent_dim=8, channels=4)
    assert (other.level, other.alpha, other.is_fading) == (2, 1.0, False)
    generator.grow(1, 0.25)
    other.load_state_dict(generator.state_dict())
    assert (other.level, other.alpha, other.is_fading) == (1, 0.25, True)
    assert torch.equal(other(noise(), None), generator(noise(), None))
    with torch.device("meta"):
        unmade = ProGANGenerator((1, 16, 16), TOLD, latent_dim=8, channels=4)
    unmade.load_state_dict(generator.state_dict(), assign=True)
    assert torch.equal(unmade(noise(), None), generator(noise(), None))


def test_channels_double_up_to_a_limit() -> None:
    network = ProGANGenerator((3, 32, 32), {}, latent_dim=8, channels=4, max_channels=10)
    assert [layer.weight.shape[1] for layer in network.to_image] == [10, 10, 8, 4]


@pytest.mark.parametrize(("height", "width", "side"), [(28, 28, 32), (16, 8, 16), (6, 6, 8), (2, 2, 4), (24, 24, 32)])
def test_images_of_other_sizes_are_refused(height: int, width: int, side: int) -> None:
    for network in (lambda s: ProGANGenerator(s, {}, 8), lambda s: ProGANDiscriminator(s, {})):
        with pytest.raises(ImageSizeError, match=f"squares with a side of 4, 8, 16.*got {height}x{width}") as refused:
            network((1, height, width))
        assert refused.value.side == side


def test_channels_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="channels=8 must be >= 1, and max_channels=4 no fewer"):
        ProGANGenerator((1, 8, 8), {}, 8, channels=8, max_channels=4)


def test_drift_pulls_the_scores_of_real_images_to_zero() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.5, -0.5])
    plain = Wasserstein(NoPenalty()).discriminator_loss(real, fake)
    assert plain == -2.0
    assert Wasserstein(NoPenalty(), drift=0.1).discriminator_loss(real, fake).item() == pytest.approx(-2.0 + 0.1 * 5.0)
    with pytest.raises(ValueError, match="drift=-1 must be >= 0"):
        Wasserstein(NoPenalty(), drift=-1)


def test_one_small_image_has_one_stage() -> None:
    network = ProGANGenerator((1, 4, 4), {}, latent_dim=8, channels=4)
    assert network(noise(), None).shape == (4, 1, 4, 4)
    assert ProGANDiscriminator((1, 4, 4), {}, channels=4)(images(4), None).shape == (4,)
