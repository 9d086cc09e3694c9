"""Bilinear resize of TensorFlow 1, which published Inception numbers are based on."""

import torch
from torch import Tensor


def resize_like_tensorflow(images: Tensor, size: int) -> Tensor:
    """uint8 (N, C, H, W) -> float32 (N, C, size, size) in [0, 255].

    No antialiasing, and pixel i of the result lies at i H / size: bit for bit torch-fidelity's, one axis at a time,
    which is less work.
    """
    return _stretch(_stretch(images.float(), size, dim=3), size, dim=2)


def _stretch(x: Tensor, size: int, dim: int) -> Tensor:
    length = x.shape[dim]
    place = torch.arange(size, dtype=torch.float32, device=x.device) * torch.tensor(length / size, dtype=torch.float32)
    low = place.long()
    high = (low + 1).clamp_max(length - 1)
    weight = (place - low).view(-1, *(1,) * (x.dim() - 1 - dim))
    left = x.index_select(dim, low)
    return (x.index_select(dim, high) - left).mul_(weight).add_(left)
