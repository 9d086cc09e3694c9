"""The feed-forward layers of transformers."""

import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.fused_linear import FusedLinear


class FeedForward(nn.Module):
    """Two linear maps around an activation (Vaswani et al. 2017, eq. 2)."""

    def __init__(
        self,
        width: int,
        activation: nn.Module,
        expansion: float = 4.0,
        bias: bool = False,
        hidden: int | None = None,  # channels between the maps; None: expansion * width
    ):
        super().__init__()
        hidden = round(expansion * width) if hidden is None else hidden
        self.expand = nn.Linear(width, hidden, bias)
        self.activation = activation
        self.out = nn.Linear(hidden, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return self.out(self.activation(self.expand(x)))


class SwiGLU(nn.Module):
    """A linear map, gated by another through SiLU (Shazeer 2020, eq. 6)."""

    def __init__(
        self,
        width: int,
        expansion: float = 8 / 3,
        bias: bool = False,
        hidden: int | None = None,  # channels between the maps; None: expansion * width, rounded to a multiple of 8
    ):
        super().__init__()
        hidden = round(expansion * width / 8) * 8 if hidden is None else hidden
        self.gate_and_value = FusedLinear(width, {"gate": hidden, "value": hidden}, bias)
        self.out = nn.Linear(hidden, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * value)


class SquaredReLU(nn.Module):
    """max(x, 0)^2 (So et al. 2021, section 4)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()
