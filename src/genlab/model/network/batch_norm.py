"""Batch norm over the batches of all ranks."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from genlab.model.gathered import gathered


class BatchNorm(_BatchNorm):
    """Torch's of (N, C) or (N, C, ...), whose statistics in training are those of the batches of all ranks together, so
    that two ranks train as one does.

    Statistics of a rank alone would tell a network which images are on it: of the two views of an image, which are on
    one rank, it could find that they belong together without looking at the images (He et al. 2020, arXiv:1911.05722,
    section 3.3). Torch's own for several ranks runs on GPUs alone. All ranks must have equally many rows.
    """

    def __init__(self, num_features: int):
        super().__init__(num_features)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch norm takes (N, C, ...), not a tensor of shape {tuple(input.shape)}.")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> the same; statistics are float32 or finer."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        others = [axis for axis in range(x.ndim) if axis != 1]
        variance, mean = torch.var_mean(x, dim=others, correction=0)
        of_ranks = gathered(torch.stack([mean, variance])[None])  # (R, 2, C)
        mean = of_ranks[:, 0].mean(dim=0)
        variance = (of_ranks[:, 1] + (of_ranks[:, 0] - mean).square()).mean(dim=0)
        self._follow(mean.detach(), variance.detach(), x.numel() // x.shape[1] * dist.get_world_size())
        scale = torch.rsqrt(variance + self.eps)
        shape = (-1, *(1 for _ in others[1:]))  # (C, 1, ...)
        made = (x - mean.view(shape)) * scale.view(shape)
        if self.affine:
            made = made * self.weight.view(shape) + self.bias.view(shape)
        return made.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Have the running statistics follow those of a batch of ``count`` values of a channel."""
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        unbiased = variance * (count / max(count - 1, 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
