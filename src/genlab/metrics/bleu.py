"""BLEU: word overlap of samples with the true continuations (Papineni et al. 2002), by sacrebleu."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from genlab.metrics.base import Direction
from genlab.metrics.compared_texts import ComparedTexts, for_sacrebleu
from genlab.metrics.sacrebleu_scorer import scorer, signature


class BLEU(ComparedTexts):
    """``bleu``, in [0, 100]: n-gram precision of samples, up to four words, with a penalty for short ones, over the
    whole set: sample i against reference i, where there is one, the true continuation of its prompt, or against all
    captions of picture i.

    Made for translation. Free text has many good continuations and the reference is one of them, so scores
    are low; without a prompt (``task.prompt_length=0``) it is meaningless. ``settings`` has sacrebleu's signature
    (Post 2018, arXiv:1804.08771).
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {"bleu": "higher"}

    def __init__(self, tokenize: str = "13a"):  # sacrebleu's tokenization: 13a, intl, char, zh, ja-mecab, none ...
        """Raises ConfigError if sacrebleu is not installed, or does not know this tokenization."""
        super().__init__()
        self.scorer = scorer("bleu", "BLEU", tokenize=tokenize)

    def compute(self) -> dict[str, Tensor]:
        """``bleu``. Raises DataError if no sample has a reference."""
        score = self.scorer.corpus_score(*for_sacrebleu(self.compared())).score
        return {"bleu": torch.tensor(score, dtype=torch.float64)}

    def settings(self) -> dict[str, int | float | str]:
        return {"signature": signature(self.scorer)}
