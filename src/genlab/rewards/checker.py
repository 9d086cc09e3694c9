"""The reward of answers that the data can check."""

from typing import Any

import torch
from torch import Tensor

from genlab.errors import ConfigError
from genlab.metrics.answer_score import HasChecker
from genlab.model.answers import Answers


class Checker:
    """The score that the checker of the data gives an answer, in [0, 1]: of data=reasoning_gym and data=prompts.
    ``whole``: 1 for a full score and 0 for less, so that an answer that is right in part is worth nothing."""

    def __init__(self, weight: float = 1.0, whole: bool = False):
        self.weight, self.whole = weight, whole

    def check(self, data: Any) -> None:
        """Raises ConfigError: the data have no checker."""
        if not isinstance(data, HasChecker):
            raise ConfigError(
                f"model/rewards=checker: {type(data).__name__} has no checker of answers. Use data=prompts or "
                "data=reasoning_gym, or rewards of another kind, model/rewards=[judged]."
            )

    def score(self, answers: Answers) -> Tensor:
        """(M,), in [0, 1]."""
        known = answers.data.known(answers.split)
        asked = [known[number] for number in answers.numbers]
        scores = [answers.data.score(one, text, answers.split) for one, text in zip(asked, answers.texts, strict=True)]
        return torch.tensor([float(score >= 1) for score in scores] if self.whole else scores)
