"""Denoising diffusion in discrete steps (Ho et al. 2020)."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from genlab.model.objective.broadcast import beside


class NoiseSchedule(Protocol):
    alphas_bar: Tensor  # (num_steps,), falling from nearly 1 to nearly 0


class Prediction(Protocol):
    """One of ``prediction.py``, which says what the arguments are."""

    def target(self, x: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor: ...

    def weight(self, alpha: Tensor, sigma: Tensor) -> Tensor: ...

    def clean(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor: ...


class DDPM:
    """Regress what ``prediction`` names, at a step drawn uniformly (Ho et al. 2020, algorithm 1)."""

    def __init__(self, noise_schedule: NoiseSchedule, prediction: Prediction):
        self.prediction = prediction
        alphas_bar = noise_schedule.alphas_bar.double()
        self.num_steps = len(alphas_bar)
        self.alphas = alphas_bar.sqrt().float()  # (num_steps,), of the signal
        self.sigmas = (1 - alphas_bar).sqrt().float()  # (num_steps,), of the noise
        log_snr = torch.log(alphas_bar) - torch.log1p(-alphas_bar)
        self.log_sigmas = (-0.5 * log_snr).float()  # (num_steps,), of noise over signal

    def loss(self, network: nn.Module, x: Tensor, condition: Mapping[str, Tensor] | None, progress: float) -> Tensor:
        """Weighted squared error, the mean over elements (Ho et al. 2020, eq. 14). ``x``: (N, ...). -> ()."""
        return self._weighted(network, x, condition).mean()

    def errors(self, network: nn.Module, x: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """The loss of each example. -> (N,)."""
        return self._weighted(network, x, condition).flatten(1).mean(dim=1)

    def _weighted(self, network: nn.Module, x: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """Of each element, like ``x``."""
        noise = torch.randn_like(x)
        step = torch.randint(self.num_steps, (len(x),))  # on the CPU, where the tables are
        alpha = beside(self.alphas[step].to(x.device), x)  # (N, 1, ...)
        sigma = beside(self.sigmas[step].to(x.device), x)
        output = network(alpha * x + sigma * noise, step.to(x.device) / self.num_steps, condition)
        error = output.to(x.dtype) - self.prediction.target(x, noise, alpha, sigma)
        return self.prediction.weight(alpha, sigma) * error**2

    def denoise(self, network: nn.Module, x: Tensor, sigma: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """D(x; sigma) at any noise level: ``x`` (N, ...) = clean + ``sigma`` (N,) * noise. -> like ``x``.

        The network gets the step of that level, interpolated between steps; levels beyond the schedule's are clamped to
        its first or last step.
        """
        alpha = beside((1 + sigma**2).rsqrt(), x)  # scales x to the process that preserves variance
        x_t, sigma_t = alpha * x, alpha * beside(sigma, x)
        output = network(x_t, self.step_at(sigma) / self.num_steps, condition)
        return self.prediction.clean(x_t, output.to(x.dtype), alpha, sigma_t)

    def step_at(self, sigma: Tensor) -> Tensor:
        """The step, in [0, num_steps - 1] and not whole, that has this noise: linear in log sigma. (N,) -> (N,)."""
        table = self.log_sigmas.to(sigma)
        log_sigma = sigma.log().clamp(table[0], table[-1])
        upper = torch.searchsorted(table, log_sigma).clamp(1, self.num_steps - 1)
        lower = upper - 1
        return lower + (log_sigma - table[lower]) / (table[upper] - table[lower])
