"""chrF: character overlap of samples with the true continuations (Popović 2015), by sacrebleu."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from genlab.errors import ConfigError
from genlab.metrics.base import Direction
from genlab.metrics.compared_texts import ComparedTexts, for_sacrebleu
from genlab.metrics.sacrebleu_scorer import scorer, signature


class ChrF(ComparedTexts):
    """``chrf``, in [0, 100]: F-score (recall counts twice) of n-grams of up to six characters, spaces left out, over
    the whole set: sample i against reference i, where there is one, the true continuation of its prompt, or against
    the nearest of all captions of picture i. With ``word_order=2`` it is chrF++.

    More robust than BLEU on short texts and partial words. Any two texts of a language share many characters:
    unrelated ones have about 20. ``settings`` has sacrebleu's signature (Post 2018, arXiv:1804.08771).
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {"chrf": "higher"}

    def __init__(self, word_order: int = 0):  # n-grams of words that count too
        """Raises ConfigError if sacrebleu is not installed, or the order is negative."""
        super().__init__()
        if word_order < 0:
            raise ConfigError(f"metrics.chrf.word_order must be a whole number >= 0, got {word_order}.")
        self.scorer = scorer("chrf", "CHRF", word_order=word_order)

    def compute(self) -> dict[str, Tensor]:
        """``chrf``. Raises DataError if no sample has a reference."""
        score = self.scorer.corpus_score(*for_sacrebleu(self.compared())).score
        return {"chrf": torch.tensor(score, dtype=torch.float64)}

    def settings(self) -> dict[str, int | float | str]:
        return {"signature": signature(self.scorer)}
