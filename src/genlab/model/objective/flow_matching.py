"""Flow matching along straight paths from noise to data (Lipman et al. 2023; rectified flow, Liu et al. 2023)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.objective.broadcast import beside
from genlab.model.objective.coupling import Coupling, Independent
from genlab.model.objective.time_distribution import TimeDistribution


class FlowMatching:
    """Regress the velocity of a point that moves from noise at time 0 to data at time 1 on a straight line."""

    def __init__(
        self,
        time_distribution: TimeDistribution,
        coupling: Coupling | None = None,  # of noise with images; None: independent
    ):
        self.time_distribution, self.coupling = time_distribution, coupling or Independent()

    def loss(self, network: nn.Module, x: Tensor, condition: Mapping[str, Tensor] | None, progress: float) -> Tensor:
        """Squared error of the velocity (Lipman et al. 2023, eq. 23), mean over elements. ``x``: (N, ...)."""
        return F.mse_loss(*self._velocities(network, x, condition))

    def errors(self, network: nn.Module, x: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """The loss of each example. -> (N,)."""
        found, wanted = self._velocities(network, x, condition)
        return (found - wanted).square().flatten(1).mean(dim=1)

    def _velocities(
        self, network: nn.Module, x: Tensor, condition: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """The network's, and the true one, of points drawn for ``x``, like it."""
        noise = self.coupling(torch.randn_like(x), x)
        t = self.time_distribution(len(x), x.device).to(x.dtype)
        output = network(torch.lerp(noise, x, beside(t, x)), t, condition)
        return output.to(x.dtype), x - noise

    def denoise(self, network: nn.Module, x: Tensor, sigma: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """D(x; sigma): where the straight line from here ends. ``x``: (N, ...) = clean + ``sigma`` (N,) * noise.

        The path has noise over signal (1 - t) / t = sigma, so ``t`` = 1 / (1 + sigma) and the point is ``t * x``.
        """
        t = 1 / (1 + sigma)
        x_t = beside(t, x) * x
        velocity = network(x_t, t, condition).to(x.dtype)
        return x_t + beside(1 - t, x) * velocity
