"""Exact match of captions."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.text_states import grouped, packed, texts_of, unpacked


class CaptionMatch(Metric):
    """``caption_match``, in [0, 1]: the share of captions that are, word for word, one of their picture's, upper and
    lower case and spaces aside."""

    reads: ClassVar[frozenset[str]] = frozenset({"text"})
    optional: ClassVar[frozenset[str]] = frozenset({"references"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"caption_match": "higher"}
    is_differentiable = False
    full_state_update = False

    real_content: list[Tensor]
    real_lengths: list[Tensor]
    real_index: list[Tensor]
    fake_content: list[Tensor]
    fake_lengths: list[Tensor]
    fake_index: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for side in ("real", "fake"):
            for name in ("content", "lengths", "index"):
                self.add_state(f"{side}_{name}", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``text`` and ``index``; of the reference all ``references``, if there are any."""
        texts, index = texts_of(batch, real)
        content, lengths = packed([" ".join(text.lower().split()) for text in texts], index.device)
        (self.real_content if real else self.fake_content).append(content)
        (self.real_lengths if real else self.fake_lengths).append(lengths)
        (self.real_index if real else self.fake_index).append(index)

    def compute(self) -> dict[str, Tensor]:
        """``caption_match``. Raises DataError if no sample has a reference."""
        right = list(self.matches().values())
        return {"caption_match": torch.tensor(sum(right) / len(right), dtype=torch.float64)}

    def matches(self) -> dict[int, bool]:
        """Whether the caption of each place is right. Raises DataError if no sample has a reference."""
        references = grouped(self.real_content, self.real_lengths, self.real_index)
        samples = unpacked(self.fake_content, self.fake_lengths, self.fake_index)
        found = {place: text in references[place] for place, text in samples.items() if place in references}
        if not found:
            raise DataError("no sample has a reference to compare it with.")
        return found

    def settings(self) -> dict[str, int | float | str]:
        return {"compared": "lower case, single spaces"}
