"""The best of several samples by a judge: rejection sampling, with all that is drawn counted."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from genlab.model.base import Condition, Draw, GenerativeModel
from genlab.seeding import RandomStream, derive_seed


class Judge(Protocol):
    """What says how good samples are."""

    reads: frozenset[str]  # the keys of the condition that it looks at
    described: str  # for protocols: what judges, and a hash of it

    def score(self, images: Tensor, condition: Condition) -> Tensor:
        """``images``: (N, C, H, W) in [-1, 1]; ``condition``: what they are for, (N, ...) each. -> (N,), higher for
        better ones."""
        ...


@runtime_checkable
class DescribesDraws(Protocol):
    """What draws samples in place of a model's own method, and says how."""

    def facts(self) -> dict[str, str]:
        """For a protocol."""
        ...


class BestOf:
    """Of ``count`` candidates for each sample, the one with the highest score, the first of equals. Candidate j of
    sample i depends on sample i's random numbers and j alone, so that samples do not depend on their batch.

    A condition may have keys that the model does not take: the judge looks at them. ``draw``: what draws candidates;
    None: the model.
    """

    def __init__(self, model: GenerativeModel, count: int, judge: Judge, draw: Draw | None = None):
        self.model, self.count, self.judge, self.draw = model, count, judge, draw or model.sample

    def facts(self) -> dict[str, str]:
        """For a protocol."""
        return {"best_of": f"{self.count} by {self.judge.described}"}

    @torch.no_grad()
    def __call__(self, num_samples: int, condition: Condition | None, stream: RandomStream) -> Tensor:
        told = condition or {}
        known = {key: value for key, value in told.items() if key in self.model.conditions.kinds} or None
        beginnings = stream.randint(2**62).tolist()
        best: Tensor | None = None
        highest = torch.full((num_samples,), -torch.inf, device=stream.device)
        for number in range(self.count):
            own = RandomStream([derive_seed(beginning, number) for beginning in beginnings], stream.device)
            drawn = self.draw(num_samples, known, own)
            score = self.judge.score(drawn, told).to(highest)
            better = score > highest
            best = drawn if best is None else torch.where(better.view(-1, *[1] * (drawn.ndim - 1)), drawn, best)
            highest = torch.where(better, score, highest)
        assert best is not None
        return best
