"""How often numbers order pairs as others do, and whether probabilities of that are right."""

import torch
from torch import Tensor

_BINS = 10
_AT_ONCE = 512  # numbers that are compared with all others


def pair_accuracy(predicted: Tensor, truth: Tensor) -> Tensor:
    """Of all pairs with unequal ``truth`` (N,), how often the larger ``predicted`` (N,) is of the larger; equal ones
    count half. nan: there is no such pair."""
    right = torch.zeros((), dtype=torch.float64)
    number = 0
    for start in range(0, len(truth), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        higher = (truth[rows, None] > truth).cpu()
        right += ((predicted[rows, None] > predicted).cpu() & higher).sum()
        right += ((predicted[rows, None] == predicted).cpu() & higher).sum() / 2
        number += int(higher.sum())
    return right / number if number else torch.tensor(torch.nan, dtype=torch.float64)


def calibration_error(probability: Tensor, right: Tensor) -> Tensor:
    """``probability`` (N,) that the first of two is preferred, and ``right`` (N,), 1 where it was, 0 where the other
    was. Both are turned round below 0.5."""
    sure = torch.maximum(probability, 1 - probability)
    was = torch.where(probability >= 0.5, right, 1 - right)
    numbers = ((sure - 0.5) * 2 * _BINS).long().clamp(max=_BINS - 1)
    inside = [numbers == i for i in range(_BINS)]
    error = torch.stack([(sure[one].sum() - was[one].sum()).abs() for one in inside])
    return error.sum() / len(sure)
