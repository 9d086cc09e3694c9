"""The projection head of BYOL and its predictor (Grill et al. 2020, section 3.3): a network with one hidden layer."""

import torch.nn.functional as F
from torch import Tensor, nn


class MLPHead(nn.Module):
    """Linear, batch norm, ReLU, linear; the batch norm over the rows of a call."""

    def __init__(self, num_features: int, out: int, width: int = 4096):
        """Raises ValueError: no hidden units."""
        super().__init__()
        if width < 1:
            raise ValueError(f"width={width} must be 1 or more.")
        self.hidden = nn.Linear(num_features, width, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.out = nn.Linear(width, out)

    def forward(self, features: Tensor) -> Tensor:
        """(N, num_features) -> (N, out)."""
        return self.out(F.relu(self.norm(self.hidden(features))))  # type: ignore[no-any-return]
