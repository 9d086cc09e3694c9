"""The discriminator of projected GANs (Sauer et al. 2021, arXiv:2111.01007): small ones on maps of trained features."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.elsewhere import FROM_ELSEWHERE
from genlab.model.frozen_features import TrainedFeatures, check_same_images, maps_of, without_memory
from genlab.model.network.embedding import Told
from genlab.model.network.gan_blocks import ProjectionHead, Wrap, layer_maker

_COARSEST = 4  # places on the smaller side, at most, where a discriminator ends


class ProjectedDiscriminator(nn.Module):
    """Maps of frozen features of several resolutions, mixed by fixed random convolutions; a small discriminator of
    each.

    A 1x1 convolution mixes the channels of a map (section 3.2, CCM). From the coarsest map to the finest each is added
    to the one before, enlarged, and a 3x3 convolution mixes the sum (CSM). These are random, are not trained, and are
    kept with the weights. Scores are the mean over the discriminators; as published, each has a loss of its own.

    Maps are those of the last block at each resolution; of a network of one resolution, of blocks at equal distances.
    """

    features: Any

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        features: Annotated[TrainedFeatures, FROM_ELSEWHERE],  # the model of a trained run
        num_scales: int = 4,  # maps, at most
        channels: int = 64,  # of mixed maps, and of the discriminators
        spectral_norm: bool = True,
    ):
        """Raises ValueError: a value is out of its range, the features are of images of another shape, or of a network
        without blocks."""
        super().__init__()
        if num_scales < 1 or channels < 1:
            raise ValueError(f"num_scales={num_scales} and channels={channels} must be 1 or more.")
        check_same_images(features.shape, shape)
        features.configure_model()
        assert isinstance(features, nn.Module)
        self.features = features.requires_grad_(False).eval()
        maps: list[Tensor] = without_memory(features, lambda x: maps_of(features, x), (1, *shape))
        if not maps:
            raise ValueError(
                f"the network of a {type(features).__name__} has no nn.ModuleList named "
                "blocks, whose maps could be read. Name a run of another network."
            )
        self.read = scales_of([tuple(x.shape[2:]) for x in maps], num_scales)
        wrap = layer_maker(nn.init.xavier_uniform_, spectral_norm)
        self.scales = nn.ModuleList()
        for number, block in enumerate(self.read):
            self.register_buffer(f"mix_channels{number}", _random(channels, maps[block].shape[1], 1))
            self.register_buffer(f"mix_scales{number}", _random(channels, channels, 3))
            self.scales.append(ScaleDiscriminator(maps[block].shape[2:], channels, told, wrap))

    def train(self, mode: bool = True) -> "ProjectedDiscriminator":
        super().train(mode)
        self.features.eval()
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """What is trained: hooks read the frozen network, and are no part of graphs."""
        for scale in self.scales:
            scale.compile(*args, **kwargs)

    def forward(self, candidate: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``candidate``: (N, C, H, W); ``condition``: by key, N rows each. -> scores (N,)."""
        scores = [scale(x, condition) for scale, x in zip(self.scales, self.mixed(candidate), strict=True)]
        return torch.stack(scores).mean(dim=0)

    def mixed(self, images: Tensor) -> list[Tensor]:
        """What the discriminators see of images (N, C, H, W): (N, channels, h, w) each, the finest first."""
        maps = maps_of(self.features, images)
        found: list[Tensor] = []
        for number in reversed(range(len(self.read))):
            x = F.conv2d(maps[self.read[number]], self.get_buffer(f"mix_channels{number}"))
            if found:
                x = x + _enlarged(found[-1], x.shape[2:])
            found.append(F.conv2d(x, self.get_buffer(f"mix_scales{number}"), padding=1))
        return found[::-1]


class ScaleDiscriminator(nn.Module):
    """Strided convolutions down to about 4x4, and a sum over places."""

    def __init__(self, sides: Sequence[int], channels: int, told: Told, wrap: Wrap):
        super().__init__()
        self.blocks = nn.ModuleList([_convolution(wrap(nn.Conv2d(channels, channels, 3, padding=1)))])
        side = min(sides)
        while side > _COARSEST:
            self.blocks.append(_convolution(wrap(nn.Conv2d(channels, channels, 4, stride=2, padding=1))))
            side //= 2
        self.head = ProjectionHead(channels, told, wrap)

    def forward(self, x: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """(N, channels, h, w) -> (N,)."""
        for block in self.blocks:
            x = block(x)
        return self.head(x.sum(dim=(2, 3)), condition)


def scales_of(sides: Sequence[tuple[int, ...]], count: int) -> list[int]:
    """Which of the maps of blocks, whose ``sides`` are (h, w) in the order in which they run, are read: ``count`` at
    most, the finest first."""
    last = {side: number for number, side in enumerate(sides)}  # the last block at each resolution
    if len(last) > 1:
        return sorted(last.values())[-count:]
    count = min(count, len(sides))
    return [round((number + 1) * len(sides) / count) - 1 for number in range(count)]


def _random(channels: int, before: int, side: int) -> Tensor:
    """Weights of a convolution that keeps the size of numbers (He et al. 2015)."""
    return nn.init.kaiming_normal_(torch.empty(channels, before, side, side), nonlinearity="linear")


def _enlarged(x: Tensor, sides: Sequence[int]) -> Tensor:
    if tuple(x.shape[2:]) == tuple(sides):
        return x
    return F.interpolate(x, size=tuple(sides), mode="bilinear", align_corners=False)


def _convolution(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.LeakyReLU(0.2))
