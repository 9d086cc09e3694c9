"""CIDEr-D: agreement of captions with those that people wrote, by n-grams that tell pictures apart."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from genlab.metrics.base import Direction
from genlab.metrics.compared_texts import ComparedTexts
from genlab.metrics.words import words

_N = 4  # words of the longest n-grams
_SIGMA = 6.0  # of the penalty for another length, in words
_SCALE = 10.0

Grams = Counter[tuple[str, ...]]


class CIDEr(ComparedTexts):
    """``cider_d``, from 0 to 10 and above only by rounding: the mean over pictures of the CIDEr-D of their caption
    (Vedantam et al. 2015, section 4 and eq. 5; the algorithm of the coco-caption toolkit).

    For n = 1 to 4, cosines of vectors of tf-idf weights of n-grams, a candidate's clipped at the reference's, times a
    Gaussian penalty for another length; averaged over n and over the references of a picture, times 10. Document
    frequencies are those of the references that are compared with: numbers of different references are not comparable,
    and of a single picture all weights are 0.

    Words are runs of letters and digits in lower case; marks are left out. The toolkit has the tokenizer of the Penn
    Treebank do that, which differs in what it does with hyphens and apostrophes.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {"cider_d": "higher"}

    def compute(self) -> dict[str, Tensor]:
        """``cider_d``. Raises DataError if no sample has a reference."""
        compared = self.compared().values()
        scores = cider_d(
            [tokens(text) for text, _ in compared], [[tokens(text) for text in own] for _, own in compared]
        )
        return {"cider_d": torch.tensor(sum(scores) / len(scores), dtype=torch.float64)}

    def settings(self) -> dict[str, int | float | str]:
        return {"words": "lower case, without marks", "document_frequencies": "references"}


def tokens(text: str) -> list[str]:
    """The words of a caption in lower case, without marks."""
    return [word for word in words(text.lower()) if word[0].isalnum() or word[0] == "_"]


def cider_d(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """The CIDEr-D of each of N candidates, words each, given the references of its picture, one at least."""
    counted = [[_grams(reference) for reference in own] for own in references]
    documents: Counter[tuple[str, ...]] = Counter()
    for own in counted:
        documents.update(set().union(*own))
    log_count = math.log(len(references))
    scores = []
    for candidate, own in zip(candidates, counted, strict=True):
        made = _Vectors(_grams(candidate), documents, log_count)
        sums = [made.similarity(_Vectors(reference, documents, log_count)) for reference in own]
        scores.append(_SCALE * sum(sums) / len(sums))
    return scores


def _grams(text: Sequence[str]) -> Grams:
    """How often each n-gram of up to 4 words occurs."""
    return Counter(tuple(text[i : i + n]) for n in range(1, _N + 1) for i in range(len(text) - n + 1))


class _Vectors:
    """The tf-idf weights of a caption's n-grams, for each n."""

    def __init__(self, grams: Grams, documents: Mapping[tuple[str, ...], int], log_count: float):
        self.weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(_N)]
        for gram, count in grams.items():
            rarity = log_count - math.log(max(1, documents.get(gram, 0)))
            self.weights[len(gram) - 1][gram] = count * rarity
        self.norms = [math.sqrt(sum(weight * weight for weight in own.values())) for own in self.weights]
        self.length = sum(count for gram, count in grams.items() if len(gram) == 2)  # as the toolkit has it: bigrams

    def similarity(self, reference: "_Vectors") -> float:
        """The mean over n of clipped cosines, with the penalty for another length."""
        penalty = math.exp(-((self.length - reference.length) ** 2) / (2 * _SIGMA**2))
        return penalty * sum(self._cosines(reference)) / _N

    def _cosines(self, reference: "_Vectors") -> Iterator[float]:
        for own, others, norm, other_norm in zip(
            self.weights, reference.weights, self.norms, reference.norms, strict=True
        ):
            product = sum(min(weight, others.get(gram, 0.0)) * others.get(gram, 0.0) for gram, weight in own.items())
            yield product / (norm * other_norm) if norm and other_norm else product
