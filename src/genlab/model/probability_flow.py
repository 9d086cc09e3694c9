"""Likelihood of a diffusion model through its probability-flow ODE (Song et al. 2021, section 4.3 and appendix D.2)."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from genlab.model.parts import Denoiser
from genlab.seeding import RandomStream


class Trace(Protocol):
    """A method for the trace of a denoiser's Jacobian."""

    def prepare(self, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """For data ``x`` (N, C, H, W): a function of D(y) and of y, which D(y) was computed from, to traces (N,)."""
        ...


class Hutchinson:
    """An unbiased estimate from random signs: E[e^T J e] = tr J (Hutchinson 1990; Grathwohl et al. 2019, section 3.1).

    An example's signs are a function of the seed and of its own pixels, so its estimate does not depend on the batch.
    """

    def __init__(self, num_probes: int = 1, seed: int = 0):
        self.num_probes, self.seed = num_probes, seed

    def prepare(self, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        signs = 2 * RandomStream.for_examples(self.seed, x).randint(2, self.num_probes, *x.shape[1:]).to(x.dtype) - 1
        probes = signs.transpose(0, 1)  # (probes, N, C, H, W)
        return lambda output, y: quadratic_forms(output, y, probes).mean(dim=0)


class ExactTrace:
    """One backward pass for each dimension: for data of few."""

    def prepare(self, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        basis = torch.eye(x[0].numel(), device=x.device, dtype=x.dtype).view(-1, 1, *x.shape[1:])
        probes = basis.expand(-1, *x.shape)  # (dimensions, N, C, H, W)
        return lambda output, y: quadratic_forms(output, y, probes).sum(dim=0)


def quadratic_forms(output: Tensor, y: Tensor, probes: Tensor) -> Tensor:
    """e^T J e for every probe e (P, N, C, H, W), where J is the Jacobian of ``output`` in ``y``. -> (P, N)."""
    forms = []
    for i, probe in enumerate(probes):
        (product,) = torch.autograd.grad(output, y, probe, retain_graph=i + 1 < len(probes))
        forms.append((product * probe).flatten(1).sum(dim=1))
    return torch.stack(forms)


def log_likelihood(
    denoise: Denoiser,
    x: Tensor,
    trace: Trace,
    num_steps: int = 50,  # of four evaluations each
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Tensor:
    """Nats of each example of ``x`` (N, C, H, W) under the model's density at noise level ``sigma_min``. -> (N,).

    Along dx/dsigma = (x - D(x; sigma)) / sigma the log-density falls at the rate of the divergence,
    (d - tr dD/dx) / sigma. Both are integrated by the classical Runge-Kutta method (order 4) on a uniform grid of
    log sigma, up to noise that is N(m, sigma_max^2), where m = D(0; sigma_max) is nearly the mean of the data.
    """
    estimate = trace.prepare(x)
    dimensions = x[0].numel()

    def rates(y: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            clean = denoise(y, y.new_full((len(y),), sigma))
            traces = estimate(clean, y)
        return (y - clean).detach() / sigma, (dimensions - traces).double() / sigma

    grid = torch.linspace(math.log(sigma_min), math.log(sigma_max), num_steps + 1, dtype=torch.float64).exp().tolist()
    change = torch.zeros(len(x), device=x.device, dtype=torch.float64)  # of the log-density; a long sum
    for sigma, sigma_next in pairwise(grid):
        step, middle = sigma_next - sigma, (sigma + sigma_next) / 2
        slope1, divergence1 = rates(x, sigma)
        slope2, divergence2 = rates(x + step / 2 * slope1, middle)
        slope3, divergence3 = rates(x + step / 2 * slope2, middle)
        slope4, divergence4 = rates(x + step * slope3, sigma_next)
        x = x + step / 6 * (slope1 + 2 * slope2 + 2 * slope3 + slope4)
        change += step / 6 * (divergence1 + 2 * divergence2 + 2 * divergence3 + divergence4)
    center = denoise(torch.zeros_like(x), x.new_full((len(x),), sigma_max))
    prior = -0.5 * ((x - center).double() / sigma_max).square().flatten(1).sum(dim=1)
    prior -= dimensions * (math.log(sigma_max) + 0.5 * math.log(2 * math.pi))
    return (prior + change).to(x.dtype)
