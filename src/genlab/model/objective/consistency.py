"""Consistency training: a denoiser that predicts the end of the probability-flow ODE, for samples in one to four
steps."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from genlab.model.objective.broadcast import beside
from genlab.model.objective.edm import EDM


class Consistency:
    """Easy Consistency Tuning (Geng et al. 2024): two points of a path are denoised alike, and they move together.

    A student at noise level t is pulled to its own output, held fixed, at r < t on the same path: the same image, noise
    and dropout. The ratio r / t is a function of progress: 0 through ``denoising``, where the target is the clean
    image; then its distance from 1 halves ``halvings`` times. D is preconditioned as in EDM, so D(x; 0) = x whatever
    the network is, and in the limit D(x; t) is where the probability-flow ODE from x ends: not the mean of what x may
    have been, which other samplers and the likelihood need.
    """

    denoises_to_the_end: ClassVar[bool] = True

    def __init__(
        self,
        sigma_data: float = 0.5,  # standard deviation of the data
        p_mean: float = -1.1,  # of the logarithm of the noise level in training
        p_std: float = 2.0,
        denoising: float = 0.25,  # share of the budget before the first halving
        halvings: float = 8.0,  # of 1 - r / t, spread evenly over the rest
        slack: float = 8.0,  # at low noise 1 - r / t is up to 1 + slack / 2 times as large
        huber: float = 0.00054,  # error per root of the dimensions below which the loss is quadratic
    ):
        """
        Raises:
            ValueError: ``denoising`` is outside [0, 1), or ``huber`` is not above 0.
        """
        if not 0 <= denoising < 1:
            raise ValueError(f"model.objective.denoising={denoising} is outside [0, 1). It is a share of the budget.")
        if huber <= 0:
            raise ValueError(f"model.objective.huber={huber} must be above 0. Use 0.00054 as published, or more.")
        self.edm = EDM(sigma_data)
        self.p_mean, self.p_std = p_mean, p_std
        self.denoising, self.halvings, self.slack, self.huber = denoising, halvings, slack, huber

    def loss(self, network: nn.Module, x: Tensor, condition: Mapping[str, Tensor] | None, progress: float) -> Tensor:
        """Pseudo-Huber distance of the whole image (Song and Dhariwal 2023, eq. 8), over t - r and the root of the
        dimensions. ``x``: (N, ...). -> ()."""
        t = torch.exp(self.p_mean + self.p_std * torch.randn(len(x), device=x.device, dtype=x.dtype))
        r = self.earlier(t, progress)
        noise = torch.randn_like(x)
        state = _random_state(x.device)
        student = self.denoise(network, x + beside(t, x) * noise, t, condition)
        target = x
        if self.halved(progress) > 0:  # not where some r > 0: a step costs what its progress says
            after = _random_state(x.device)
            _set_random_state(x.device, state)
            with torch.no_grad():
                target = self.denoise(network, x + beside(r, x) * noise, r, condition)
            _set_random_state(x.device, after)
        size = math.sqrt(x[0].numel())
        c = self.huber * size
        distance = ((student - target).square().flatten(1).sum(dim=1) + c**2).sqrt() - c  # (N,)
        return (distance / (t - r)).mean() / size

    def halved(self, progress: float) -> float:
        """Halvings of 1 - r / t that are done; 0 while the target is the clean image."""
        return self.halvings * max(0.0, progress - self.denoising) / (1 - self.denoising)

    def step_kind(self, progress: float) -> str:
        """A target of its own costs a second pass of the network."""
        return "two points" if self.halved(progress) > 0 else "denoising"

    def earlier(self, t: Tensor, progress: float) -> Tensor:
        """r = t (1 - 2^-k n(t)) where k halvings are done, n(t) = 1 + slack * sigmoid(-t), not below 0 (Geng et al.
        2024, eq. 20). (N,) -> (N,)."""
        done = self.halved(progress)
        return (t * (1 - 2.0**-done * (1 + self.slack * torch.sigmoid(-t)))).clamp(min=0)

    def denoise(self, network: nn.Module, x: Tensor, sigma: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """D(x; sigma): ``x``: (N, ...) = clean + ``sigma`` (N,) * noise. -> like ``x``, and ``x`` at sigma 0."""
        return self.edm.denoise(network, x, sigma, condition)


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
