"""Learning rates over a run, as multiples of the optimizer's. They are functions of examples and the budget, not of
steps."""

import math
from collections.abc import Sequence


class Constant:
    """1, after a linear warm-up."""

    def __init__(self, warmup: int = 0):
        self.warmup = warmup  # in examples

    def scale(self, examples: int, fraction: float) -> float:
        """``examples`` seen so far, ``fraction`` of the budget in [0, 1]. -> in [0, 1]."""
        return warmup_scale(examples, self.warmup)


class CosineDecay:
    """From 1 to ``final`` along half a cosine over the budget (Loshchilov and Hutter 2017, eq. 5), after a warm-up."""

    def __init__(self, warmup: int = 0, final: float = 0.0):
        self.warmup = warmup  # in examples
        self.final = final  # of the learning rate, when the budget is spent

    def scale(self, examples: int, fraction: float) -> float:
        """``examples`` seen so far, ``fraction`` of the budget in [0, 1]. -> in [0, 1]."""
        decay = self.final + (1 - self.final) * (1 + math.cos(math.pi * fraction)) / 2
        return warmup_scale(examples, self.warmup) * decay


class LinearDecay:
    """From 1 to ``final`` on a straight line over the budget, after a warm-up."""

    def __init__(self, warmup: int = 0, final: float = 0.0):
        self.warmup = warmup  # in examples
        self.final = final  # of the learning rate, when the budget is spent

    def scale(self, examples: int, fraction: float) -> float:
        """``examples`` seen so far, ``fraction`` of the budget in [0, 1]. -> in [0, 1]."""
        return warmup_scale(examples, self.warmup) * (1 + (self.final - 1) * fraction)


class StepDecay:
    """1, times ``factor`` from each share of the budget on that is named in ``at``, after a linear warm-up."""

    def __init__(self, at: Sequence[float], factor: float = 0.1, warmup: int = 0):
        """``at``: shares of the budget in (0, 1); ``warmup``: examples. Raises ValueError for another share."""
        if not all(0 < share < 1 for share in at):
            raise ValueError(f"at must be shares of the budget between 0 and 1, got {list(at)}.")
        self.at, self.factor, self.warmup = at, factor, warmup

    def scale(self, examples: int, fraction: float) -> float:
        """``examples`` seen so far, ``fraction`` of the budget in [0, 1]. -> >= 0."""
        steps = sum(fraction >= share - 1e-9 for share in self.at)  # 0.4 of a budget is 0.39999999999999997
        return warmup_scale(examples, self.warmup) * self.factor**steps


def warmup_scale(examples: int, warmup: int) -> float:
    """From 0 to 1 while the first ``warmup`` examples are seen."""
    return min(1.0, examples / warmup) if warmup > 0 else 1.0
