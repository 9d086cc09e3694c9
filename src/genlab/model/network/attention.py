"""Self-attention over a sequence of positions, shared by the U-Net and the transformer of this package."""

import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head attention of every position to every other (Vaswani et al. 2017, section 3.2.2)."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) -> (N, T, width)."""
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))  # (N, T, 3, heads, width / heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()  # (N, heads, T, width / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))
