"""Linear maps that stand for several, and those that are not called."""

from collections.abc import Mapping

from torch import nn


class FusedLinear(nn.Linear):
    """Several linear maps of one input, whose outputs lie one after the other, multiplied as one: the queries, keys and
    values of an attention. What treats each of them by itself, as an adapter does, reads ``parts``."""

    def __init__(self, in_features: int, parts: Mapping[str, int], bias: bool = True):
        """``parts``: channels of the output by name, in their order."""
        super().__init__(in_features, sum(parts.values()), bias)
        self.parts = dict(parts)


class Unembedding(nn.Linear):
    """The map onto a vocabulary, whose weight is read where logits are made: it is never called, so nothing may be put
    around it."""
