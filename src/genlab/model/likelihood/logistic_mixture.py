"""A distribution over the 256 gray levels of each pixel: mixtures of logistics, cut into bins."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.seeding import RandomStream

_HALF_BIN = 1 / 255  # level p stands at p / 127.5 - 1


@dataclass(frozen=True)
class _Mixture:
    log_weight: Tensor  # (N, K, H, W)
    mean: Tensor  # (N, K, C, H, W), of the first channel; of the others before they are told the channels before them
    log_scale: Tensor  # (N, K, C, H, W)
    coefficient: Tensor  # (N, K, C (C - 1) / 2, H, W): of channel 1 on 0; of 2 on 0 and 1; ...


class LogisticMixture:
    """The discretized logistic mixture of PixelCNN++ (Salimans et al. 2017, section 2.1 and 2.2).

    A level's probability is what a mixture of logistics has on its bin; the darkest and the lightest bin reach to
    infinity. Channels of one pixel share the choice of the component, and the mean of each depends linearly on the
    channels before it. Parameter channels for C image channels and K components: K (1 + 2 C + C (C - 1) / 2), that is
    3 K for gray and 10 K for color images.
    """

    levels: int | None = 256

    def __init__(
        self,
        num_components: int = 5,
        min_log_scale: float = -7.0,  # of a logistic; the bins are exp(-4.8) wide
    ):
        if num_components < 1:
            raise ValueError(f"num_components={num_components} must be 1 or more.")
        self.num_components, self.min_log_scale = num_components, min_log_scale

    def num_parameters(self, channels: int) -> int:
        """Parameter channels for images of ``channels`` channels."""
        return self.num_components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Nats of images (N, C, H, W) on [-1, 1], at the level whose bin they are in. -> (N,)."""
        pixel = ((x + 1) * 128).floor().clamp(0, 255)  # of p / 127.5 - 1, and of anything in [p, p + 1) / 128 - 1
        level = (pixel / 127.5 - 1)[:, None]  # (N, 1, C, H, W)
        mixture = self._split(parameters, x.shape[1])
        mean = torch.stack([_told(mixture, c, level) for c in range(x.shape[1])], dim=2)
        inverse_scale = (-mixture.log_scale).exp()
        upper = (level + _HALF_BIN - mean) * inverse_scale  # (N, K, C, H, W), the ends of the bins
        lower = (level - _HALF_BIN - mean) * inverse_scale
        # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)), without cancellation in the tails
        width = torch.log(-torch.expm1(-2 * _HALF_BIN * inverse_scale))
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + width
        nats = torch.where(level < -0.999, F.logsigmoid(upper), inside)
        nats = torch.where(level > 0.999, F.logsigmoid(-lower), nats)
        nats = (nats.sum(dim=2) + mixture.log_weight).logsumexp(dim=1)  # (N, H, W)
        return nats.flatten(1).sum(dim=1)

    def sample(self, parameters: Tensor, generator: RandomStream) -> Tensor:
        """(N, D, H, W) -> images (N, C, H, W), each pixel at one of the 256 levels."""
        channels = self._channels(parameters)
        mixture = self._split(parameters, channels)
        size = parameters.shape[2:]
        bounds = mixture.log_weight.exp().cumsum(dim=1)  # (N, K, H, W)
        chosen = (generator.rand(1, *size) > bounds).sum(dim=1, keepdim=True).clamp(max=self.num_components - 1)
        one = _Mixture(
            mixture.log_weight.gather(1, chosen),
            *(_take(part, chosen) for part in (mixture.mean, mixture.log_scale, mixture.coefficient)),
        )
        uniform = generator.rand(channels, *size).clamp(1e-7, 1 - 1e-7)
        noise = uniform.log() - torch.log1p(-uniform)  # (N, C, H, W), standard logistic
        x = torch.zeros(len(parameters), 1, channels, *size, device=parameters.device)
        for c in range(channels):
            value = _told(one, c, x) + one.log_scale[:, :, c].exp() * noise[:, None, c]
            x[:, :, c] = ((value + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
        return x[:, 0]

    def mean(self, parameters: Tensor) -> Tensor:
        """(N, D, H, W) -> (N, C, H, W) in [-1, 1]: the mean over components of their centers, each kept in [-1, 1] and
        told the centers of the channels before it."""
        channels = self._channels(parameters)
        mixture = self._split(parameters, channels)
        x = torch.zeros_like(mixture.mean)
        for c in range(channels):
            x[:, :, c] = _told(mixture, c, x).clamp(-1, 1)
        return (x * mixture.log_weight.exp()[:, :, None]).sum(dim=1)

    def _channels(self, parameters: Tensor) -> int:
        return next(c for c in range(1, 100) if self.num_parameters(c) == parameters.shape[1])

    def _split(self, parameters: Tensor, channels: int) -> _Mixture:
        pairs = channels * (channels - 1) // 2
        sizes = [1, channels, channels, pairs]
        parts = parameters.float().unflatten(1, (self.num_components, sum(sizes))).split(sizes, dim=2)
        weight, mean, log_scale, coefficient = parts
        return _Mixture(
            weight[:, :, 0].log_softmax(dim=1), mean, log_scale.clamp(min=self.min_log_scale), coefficient.tanh()
        )


def _told(mixture: _Mixture, channel: int, x: Tensor) -> Tensor:
    """The components' means of a channel, given the channels of ``x`` (N, K or 1, C, H, W) before it. (N, K, H, W)."""
    first = channel * (channel - 1) // 2
    mean = mixture.mean[:, :, channel]
    for before in range(channel):
        mean = mean + mixture.coefficient[:, :, first + before] * x[:, :, before]
    return mean


def _take(part: Tensor, chosen: Tensor) -> Tensor:
    """Of each pixel, the chosen component: (N, K, C, H, W), (N, 1, H, W) -> (N, 1, C, H, W)."""
    index = chosen[:, :, None].expand(-1, -1, part.shape[2], -1, -1)
    return part.gather(1, index)
