"""What a process that computes on a CPU is set to: which library multiplies, and what becomes of freed memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from genlab.machine.allocator import keep_freed_memory

_TOLERANCE = 1e-5  # largest error, relative to the largest entry; float32 has 1e-6, bfloat16 3e-3


@contextmanager
def quick_cpu(on_cpu: bool) -> Iterator[None]:
    """Within, oneDNN multiplies, on CPUs where it is as exact as float32 can be: up to twice as fast as by default.
    Memory is kept for the next tensors (:func:`keep_freed_memory`), from then on.

    What torch calls "medium" precision allows it. On some processors that really means bfloat16, so a test product is
    checked first; there, and on a GPU, nothing changes.
    """
    if on_cpu:
        keep_freed_memory()
    before = torch.get_float32_matmul_precision()
    if not on_cpu or before != "highest" or not torch.backends.mkldnn.is_available():
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
