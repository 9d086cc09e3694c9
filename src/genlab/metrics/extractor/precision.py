"""Disables autocast and TensorFloat-32 while features are computed, so that they are float32 everywhere."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from genlab.model.float32 import exact_float32


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No gradients, no autocast and no TF32 on ``device``."""
    with (
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
        exact_float32(device),
    ):
        yield
