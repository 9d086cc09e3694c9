"""chrF: character overlap of samples with the true continuations (Popović 2015), by sacrebleu."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.errors import ConfigError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.sacrebleu_scorer import scorer, signature
from genlab.metrics.text_states import grouped, packed, paired, texts_of, unpacked


class ChrF(Metric):
    """``chrf``, in [0, 100]: F-score (recall counts twice) of n-grams of up to six characters, spaces left out, over
    the whole set: sample i against reference i, where there is one, the true continuation of its prompt, or against
    the nearest of all captions of picture i. With ``word_order=2`` it is chrF++.

    More robust than BLEU on short texts and partial words. Any two texts of a language share many characters:
    unrelated ones have about 20. ``settings`` has sacrebleu's signature (Post 2018, arXiv:1804.08771).
    """

    reads: ClassVar[frozenset[str]] = frozenset({"text"})
    optional: ClassVar[frozenset[str]] = frozenset({"references"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"chrf": "higher"}
    is_differentiable = False
    full_state_update = False

    real_content: list[Tensor]
    real_lengths: list[Tensor]
    real_index: list[Tensor]
    fake_content: list[Tensor]
    fake_lengths: list[Tensor]
    fake_index: list[Tensor]

    def __init__(self, word_order: int = 0):  # n-grams of words that count too
        """Raises ConfigError if sacrebleu is not installed, or the order is negative."""
        super().__init__()
        if word_order < 0:
            raise ConfigError(f"metrics.chrf.word_order must be a whole number >= 0, got {word_order}.")
        self.scorer = scorer("chrf", "CHRF", word_order=word_order)
        for side in ("real", "fake"):
            for name in ("content", "lengths", "index"):
                self.add_state(f"{side}_{name}", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``text`` and ``index``; of the reference all ``references``, if there are any."""
        texts, index = texts_of(batch, real)
        content, lengths = packed(texts, index.device)
        (self.real_content if real else self.fake_content).append(content)
        (self.real_lengths if real else self.fake_lengths).append(lengths)
        (self.real_index if real else self.fake_index).append(index)

    def compute(self) -> dict[str, Tensor]:
        """``chrf``."""
        references = grouped(self.real_content, self.real_lengths, self.real_index)
        samples = unpacked(self.fake_content, self.fake_lengths, self.fake_index)
        score = self.scorer.corpus_score(*paired(samples, references)).score
        return {"chrf": torch.tensor(score, dtype=torch.float64)}

    def settings(self) -> dict[str, int | float | str]:
        return {"signature": signature(self.scorer)}
