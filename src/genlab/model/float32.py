"""How float32 is multiplied on an NVIDIA GPU: as exactly as it can be, or by TensorFloat-32 of 10 bits."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32(device: torch.device | str) -> Iterator[None]:
    """No TensorFloat-32 inside, in products and convolutions on ``device``: a sample would depend on its batch, and a
    number on the GPU. On other devices nothing changes."""
    with float32_of(device, tf32=False):
        yield


@contextmanager
def float32_of(device: torch.device | str, tf32: bool) -> Iterator[None]:
    """Products and convolutions of float32 inside: in TensorFloat-32, of which tensor cores do several times as many,
    or exact. Only on a GPU of NVIDIA's."""
    if torch.device(device).type != "cuda":
        yield
        return
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    allow(tf32)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def allow(tf32: bool) -> None:
    """From now on."""
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
