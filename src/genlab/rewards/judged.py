"""The reward of answers by a reward model that was trained."""

from typing import Annotated, Any

import torch
from torch import Tensor

from genlab.errors import ConfigError
from genlab.model.answers import Answers
from genlab.model.base import Model, ScoresAnswers
from genlab.model.elsewhere import FROM_ELSEWHERE


class Judged:
    """The mean reward of a run of model=reward, which may be an ensemble: less ``caution`` times the standard deviation
    of its members, so that what they disagree about is worth less (Coste et al. 2023, section 3.2)."""

    def __init__(
        self,
        model: Annotated[ScoresAnswers, FROM_ELSEWHERE],  # outputs/reward-...
        weight: float = 1.0,
        caution: float = 0.0,
    ):
        """Makes the networks of ``model``; the caller loads its weights afterwards. Raises ValueError: there is
        caution, and a single member."""
        assert isinstance(model, Model)
        if caution and model.members < 2:
            raise ValueError(
                f"caution={caution} needs a reward model of several members. Use model.rewards.judged.caution=0."
            )
        model.configure_model()
        self.model: Any = model.eval().requires_grad_(False)
        self.weight, self.caution = weight, caution

    def check(self, data: Any) -> None:
        """Raises ConfigError: the data have longer texts than the reward model sees."""
        seen = self.model.shape[0]
        if data.context > seen:
            raise ConfigError(
                f"model/rewards=judged: the reward model sees {seen} tokens at once, and data.context={data.context}. "
                f"Use data.context={seen}."
            )

    @torch.no_grad()
    def score(self, answers: Answers) -> Tensor:
        """(M,)."""
        self.model.to(answers.sequences.device)
        rewards = self.model.answer_rewards(answers.sequences, answers.last, answers.padding)
        return rewards.mean(dim=0) - (self.caution * rewards.std(dim=0) if self.caution else 0.0)  # type: ignore[no-any-return]
