"""Minibatch optimal transport: a permutation of the noise, the cheapest there is."""

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from genlab.model.objective.coupling import Independent, OptimalTransport
from genlab.model.objective.flow_matching import FlowMatching
from genlab.model.objective.time_distribution import Uniform


def batch(num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise, and images of two kinds."""
    generator = torch.Generator().manual_seed(seed)
    sign = torch.where(torch.rand(num, 1, 1, 1, generator=generator) < 0.5, -1.0, 1.0)
    noise = torch.randn(num, 2, 3, 3, generator=generator)
    return noise, sign + 0.3 * torch.randn(num, 2, 3, 3, generator=generator)


def cost(noise: Tensor, x: Tensor) -> float:
    return (noise - x).square().sum().item()


def as_rows(x: Tensor) -> list[tuple[float, ...]]:
    return sorted(tuple(row) for row in x.flatten(1).tolist())


def test_independent_leaves_the_noise() -> None:
    noise, x = batch(5)
    assert Independent()(noise, x) is noise


def test_a_batch_of_one_has_one_pair() -> None:
    noise, x = batch(1)
    torch.testing.assert_close(OptimalTransport()(noise, x), noise, rtol=0, atol=0)


@pytest.mark.parametrize("num", [2, 7, 64])
def test_the_noise_is_permuted_so_both_marginals_are_kept(num: int) -> None:
    noise, x = batch(num)
    matched = OptimalTransport()(noise, x)
    assert as_rows(matched) == as_rows(noise)
    assert matched.dtype == noise.dtype
    assert matched.shape == noise.shape


@pytest.mark.parametrize("seed", range(10))
def test_no_pairing_is_cheaper(seed: int) -> None:
    noise, x = batch(6, seed)
    cheapest = min(cost(noise[list(order)], x) for order in permutations(range(6)))
    assert cost(OptimalTransport()(noise, x), x) == pytest.approx(cheapest, rel=1e-5)
    assert cheapest <= cost(noise, x)


def test_the_order_of_the_noise_does_not_matter() -> None:
    noise, x = batch(20)
    shuffled = noise[torch.randperm(20, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(OptimalTransport()(shuffled, x), OptimalTransport()(noise, x), rtol=0, atol=0)


def test_pairs_go_with_their_images() -> None:
    noise, x = batch(20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(OptimalTransport()(noise, x[order]), OptimalTransport()(noise, x)[order], rtol=0, atol=0)


def test_noise_that_is_the_data_is_matched_to_itself() -> None:
    """Then no point moves, and a network that says so has no loss."""

    class Still(nn.Module):
        def forward(self, x: Tensor, noise_level: Tensor, condition: None) -> Tensor:
            return torch.zeros_like(x)

    torch.manual_seed(3)
    x = torch.randn(16, 1, 4, 4)[torch.randperm(16, generator=torch.Generator().manual_seed(1))]
    torch.manual_seed(3)
    assert FlowMatching(Uniform(), OptimalTransport()).loss(Still(), x, None, 0.0).item() == 0
    torch.manual_seed(3)
    assert FlowMatching(Uniform(), Independent()).loss(Still(), x, None, 0.0).item() > 1
