"""A flow learns a ring of eight Gaussians: its density integrates to 1, and comes close to the true one."""

import math

import pytest
import torch
from test_mixture import RADIUS, STD, ring
from torch import Tensor, nn

from genlab.model.network.real_nvp import RealNVP


def ring_log_density(x: Tensor) -> Tensor:
    """Of the eight Gaussians, in nats. (N, 2) -> (N,)."""
    angle = torch.arange(8) * math.pi / 4
    centers = RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
    square = torch.cdist(x, centers).square() / (2 * STD**2)
    return torch.logsumexp(-square, dim=1) - math.log(8 * 2 * math.pi * STD**2)


@pytest.fixture(scope="module")
def ring_flow() -> nn.Module:
    torch.manual_seed(0)
    points, steps, lr = torch.Generator().manual_seed(0), 1000, 3e-3
    network = RealNVP((2, 1, 1), {}, width=64, depth=6, num_frequencies=5)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, fused=True)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(step / 50, 1) * (1 - step / steps)
        z, log_det = network(ring(256, points)[:, :, None, None], None)
        loss = (0.5 * z.square().flatten(1).sum(dim=1) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return network.eval()


def density(network: nn.Module, points: Tensor) -> Tensor:
    """Log-density of (N, 2) -> (N,)."""
    with torch.no_grad():
        z, log_det = network(points[:, :, None, None], None)
    return -0.5 * z.square().flatten(1).sum(dim=1) - math.log(2 * math.pi) + log_det


def test_density_integrates_to_one(ring_flow: nn.Module) -> None:
    side = torch.arange(-2, 2, 0.01)
    grid = torch.cartesian_prod(side, side)
    total = sum(density(ring_flow, part).exp().sum().item() for part in grid.split(20_000)) * 0.01**2
    assert total == pytest.approx(1.0, abs=0.01)


def test_learns_the_ring(ring_flow: nn.Module) -> None:
    held_out = ring(4000, torch.Generator().manual_seed(1))
    excess = (ring_log_density(held_out) - density(ring_flow, held_out)).mean().item()  # an estimate of KL, in nats
    assert 0 < excess < 0.45
    gaussian = torch.distributions.Normal(0.0, held_out.std()).log_prob(held_out).sum(dim=1)
    assert (ring_log_density(held_out) - gaussian).mean() > 2.0  # what there is to learn
