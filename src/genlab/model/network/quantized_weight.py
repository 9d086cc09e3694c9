"""Weights of frozen linear maps in 8 or 4 bits, which are made floats again whenever they are multiplied by."""

import math
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Quantization = Literal["int8", "nf4"]

BLOCK = 64  # weights of a scale
# NormalFloat of 4 bits (Dettmers et al. 2023, appendix E): quantiles of the standard normal distribution, on [-1, 1].
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_SMALLEST = 1e-38  # of a scale that is divided by: weights may be all 0


def quantize(weight: Tensor, quantization: Quantization) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) as whole numbers and float32 scales.

    int8: each row by its largest magnitude, (out, in) int8 and (out, 1). nf4: each 64 weights by their largest, in the
    order of memory and filled up with 0; bytes of two (N / 64, 32), the earlier in the high half, and (N / 64, 1).
    """
    x = weight.detach().float()
    if quantization == "int8":
        scales = x.abs().amax(dim=1, keepdim=True).clamp(min=_SMALLEST)
        return (x * (127 / scales)).round().to(torch.int8), scales / 127
    blocks = F.pad(x.flatten(), (0, -x.numel() % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(dim=1, keepdim=True).clamp(min=_SMALLEST)
    values = _values(x.device)
    codes = torch.bucketize(blocks * (1 / scales), (values[1:] + values[:-1]) / 2, out_int32=True).to(torch.uint8)
    return codes[:, ::2] << 4 | codes[:, 1::2], scales


def dequantize(numbers: Tensor, scales: Tensor, shape: tuple[int, ...], quantization: Quantization) -> Tensor:
    """The float32 matrix of ``shape`` that :func:`quantize` has made these of, to rounding."""
    if quantization == "int8":
        return numbers * scales
    values = _values(numbers.device)
    pairs = torch.stack([values.repeat_interleave(len(NF4)), values.repeat(len(NF4))], dim=1)  # (256, 2), of each byte
    blocks = F.embedding(numbers.int(), pairs).flatten(1) * scales  # (N / 64, 64)
    return blocks.flatten()[: shape[0] * shape[1]].view(shape)


def _values(device: torch.device) -> Tensor:
    return torch.tensor(NF4, device=device)


class QuantizedWeight(nn.Module):
    """The weight of a linear map that is not trained. Its numbers are parameters without gradients, which are sent to
    all devices once, or sharded over them."""

    kept: Tensor | None = None  # as floats, for many calls of few rows

    def __init__(self, weight: Tensor, quantization: Quantization):
        super().__init__()
        numbers, scales = quantize(weight, quantization)
        self.quantization, self.shape = quantization, tuple(weight.shape)
        self.numbers = nn.Parameter(numbers, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)

    def dense(self) -> Tensor:
        """(out, in), float32."""
        return dequantize(self.numbers, self.scales, self.shape, self.quantization)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(..., in) -> (..., out)."""
        if self.kept is not None:
            return F.linear(x, self.kept.to(x.dtype), bias)
        product: Tensor = _Product.apply(x, bias, self.numbers, self.scales, self.shape, self.quantization)
        return product

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Scales stay float32 where a module becomes one of half precision."""
        before = self.scales.data
        super()._apply(fn, recurse)
        if self.scales.dtype != before.dtype:
            self.scales.data = before.to(self.scales.device)
        return self


def number_of_weights(module: nn.Module) -> int:
    """Of the parameters; a quantized weight counts as one, in however many bits, and its scales do not."""
    kept = [part for part in module.modules() if isinstance(part, QuantizedWeight)]
    packed = {p for part in kept for p in part.parameters()}
    return sum(p.numel() for p in module.parameters() if p not in packed) + sum(math.prod(part.shape) for part in kept)


class _Product(torch.autograd.Function):
    """x W^T + b, of which the quantized W is kept for the backward pass, and not its floats."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, numbers: Tensor, scales: Tensor, *kind: Any) -> Tensor:
        ctx.save_for_backward(numbers, scales)
        ctx.kind, ctx.dtype = kind, x.dtype
        return F.linear(x, dequantize(numbers, scales, *kind).to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        (slope,) = slopes
        weight = dequantize(*ctx.saved_tensors, *ctx.kind).to(slope.dtype)
        return (slope @ weight).to(ctx.dtype), None, None, None, None, None
