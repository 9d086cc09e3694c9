"""A classifier's loss, features and statistics; what it is made of; and which data it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.config.build import fits
from genlab.errors import ConfigError
from genlab.model.augment.shift import Shift
from genlab.model.base import Classifies, GenerativeModel
from genlab.model.classifier import Classifier
from genlab.model.network.resnet import ResNet
from genlab.model.objective.time_distribution import LogitNormal
from genlab.model.schedule import Constant
from tiny_run import small, train


class Given(nn.Module):
    """Features that are the pixels themselves."""

    num_features = 3

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)


def classifier(network: Any = Given, num_classes: int | None = 4, **options: Any) -> Classifier:
    model = Classifier(
        network, Shift(0.0), lambda p: torch.optim.SGD(p, lr=0.1), Constant(), (3, 1, 1), num_classes, **options
    )
    model.configure_model()
    return model.eval()


def resnet(**options: Any) -> ResNet:
    return ResNet(**{"shape": (1, 16, 16), "channels": 8} | options).eval()


# --- what is minimized ------------------------------------------------------------------------------------------------


def test_the_loss_is_cross_entropy_of_smoothed_labels_without_those_that_are_missing() -> None:
    model = classifier(label_smoothing=0.2)
    x, label = torch.randn(6, 3, 1, 1), torch.tensor([0, 1, -1, 3, -1, 2])
    log_probs = model.logits(x).log_softmax(dim=1)
    target = 0.8 * F.one_hot(label.clamp_min(0), 4) + 0.2 / 4
    expected = -(target * log_probs).sum(dim=1)[label >= 0].mean()
    torch.testing.assert_close(model.losses({"image": x, "label": label})["loss"], expected)


def test_a_batch_without_labels_costs_and_teaches_nothing() -> None:
    model = classifier()
    loss = model.losses({"image": torch.randn(2, 3, 1, 1), "label": torch.tensor([-1, -1])})["loss"]
    loss.backward()
    assert loss == 0
    assert all((p.grad == 0).all() for p in model.parameters())


# --- features ---------------------------------------------------------------------------------------------------------


def test_features_are_standardised_by_the_batch_in_training_and_by_all_batches_in_use() -> None:
    model = classifier().train()
    scale, mean = torch.tensor([0.5, 2.0, 10.0]), torch.tensor([1.0, -3.0, 0.0])
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> Tensor:
        return (mean + scale * torch.randn(count, 3, generator=generator))[:, :, None, None]

    for _ in range(200):
        found = model.features(images(64))
        torch.testing.assert_close(found.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    found = model.eval().features(images(4000))
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(3), atol=0.1, rtol=0)
    torch.testing.assert_close(found.std(dim=0), torch.ones(3), atol=0.1, rtol=0)
    x = images(5)
    torch.testing.assert_close(model.features(x)[:1], model.features(x[:1]))


def test_averages_are_of_the_statistics_too() -> None:
    """Else averaged weights would be read with the statistics of others."""
    model = classifier()
    names = {name for name, _ in model.averaged()}
    assert names == set(model.state_dict()) - {"standardise.num_batches_tracked"}


def test_logits_are_linear_in_the_features() -> None:
    model, x = classifier(), torch.randn(5, 3, 1, 1)
    assert torch.equal(model.logits(x), model.head(model.features(x)))


def test_it_is_a_judge_and_draws_nothing() -> None:
    assert isinstance(classifier(), Classifies)
    assert fits(Classifier, Classifies, partial=False)
    assert not isinstance(classifier(), GenerativeModel)


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 32), (3, 64, 48), (3, 7, 5), (1, 1, 1)])
def test_a_resnet_takes_images_of_any_size(shape: tuple[int, ...]) -> None:
    network = resnet(shape=shape, channels=16, channel_mult=(1, 2, 3), num_blocks=2)
    features = network(torch.rand(2, *shape) * 2 - 1)
    assert features.shape == (2, network.num_features) == (2, 96)
    assert torch.isfinite(features).all()
    assert (features >= 0).all()


def test_a_resnet_sees_each_image_alone_in_training_too() -> None:
    """What batch norm would not do; its statistics would also be those of other weights than the averaged ones."""
    network, x = resnet().train(), torch.rand(6, 1, 16, 16)
    torch.testing.assert_close(network(x)[:2], network(x[:2]), rtol=1e-4, atol=1e-6)
    assert not list(network.buffers())


def test_the_last_features_see_the_whole_image_and_the_first_its_neighborhoods() -> None:
    """A change of one pixel moves features of every stage; each stage but the first halves the resolution."""
    network = resnet(num_blocks=2)
    sizes: list[tuple[int, ...]] = []
    for norm in network.norms:
        norm.register_forward_hook(lambda module, given, out: sizes.append(tuple(out.shape[1:])))
    features = network(torch.rand(1, 1, 16, 16))
    assert sizes == [(8, 16, 16), (16, 8, 8), (32, 4, 4)]
    changed = network(torch.rand(1, 1, 16, 16))
    for part, other in zip(features.split([8, 16, 32], dim=1), changed.split([8, 16, 32], dim=1), strict=True):
        assert not torch.allclose(part, other)


def test_every_weight_of_a_resnet_learns() -> None:
    network = resnet(num_blocks=2).train()
    for name, p in network.named_parameters():  # the last convolution of a block starts at 0 and hides the first
        if name.endswith("conv2.weight"):
            nn.init.normal_(p, std=0.1)
    network(torch.rand(4, 1, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_shifts_repeat_the_edge_and_reach_an_eighth() -> None:
    columns = torch.arange(16.0).expand(200, 1, 16, 16)
    moved = Shift()(columns, lambda k: torch.rand(200, k, generator=torch.Generator().manual_seed(0)))
    first = moved[:, 0, 0]  # (N, 16)
    expected = {tuple(torch.arange(16).sub(shift).clamp(0, 15).tolist()) for shift in range(-2, 3)}
    assert {tuple(map(int, row.tolist())) for row in first} == expected
    assert torch.equal(moved[:, 0, 0], moved[:, 0, -1])
    rows = columns.mT
    moved = Shift()(rows, lambda k: torch.rand(200, k, generator=torch.Generator().manual_seed(1)))
    assert {tuple(map(int, column.tolist())) for column in moved[:, 0, :, 0]} == expected


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classifier(num_classes=None), "needs labels, and the data have none"),
        (lambda: classifier(num_classes=1), "needs two classes or more, and the data have 1"),
        (lambda: classifier(label_smoothing=1.0), "label_smoothing=1.0 is a share"),
        (lambda: Shift(2.0), "ratio=2.0 is a share"),
        (lambda: resnet(channels=12), "channels=12 must be a multiple of 8"),
        (lambda: resnet(channel_mult=()), r"channel_mult=\[\] 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.matrix
def test_a_batch_of_one_is_too_few(tmp_path: Path) -> None:
    """Features are standardised over a batch."""
    given = small("model=classifier")
    with pytest.raises(ConfigError, match=r"needs two images or more on each device\. Use a larger data\.batch_size"):
        train(*given, "data.batch_size=1", outputs=tmp_path / "one")
    run = train(*given, "data.batch_size=2", outputs=tmp_path / "two")
    assert (run / "summary.json").exists()


# --- noise ------------------------------------------------------------------------------------------------------------


def noisy(**options: Any) -> Classifier:
    model = classifier(noise=LogitNormal(0.0, 1.5), **options)
    assert model.noise_level is not None
    for parameter in model.noise_level.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def test_a_noisy_classifier_by_hand() -> None:
    """Of an image of unit size, whose features the noise level scales and shifts."""
    model = noisy()
    x, sigma = 3 * torch.randn(5, 3, 1, 1), torch.tensor([0.0, 0.001, 0.3, 2.0, 50.0])
    level = torch.tensor([0.002, 0.002, 0.3, 2.0, 50.0]).log()[:, None] / 4
    scale, shift = model.noise_level(level).chunk(2, dim=1)
    features = (x.flatten(1) / (sigma**2 + 0.25).sqrt()[:, None]) / (1 + 1e-4) ** 0.5
    logits = (features * (1 + scale) + shift) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model.logits(x, sigma), logits)
    torch.testing.assert_close(model.logits(x), model.logits(x, torch.zeros(5)))
    label = torch.tensor([0, 3, -1, 1, 2])
    expected = logits.log_softmax(dim=1)[torch.arange(5), label]
    expected[2] = 0
    torch.testing.assert_close(model.condition_log_prob(x, sigma, {"label": label}), expected)


def test_training_images_have_the_noise_that_it_is_told_of() -> None:
    model = noisy()
    clean = torch.zeros(4000, 3, 1, 1)
    torch.manual_seed(0)
    x, sigma = model.noisy(clean)
    assert sigma is not None
    torch.testing.assert_close(sigma.log().mean(), torch.tensor(0.0), atol=0.1, rtol=0)
    torch.testing.assert_close(sigma.log().std(), torch.tensor(1.5), atol=0.1, rtol=0)
    torch.testing.assert_close((x.flatten(1) / sigma[:, None]).std(), torch.tensor(1.0), atol=0.03, rtol=0)
    earliest = classifier(noise=lambda num, device: torch.zeros(num)).noisy(clean[:2])[1]
    assert earliest is not None
    assert earliest.tolist() == pytest.approx([999.0, 999.0], rel=1e-4)
    assert classifier().noisy(clean)[1] is None
    assert classifier().noisy(clean)[0] is clean


def test_without_noise_it_has_the_weights_that_it_had() -> None:
    assert set(classifier().state_dict()) == {name for name in noisy().state_dict() if not name.startswith("noise")}


@pytest.mark.matrix
def test_it_tells_noisy_images_and_does_not_tell_noise() -> None:
    """Two classes of means -1 and 1 on three pixels: log p(y | x; sigma) has a closed form, that is linear in x."""
    torch.manual_seed(0)
    model = classifier(num_classes=2, noise=LogitNormal(0.0, 1.0), label_smoothing=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def examples(count: int) -> tuple[Tensor, Tensor]:
        label = torch.randint(2, (count,))
        return (2.0 * label - 1)[:, None, None, None] + 0.5 * torch.randn(count, 3, 1, 1), label

    for _ in range(1500):
        x, label = examples(256)
        loss = model.cross_entropy(model.logits(*model.noisy(x)), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    for level, most in ((0.3, 0.02), (1.0, 0.12), (3.0, 0.4)):
        x, label = examples(4000)
        sigma = torch.full((4000,), level)
        y = x + level * torch.randn_like(x)
        found = model.condition_log_prob(y, sigma, {"label": label})
        exact = F.logsigmoid((2.0 * label - 1) * 2 * y.flatten(1).sum(dim=1) / (0.25 + level**2))
        assert (found - exact).abs().mean() < most
        chance = -float(torch.tensor(2.0).log())
        assert found.mean() > chance
