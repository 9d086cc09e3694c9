"""Features are float32 everywhere: neither autocast nor TensorFloat-32 may round them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No gradients, no autocast and no TF32 convolutions on ``device``."""
    with (
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
    ):
        yield
