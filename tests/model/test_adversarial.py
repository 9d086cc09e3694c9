"""The losses and penalties of GANs against closed forms and against autograd on known functions."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.model.objective.adversarial import Hinge, LeastSquares, NonSaturating, Wasserstein
from genlab.model.objective.penalty import R1, GradientPenalty, NoPenalty, squared_slope

REAL, FAKE = torch.tensor([2.0, -0.5, 0.3]), torch.tensor([-1.5, 0.5])


def log_sigmoid(score: float) -> float:
    return -math.log(1 + math.exp(-score))


def test_non_saturating() -> None:
    objective = NonSaturating(NoPenalty())
    real, fake = ([x.item() for x in scores] for scores in (REAL, FAKE))
    expected = -sum(map(log_sigmoid, real)) / 3 - sum(log_sigmoid(-x) for x in fake) / 2
    assert objective.discriminator_loss(REAL, FAKE).item() == pytest.approx(expected)
    assert objective.generator_loss(FAKE).item() == pytest.approx(-sum(map(log_sigmoid, fake)) / 2)
    undecided = objective.discriminator_loss(torch.zeros(4), torch.zeros(4))
    assert undecided.item() == pytest.approx(2 * math.log(2))


def test_hinge() -> None:
    objective = Hinge(NoPenalty())
    assert objective.discriminator_loss(REAL, FAKE).item() == pytest.approx((0 + 1.5 + 0.7) / 3 + (0 + 1.5) / 2)
    assert objective.generator_loss(FAKE).item() == pytest.approx(0.5)


def test_least_squares() -> None:
    objective = LeastSquares(NoPenalty())
    expected = (1 + 2.25 + 0.49) / 3 / 2 + (2.25 + 0.25) / 2 / 2
    assert objective.discriminator_loss(REAL, FAKE).item() == pytest.approx(expected)
    assert objective.generator_loss(FAKE).item() == pytest.approx((6.25 + 0.25) / 2 / 2)


def test_wasserstein() -> None:
    objective = Wasserstein(NoPenalty())
    assert objective.discriminator_loss(REAL, FAKE).item() == pytest.approx(-0.5 - 0.6)
    assert objective.generator_loss(FAKE).item() == pytest.approx(0.5)


class Quadratic(nn.Module):
    """D(x) = x^T A x / 2 + b^T x, whose slope is (A + A^T) x / 2 + b."""

    def __init__(self, size: int):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.a = nn.Parameter(torch.randn(size, size, generator=generator, dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        return (x @ self.a * x).sum(dim=1) / 2 + x @ self.b

    def slope(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ (self.a + self.a.T) / 2 + self.b


@pytest.fixture
def images() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    real, fake = torch.randn(2, 5, 1, 2, 2, generator=generator, dtype=torch.float64)
    return real, fake, torch.rand(5, generator=generator, dtype=torch.float64)


def gradients(loss: Tensor, network: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters())))


def test_squared_slope(images: tuple[Tensor, Tensor, Tensor]) -> None:
    network = Quadratic(4)
    expected = network.slope(images[0]).square().sum(dim=1)
    torch.testing.assert_close(squared_slope(network, images[0]), expected)


@pytest.mark.parametrize("every", [1, 16])
def test_r1_and_its_gradient(every: int, images: tuple[Tensor, Tensor, Tensor]) -> None:
    """On a known function the slope is known, and autograd of that expression is what R1's gradient must be."""
    network = Quadratic(4)
    penalty = R1(gamma=3.0, every=every).penalty(network, *images)
    expected = every * 3.0 / 2 * network.slope(images[0]).square().sum(dim=1).mean()
    torch.testing.assert_close(penalty, expected)
    torch.testing.assert_close(gradients(penalty, network), gradients(expected, network))


def test_gradient_penalty_and_its_gradient(images: tuple[Tensor, Tensor, Tensor]) -> None:
    network = Quadratic(4)
    real, fake, uniform = images
    between = uniform[:, None, None, None] * real + (1 - uniform[:, None, None, None]) * fake
    penalty = GradientPenalty(weight=10.0).penalty(network, *images)
    expected = 10.0 * (network.slope(between).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(penalty, expected)
    torch.testing.assert_close(gradients(penalty, network), gradients(expected, network))


def test_gradient_penalty_is_zero_at_a_slope_of_one(images: tuple[Tensor, Tensor, Tensor]) -> None:
    direction = torch.tensor([0.6, 0.0, 0.8, 0.0], dtype=torch.float64)
    penalty = GradientPenalty().penalty(lambda x: x.flatten(1) @ direction, *images)
    assert penalty.item() == pytest.approx(0, abs=1e-12)


def test_a_flat_discriminator_has_a_finite_gradient(images: tuple[Tensor, Tensor, Tensor]) -> None:
    network = Quadratic(4)
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    for gradient in gradients(GradientPenalty().penalty(network, *images), network):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("penalty", [R1, GradientPenalty])
def test_a_penalty_that_is_never_taken_is_refused(penalty: type) -> None:
    with pytest.raises(ValueError, match="every must be a whole number >= 1"):
        penalty(every=0)


@pytest.mark.parametrize("objective", [NonSaturating(NoPenalty()), LeastSquares(NoPenalty())])
def test_the_best_score_of_an_image_that_is_as_often_real_as_made_is_undecided(objective: Any) -> None:
    scores = torch.linspace(-2, 2, 401)
    losses = torch.stack([objective.discriminator_loss(score[None], score[None]) for score in scores])
    assert float(scores[losses.argmin()]) == pytest.approx(objective.undecided, abs=0.011)
