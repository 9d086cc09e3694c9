"""The projection head of DINO (Caron et al. 2021, appendix C): features to scores of prototypes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.batch_norm import BatchNorm

_STD = 0.02  # of the weights of hidden layers at the start


class PrototypeHead(nn.Module):
    """Hidden layers with GELU, a bottleneck whose vectors are made unit vectors, and their cosine with each of the
    prototypes: a last layer without a bias whose rows have norm 1 (weight normalization with gains held at 1)."""

    def __init__(
        self,
        num_features: int,
        out: int,  # prototypes
        width: int = 2048,  # of the hidden layers
        bottleneck: int = 256,
        batch_norm: bool = False,  # in the hidden layers, over all ranks
        depth: int = 2,  # hidden layers
    ):
        """Raises ValueError: a size is below 1."""
        super().__init__()
        if min(width, bottleneck, depth) < 1:
            raise ValueError(f"width={width}, bottleneck={bottleneck} and depth={depth} must be 1 or more.")
        self.num_outputs = out
        layers: list[nn.Module] = []
        for inputs in [num_features, *[width] * (depth - 1)]:
            layers += [nn.Linear(inputs, width, bias=not batch_norm)]
            layers += [BatchNorm(width), nn.GELU()] if batch_norm else [nn.GELU()]
        self.hidden = nn.Sequential(*layers, nn.Linear(width, bottleneck))
        self.last = UnitRows(bottleneck, out)
        for module in self.hidden:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_STD, a=-2 * _STD, b=2 * _STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, num_features) -> (N, out), each in [-1, 1]."""
        return self.last(F.normalize(self.hidden(features).float(), dim=1))  # type: ignore[no-any-return]


class UnitRows(nn.Module):
    """A linear map whose rows are divided by their norm."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, width))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width) -> (N, out)."""
        with torch.autocast(x.device.type, enabled=False):  # scores are divided by a low temperature
            return F.linear(x.float(), F.normalize(self.weight.float(), dim=1))
