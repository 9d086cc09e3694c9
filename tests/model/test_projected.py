"""The discriminator on frozen features: mixing by its formula, what is trained of it, and what is not."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.condition_kind import Label
from genlab.model.network.projected import ProjectedDiscriminator, scales_of
from genlab.model.network.resnet18 import ResNet18

SHAPE = (1, 8, 8)


class Trained(nn.Module):
    feature_network = "encoder"

    def __init__(self) -> None:
        super().__init__()
        self.shape, self.encoder = SHAPE, None

    def configure_model(self) -> None:
        if self.encoder is None:
            self.encoder = ResNet18(SHAPE, width=4, stages=(2, 1))

    def features(self, x: Tensor) -> Tensor:
        return self.encoder(x)


def discriminator(**arguments: Any) -> ProjectedDiscriminator:
    torch.manual_seed(0)
    made = ProjectedDiscriminator(SHAPE, {"label": Label(3)}, Trained(), **{"channels": 6} | arguments)  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize(("sides", "count", "expected"), [
    ([8, 8, 4, 4, 2, 2, 1], 4, [1, 3, 5, 6]),
    ([8, 8, 4, 4, 2, 2, 1], 2, [5, 6]),
    ([4, 4, 4, 4, 4, 4, 4, 4], 4, [1, 3, 5, 7]),
    ([4, 4, 4], 4, [0, 1, 2]),
    ([4, 4, 4], 1, [2]),
])  # fmt: skip
def test_maps_of_every_resolution_or_at_equal_distances(sides: list[int], count: int, expected: list[int]) -> None:
    assert scales_of([(side, side) for side in sides], count) == expected


def test_channels_and_scales_are_mixed_as_written() -> None:
    """By the definition: sums over channels, and over the nine places around each."""
    network, images = discriminator().eval(), torch.randn(2, *SHAPE)
    encoder = network.features.encoder
    first = F.relu(encoder.norm(encoder.conv(images)))
    fine = encoder.blocks[1](encoder.blocks[0](first))
    coarse = encoder.blocks[2](fine)
    assert network.read == [1, 2]
    mixed = [
        torch.einsum("oc,nchw->nohw", getattr(network, f"mix_channels{i}")[:, :, 0, 0], x)
        for i, x in enumerate([fine, coarse])
    ]
    low = around(mixed[1], network.mix_scales1)
    high = around(mixed[0] + F.interpolate(low, scale_factor=2, mode="bilinear"), network.mix_scales0)
    found = network.mixed(images)
    torch.testing.assert_close(found[0], high)
    torch.testing.assert_close(found[1], low)
    condition = {"label": torch.tensor([0, 2])}
    expected = [scale(x, condition) for scale, x in zip(network.scales, found, strict=True)]
    torch.testing.assert_close(network(images, condition), (expected[0] + expected[1]) / 2)
    assert network(images, None).shape == (2,)


def around(x: Tensor, weight: Tensor) -> Tensor:
    padded, (height, width) = F.pad(x, (1, 1, 1, 1)), x.shape[2:]
    return sum(
        torch.einsum("oc,nchw->nohw", weight[:, :, i, j], padded[:, :, i : i + height, j : j + width])
        for i in range(3)
        for j in range(3)
    )  # type: ignore[return-value]


def test_random_projections_keep_the_size_of_numbers() -> None:
    network = discriminator(channels=64)
    x = torch.randn(64, 8, 8, 8)
    made = F.conv2d(x[:, :4], network.mix_channels0)
    assert made.square().mean().item() == pytest.approx(1, rel=0.35)
    made = F.conv2d(torch.randn(8, 64, 16, 16), network.mix_scales0)
    assert made.square().mean().item() == pytest.approx(1, rel=0.1)


def test_the_condition_counts_in_every_scale() -> None:
    network, images = discriminator().eval(), torch.randn(2, *SHAPE)
    for scale in network.scales:
        x = torch.randn(2, 6, 4, 4)
        one, other = (scale(x, {"label": torch.full((2,), label)}) for label in (0, 1))
        assert not torch.equal(one, other)
    assert network(images, {"label": torch.tensor([0, 1])}).shape == (2,)


def test_gradients_reach_images_and_not_the_frozen_network() -> None:
    network = discriminator().train()
    images = torch.randn(2, *SHAPE, requires_grad=True)
    network(images, None).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in network.features.parameters())
    assert {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad} == {"scales"}
    assert all(p.grad is not None for p in network.scales.parameters())
    assert not any(module.training for module in network.features.modules())
    assert all(module.training for module in network.scales.modules())
    fixed = {name for name, _ in network.named_buffers() if name.startswith("mix_")}
    assert fixed == {"mix_channels0", "mix_channels1", "mix_scales0", "mix_scales1"} <= set(network.state_dict())


def test_projections_are_of_the_seed() -> None:
    one, same = discriminator(), discriminator()
    assert torch.equal(one.mix_channels0, same.mix_channels0)
    torch.manual_seed(1)
    other = ProjectedDiscriminator(SHAPE, {}, Trained(), channels=6)
    assert not torch.equal(one.mix_channels0, other.mix_channels0)


def test_what_is_trained_is_compiled_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **how: compiled.append((module, how)))
    network = discriminator()
    network.compile(dynamic=False)
    assert compiled == [(scale, {"dynamic": False}) for scale in network.scales]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"features are of images of shape \(1, 8, 8\), the data have \(3, 8, 8\)\."):
        ProjectedDiscriminator((3, 8, 8), {}, Trained())
    with pytest.raises(ValueError, match=r"num_scales=0 and channels=6 must be 1 or more"):
        discriminator(num_scales=0)
    plain = Trained()
    plain.encoder = nn.Sequential(nn.Flatten())
    with pytest.raises(ValueError, match=r"the network of a Trained has no nn\.ModuleList named blocks"):
        ProjectedDiscriminator(SHAPE, {}, plain)
