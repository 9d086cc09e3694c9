"""Group normalization (Wu and He 2018), quick where channels lie beside each other on a CPU."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def group_norm(channels: int) -> nn.GroupNorm:
    """Up to 32 groups, as published, of at least 4 channels each, so that narrow networks keep their statistics."""
    return GroupNorm(math.gcd(32, channels // 4), channels)


class GroupNorm(nn.GroupNorm):
    """Torch's, whose kernel for ``channels_last`` on a CPU takes up to a fifth of a U-Net's step: there in three passes
    over the pixels, each over all channels at once."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same; statistics are float32 or finer, gradients are not differentiable again there."""
        if not _is_channels_last(x) or torch.compiler.is_compiling():
            return super().forward(x)
        return _ChannelsLast.apply(x, self.weight, self.bias, self.num_groups, self.eps)  # type: ignore[no-any-return]


def _is_channels_last(x: Tensor) -> bool:
    is_so = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return is_so and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16, torch.float64)


class _ChannelsLast(torch.autograd.Function):
    """With pixels p and channels c of group g: y = (x - mean_g) rstd_g w_c + b_c."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        rows = _rows(x)  # (N, pixels, C)
        if x.dtype == torch.bfloat16:
            rows = rows.float()
        count = rows.shape[1] * rows.shape[2] // groups
        mean = _over_groups(rows.sum(dim=1), groups) / count  # (N, groups)
        centered = rows - _to_channels(mean, rows.shape[2])[:, None]
        variance = _over_groups(centered.square().sum(dim=1), groups) / count
        scale = _to_channels(torch.rsqrt(variance + eps), rows.shape[2])  # (N, C)
        made = torch.addcmul(bias.to(rows.dtype), centered, (scale * weight)[:, None])
        ctx.save_for_backward(centered, scale, weight)
        ctx.groups, ctx.dtype = groups, x.dtype
        return _image(made.to(x.dtype), x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        centered, scale, weight = ctx.saved_tensors
        slope = _rows(gradient).to(centered.dtype)
        channels = centered.shape[2]
        count = centered.shape[1] * channels // ctx.groups
        of_slope, of_both = slope.sum(dim=1), (slope * centered).sum(dim=1)  # (N, C)
        through_mean = _to_channels(_over_groups(of_slope * weight, ctx.groups) / count, channels)
        through_scale = _to_channels(_over_groups(of_both * weight, ctx.groups) / count, channels) * scale.square()
        made = torch.addcmul((-scale * through_mean)[:, None], slope, (scale * weight)[:, None])
        made.addcmul_(centered, (-scale * through_scale)[:, None])
        return _image(made.to(ctx.dtype), gradient), (of_both * scale).sum(dim=0), of_slope.sum(dim=0), None, None


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W, C), which is a view where channels come last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _image(rows: Tensor, like: Tensor) -> Tensor:
    return rows.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


def _over_groups(of_channels: Tensor, groups: int) -> Tensor:
    """Sums: (N, C) -> (N, groups)."""
    return of_channels.unflatten(1, (groups, -1)).sum(dim=2)


def _to_channels(of_groups: Tensor, channels: int) -> Tensor:
    """(N, groups) -> (N, C)."""
    return of_groups.repeat_interleave(channels // of_groups.shape[1], dim=1)
