"""Recall at k of a ranking with ties."""

import torch
from torch import Tensor

_NEAR = 1e-9  # scores that differ by less are equal: the same products, summed in another order


def recall_at(k: int, scores: Tensor, right: Tensor) -> Tensor:
    """The probability that one of the right candidates is among the first ``k``, (N,) float64, where candidates with
    equal scores come in random order.

    ``scores``: (N, M); ``right``: (N, M) bool, at least one in a row. Without ties it is 0 or 1; where all scores are
    equal it is that of chance, 1 - C(M - r, k) / C(M, k) for r right ones.
    """
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    above = (scores > best + _NEAR).sum(dim=1)  # (N,): all of them wrong
    tied = (scores - best).abs() <= _NEAR
    among, wrong = tied.sum(dim=1).double(), (tied & ~right).sum(dim=1).double()
    missed = torch.ones_like(among)  # the probability that all places up to k go to wrong ones
    for place in range(k):
        taken = (place - above).clamp_min(0)  # of the tied ones, before this place
        share = (wrong - taken).clamp_min(0) / (among - taken).clamp_min(1)
        missed = torch.where(place >= above, missed * share, missed)
    return 1 - missed
