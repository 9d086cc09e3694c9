"""The preconditioned denoiser of EDM (Karras et al. 2022)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genlab.model.objective.broadcast import beside


class EDM:
    """Denoising score matching at log-normal noise levels, with inputs, outputs and losses of unit size at each."""

    def __init__(
        self,
        sigma_data: float = 0.5,  # standard deviation of the data
        p_mean: float = -1.2,  # of the logarithm of the noise level in training
        p_std: float = 1.2,
    ):
        self.sigma_data, self.p_mean, self.p_std = sigma_data, p_mean, p_std

    def loss(self, network: nn.Module, x: Tensor, condition: Mapping[str, Tensor] | None, progress: float) -> Tensor:
        """Eq. 2 with the weight of table 1, the mean over elements. ``x``: (N, ...). -> ()."""
        return self._weighted(network, x, condition).mean()

    def errors(self, network: nn.Module, x: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """The loss of each example. -> (N,)."""
        return self._weighted(network, x, condition).flatten(1).mean(dim=1)

    def _weighted(self, network: nn.Module, x: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """Of each element, like ``x``."""
        sigma = torch.exp(self.p_mean + self.p_std * torch.randn(len(x), device=x.device, dtype=x.dtype))
        noisy = x + beside(sigma, x) * torch.randn_like(x)
        weight = (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2  # (N,)
        error = self.denoise(network, noisy, sigma, condition) - x
        return beside(weight, x) * error**2

    def denoise(self, network: nn.Module, x: Tensor, sigma: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """D(x; sigma), eq. 7 with table 1. ``x``: (N, ...) = clean + ``sigma`` (N,) * noise. -> like ``x``."""
        variance = beside(sigma**2 + self.sigma_data**2, x)
        c_skip = self.sigma_data**2 / variance
        c_out = beside(sigma, x) * self.sigma_data * variance.rsqrt()
        level = sigma.clamp(min=torch.finfo(sigma.dtype).tiny).log() / 4  # finite at 0, where D is x itself
        output = network(variance.rsqrt() * x, level, condition)
        return c_skip * x + c_out * output.to(x.dtype)
