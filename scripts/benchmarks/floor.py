"""What a step cannot be faster than: its floating-point operations at the rate of a plain product of matrices."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch

from genlab.budget import OperationCounter

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Floating-point operations a second of dense bfloat16 products, by the makers' data sheets.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "RTX 4090": 165e12}


@cache
def matmul_rate(dtype: torch.dtype, device: str = "cpu", size: int = 0, repeats: int = 6) -> float:
    """Operations a second of the best of several products, and of what torch can multiply float32 with; measured once
    in a process, by its own time on one thread: another program that runs meanwhile does not lower it much."""
    size = size or (1024 if device == "cpu" else 8192)
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    found = torch.get_float32_matmul_precision()
    best = 0.0
    try:
        for precision in ("highest", "medium") if device == "cpu" and dtype == torch.float32 else (found,):
            torch.set_float32_matmul_precision(precision)
            for _ in range(repeats):
                began = _now(device)
                a @ b
                best = max(best, 2 * size**3 / max(1e-9, _now(device) - began))
    finally:
        torch.set_float32_matmul_precision(found)
    return best


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def operations(run: Callable[[], Any]) -> float:
    """Floating-point operations of matrix products and convolutions of a call, as budgets count them."""
    counter: Any = _Decomposing()
    with counter:
        run()
    return float(counter.total)


class _Decomposing(OperationCounter):
    """Counts in inference mode too, where a linear map arrives as a whole and not as its product."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_inference_mode_enabled():
            with self:
                made = func.decompose(*args, **(kwargs or {}))
            if made is not NotImplemented:
                return made
        return super().__torch_dispatch__(func, types, args, kwargs)


def autocast(dtype: torch.dtype, device: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def utilization(flops: float, seconds: float) -> float | None:
    """Model FLOPs utilization (Chowdhery et al. 2022, appendix B): of what the card's maker promises; None: unknown."""
    name = torch.cuda.get_device_name()
    peak = next((peak for card, peak in PEAK.items() if card in name), None)
    return None if peak is None else flops / seconds / peak
