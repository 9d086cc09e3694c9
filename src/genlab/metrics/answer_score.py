"""Scores of answers by a checker that the data have."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.data.conversation import Conversation
from genlab.errors import ConfigError
from genlab.metrics.base import Direction
from genlab.metrics.held_out_answers import answered, check_answered, conversations_of
from genlab.model.base import GenerativeModel


@runtime_checkable
class HasChecker(Protocol):
    """Data whose answers can be checked: a problem may have several right ones, and one may be right in part."""

    def score(self, conversation: Conversation, answer: str, split: Split) -> float:
        """In [0, 1], of an answer to a conversation of a split."""
        ...


class AnswerScore(Metric):
    """``answer_score``, in [0, 1]: the mean score of the model's answers to held-out problems, by the checker of the
    data. The model's sampler draws the answers; ``model.sampler.temperature=0`` takes the most likely token always."""

    directions: ClassVar[Mapping[str, Direction | None]] = {"answer_score": "higher"}
    full_state_update = False

    def __init__(self, num_problems: int | None = None):  # spread evenly over the split; None: all
        """Raises ConfigError if an argument is out of its range."""
        super().__init__()
        if num_problems is not None and num_problems < 1:
            raise ConfigError(f"metrics.answer_score.num_problems must be a whole number >= 1, got {num_problems}.")
        self.num_problems = num_problems
        self._facts: dict[str, int | float | str] = {}
        for name in ("score", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.score: Tensor
        self.total: Tensor

    def update(self, score: float) -> None:
        """Take in the score of an answer."""
        self.score += score
        self.total += 1

    def compute(self) -> dict[str, Tensor]:
        """``answer_score``."""
        return {"answer_score": self.score / self.total}

    def settings(self) -> dict[str, int | float | str]:
        return {"num_problems": "all" if self.num_problems is None else self.num_problems, **self._facts}

    @torch.no_grad()
    def measure(self, model: GenerativeModel, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in the answers to this rank's problems. Raises ConfigError as :meth:`check`."""
        self.check(model, data)
        assert isinstance(data, HasChecker)
        known = conversations_of(data, "answer_score")
        self._facts = {"seed": seed, "problems": known.text_hash(split)[:16]}
        for conversation, answer in answered(model, known, split, self.num_problems, batch_size, seed):
            self.update(data.score(conversation, answer, split))

    def check(self, model: GenerativeModel, data: DataModule) -> None:
        """Raises ConfigError: the data have no checker, or the model does not answer."""
        check_answered("answer_score", model, data)
        if not isinstance(data, HasChecker):
            raise ConfigError(
                f"metrics=answer_score: {type(data).__name__} has no checker of answers. Use metrics=[exact_match]."
            )

    def subject(self, model: GenerativeModel, split: Split) -> str:
        return split
