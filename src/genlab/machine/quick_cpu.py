"""How a process computes on a CPU: which library multiplies, how it attends, and what becomes of freed memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from genlab.machine.allocator import keep_freed_memory

Matmul = Literal["onednn", "blas"]  # what multiplies float32: oneDNN, or the library that torch was built with
Attention = Literal["fused", "matrices"]

_TOLERANCE = 1e-5  # largest error, relative to the largest entry; float32 has 1e-6, bfloat16 3e-3


@contextmanager
def quick_cpu(on_cpu: bool, matmul: Matmul = "onednn", attention: Attention = "fused") -> Iterator[None]:
    """Within, a CPU multiplies and attends as it is told. Memory is kept for the next tensors
    (:func:`keep_freed_memory`), from then on. On a GPU, nothing changes.

    What torch calls "medium" precision allows oneDNN. On some processors that really means bfloat16, so a test product
    is checked first; there, torch's own library multiplies whatever is asked for.
    """
    if not on_cpu:
        yield
        return
    keep_freed_memory()
    fused = torch.backends.cuda.flash_sdp_enabled()  # of CPUs too, despite its name
    torch.backends.cuda.enable_flash_sdp(attention == "fused")
    try:
        with multiplied_by(matmul):
            yield
    finally:
        torch.backends.cuda.enable_flash_sdp(fused)


@contextmanager
def multiplied_by(matmul: Matmul) -> Iterator[None]:
    """Within, that library multiplies, if it is as exact as float32 can be and nobody has chosen already."""
    before = torch.get_float32_matmul_precision()
    if matmul == "blas" or before != "highest" or not torch.backends.mkldnn.is_available():
        yield
        return
    torch.set_float32_matmul_precision("medium")
    try:
        if not _is_exact():
            torch.set_float32_matmul_precision(before)
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _is_exact() -> bool:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 256, 256, generator=generator)
    exact = a.double() @ b.double()
    return bool(((a @ b - exact).abs().max() / exact.abs().max()) < _TOLERANCE)
