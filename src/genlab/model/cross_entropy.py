"""Cross-entropy of tokens, of which a whole batch over a large vocabulary has gigabytes of logits."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST = 1 << 25  # logits that float32 copies are made of at once: 128 MiB each


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean nats of the tokens ``targets`` (N, T) under ``logits`` (N, T, V): a scalar, of float32 or finer."""
    if logits.numel() > MOST:
        return nats(logits, targets).mean()
    return F.cross_entropy(_widened(logits.flatten(0, 1)), targets.flatten())


def counted_nats(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """The sum of the nats of those of ``targets`` (N, T) that are ``counted`` (N, T) bool: a scalar. Logits (N, T, V)
    of others are left out before they are widened."""
    return nats(logits[counted][None], targets[counted][None]).sum()


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Minus the log-probability of each of ``targets`` (N, T) under ``logits`` (N, T, V). -> (N, T), of float32 or
    finer."""
    if logits.numel() > MOST:
        return _Chunked.apply(logits.flatten(0, 1), targets.flatten()).view_as(targets)  # type: ignore[no-any-return]
    return F.cross_entropy(_widened(logits).transpose(1, 2), targets, reduction="none")


class _Chunked(torch.autograd.Function):
    """Rows in turn: beside the logits and their gradient, both in the type that the network gave, there are only
    the float32 probabilities of some rows. Torch's keeps three such copies of all of them."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        parts = [
            F.log_softmax(some, dim=1, dtype=_wide(some)).gather(1, token[:, None])[:, 0]
            for some, token in _chunks(logits, targets)
        ]
        return torch.cat(parts).neg_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        logits, targets = ctx.saved_tensors
        slope = torch.empty_like(logits)
        minus_one = torch.full((1, 1), -1.0, dtype=gradient.dtype, device=gradient.device)
        for some, token, outer, made in _chunks(logits, targets, gradient, slope):
            shares = F.softmax(some, dim=1, dtype=_wide(some))
            shares.scatter_add_(1, token[:, None], minus_one.expand(len(token), 1))
            made.copy_(shares.mul_(outer[:, None]))
        return slope, None


def _chunks(logits: Tensor, *others: Tensor) -> Any:
    rows = max(1, MOST // logits.shape[1])
    return zip(logits.split(rows), *(other.split(rows) for other in others), strict=True)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _widened(x: Tensor) -> Tensor:
    return x.to(_wide(x))
