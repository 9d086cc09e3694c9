"""BLEU: word overlap of samples with the true continuations (Papineni et al. 2002), by sacrebleu."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.sacrebleu_scorer import scorer, signature
from genlab.metrics.text_states import grouped, packed, paired, texts_of, unpacked


class BLEU(Metric):
    """``bleu``, in [0, 100]: n-gram precision of samples, up to four words, with a penalty for short ones, over the
    whole set: sample i against reference i, where there is one, the true continuation of its prompt, or against all
    captions of picture i.

    Made for translation. Free text has many good continuations and the reference is one of them, so scores
    are low; without a prompt (``task.prompt_length=0``) it is meaningless. ``settings`` has sacrebleu's signature
    (Post 2018, arXiv:1804.08771).
    """

    reads: ClassVar[frozenset[str]] = frozenset({"text"})
    optional: ClassVar[frozenset[str]] = frozenset({"references"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"bleu": "higher"}
    is_differentiable = False
    full_state_update = False

    real_content: list[Tensor]
    real_lengths: list[Tensor]
    real_index: list[Tensor]
    fake_content: list[Tensor]
    fake_lengths: list[Tensor]
    fake_index: list[Tensor]

    def __init__(self, tokenize: str = "13a"):  # sacrebleu's tokenization: 13a, intl, char, zh, ja-mecab, none ...
        """Raises ConfigError if sacrebleu is not installed, or does not know this tokenization."""
        super().__init__()
        self.scorer = scorer("bleu", "BLEU", tokenize=tokenize)
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
        """``bleu``."""
        references = grouped(self.real_content, self.real_lengths, self.real_index)
        samples = unpacked(self.fake_content, self.fake_lengths, self.fake_index)
        score = self.scorer.corpus_score(*paired(samples, references)).score
        return {"bleu": torch.tensor(score, dtype=torch.float64)}

    def settings(self) -> dict[str, int | float | str]:
        return {"signature": signature(self.scorer)}
