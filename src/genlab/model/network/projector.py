"""What features are mapped by before a self-supervised loss compares them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genlab.model.network.batch_norm import BatchNorm


class Projector(nn.Module):
    """A perceptron with batch norm and ReLU between its layers.

    With the loss of another map than that which is used later, features keep what the loss would have them forget
    (Chen et al. 2020, arXiv:2002.05709, section 4.2).
    """

    def __init__(
        self,
        num_features: int,
        widths: Sequence[int] = (512, 128),  # of the layers; the last is that of the vectors
        last_norm: bool = True,  # batch norm of these, too
    ):
        """Raises ValueError: no layer, or one without units."""
        super().__init__()
        if not widths or min(widths) < 1:
            raise ValueError(f"widths={list(widths)} must be one number or more, each 1 or more.")
        self.num_outputs = widths[-1]
        layers: list[nn.Module] = []
        for place, width in enumerate(widths, start=1):
            has_norm = place < len(widths) or last_norm
            layers.append(nn.Linear(num_features, width, bias=not has_norm))
            if has_norm:
                layers.append(BatchNorm(width))
            if place < len(widths):
                layers.append(nn.ReLU())
            num_features = width
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """(N, num_features) -> (N, num_outputs) float32."""
        made: Tensor = self.layers(features)
        return made.to(torch.promote_types(made.dtype, torch.float32))
