"""Rewards by rules: how long an answer is, whether it ends, whether it has a form."""

import re
from typing import Any

import torch
from torch import Tensor

from genlab.model.answers import Answers


class Length:
    """The length of an answer, as a share of ``model.sample_length``: in (0, 1]. With a negative weight, short answers
    are better."""

    def __init__(self, weight: float = -0.1):
        self.weight = weight

    def check(self, data: Any) -> None:
        """Fits all data."""

    def score(self, answers: Answers) -> Tensor:
        """(M,), in (0, 1]."""
        return answers.length / answers.limit


class Ended:
    """1 for an answer that ends by itself, 0 for one that is cut at ``model.sample_length`` tokens."""

    def __init__(self, weight: float = 0.1):
        self.weight = weight

    def check(self, data: Any) -> None:
        """Fits all data."""

    def score(self, answers: Answers) -> Tensor:
        """(M,), 0 or 1."""
        return answers.ended.float()


class Format:
    """1 for an answer that is of a form from its first to its last character, else 0."""

    def __init__(self, pattern: str, weight: float = 0.1):  # a regular expression of Python
        """Raises ValueError: it is none."""
        self.weight = weight
        try:
            self.pattern = re.compile(pattern, re.DOTALL)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"pattern={pattern!r} is no regular expression ({error}).") from error

    def check(self, data: Any) -> None:
        """Fits all data."""

    def score(self, answers: Answers) -> Tensor:
        """(M,), 0 or 1."""
        return torch.tensor([float(self.pattern.fullmatch(text) is not None) for text in answers.texts])
