"""Features of a convolutional network that was never trained: no download, any image size.

Random features distinguish color, contrast and local texture (Naeem et al. 2020, arXiv:2002.09797, find
them the better choice where images are far from ImageNet). They capture objects less than Inception's.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from genlab.data.image import to_float
from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision
from genlab.seeding import derive_seed, uniform_by_index

_SLOPE = 0.2  # of the leaky ReLU
_PREPROCESSING = f"to [-1, 1]; grey repeated to RGB; leaky_relu {_SLOPE}; per stage spatial mean and std"


class RandomConv:
    """Spatial mean and standard deviation of every channel of a few strided convolutions; all of order 1.

    The weights are uniform, of the variance that keeps activations' (He et al. 2015), and a function of ``seed`` by
    integer arithmetic alone: the same on every machine and in every version of torch.
    """

    modality: Literal["image"] = "image"
    gives = frozenset({"features"})
    preprocessing = _PREPROCESSING

    def __init__(
        self,
        seed: int = 0,
        widths: tuple[int, ...] = (32, 32, 64),  # channels of each stage; each halves the resolution
    ):
        self.name = f"random{2 * sum(widths)}"
        self.network = nn.ModuleList()
        for stage, (channels, width) in enumerate(zip((3, *widths), widths, strict=False)):
            conv = nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False).requires_grad_(False)
            bound = math.sqrt(3 * 2 / (1 + _SLOPE**2) / (9 * channels))  # a uniform sd is bound / sqrt 3
            uniform = uniform_by_index(derive_seed(seed, stage), np.arange(conv.weight.numel()))
            conv.weight.copy_(torch.from_numpy(bound * (2 * uniform - 1)).view_as(conv.weight))
            self.network.append(conv)

    def fingerprint(self) -> str:
        return network_fingerprint(self.network, "random_conv", _PREPROCESSING)

    def extract(self, examples: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """uint8 (N, C, H, W), C of 1 or 3, any size -> ``features`` (N, 2 * sum(widths)), float32."""
        self.network.to(examples.device)
        with full_precision(examples.device):
            x = to_float(examples).expand(-1, 3, -1, -1)
            pooled = []
            for conv in self.network:
                x = nn.functional.leaky_relu(conv(x), _SLOPE)
                std, mean = torch.std_mean(x, dim=(2, 3), correction=0)
                pooled += [mean, std]
            return {"features": torch.cat(pooled, dim=1)}
