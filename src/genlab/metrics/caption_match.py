"""Exact match of captions."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from genlab.metrics.base import Direction
from genlab.metrics.compared_texts import ComparedTexts


class CaptionMatch(ComparedTexts):
    """``caption_match``, in [0, 1]: the share of captions that are, word for word, one of their picture's, upper and
    lower case and spaces aside."""

    directions: ClassVar[Mapping[str, Direction | None]] = {"caption_match": "higher"}

    def prepared(self, text: str) -> str:
        return " ".join(text.lower().split())

    def compute(self) -> dict[str, Tensor]:
        """``caption_match``. Raises DataError if no sample has a reference."""
        right = [text in references for text, references in self.compared().values()]
        return {"caption_match": torch.tensor(sum(right) / len(right), dtype=torch.float64)}

    def settings(self) -> dict[str, int | float | str]:
        return {"compared": "lower case, single spaces"}
