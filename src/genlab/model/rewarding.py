"""The rewards of what a policy has made: each, and their weighted sum."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genlab.errors import GenlabError, NumericsError

_LONGEST = 200  # characters of a reason


def held_back(rewards: Mapping[str, Any]) -> list[str]:
    """Those with weight 0, which are only measured."""
    return [name for name, reward in rewards.items() if not reward.weight]


def rewarded(
    rewards: Mapping[str, Any],
    given: tuple[Any, ...],  # what each is asked to score
    count: int,  # N, of these
    device: torch.device,
    about: Callable[[int], str],  # a sentence about one of them, and what to do
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of rewards (N,), and each by its name (N,), float32. Raises NumericsError: one of them fails, is
    not finite, or does not give a number for each."""
    scores: dict[str, Tensor] = {}
    for name, reward in rewards.items():
        try:
            score = reward.score(*given).to(device, torch.float32)
        except GenlabError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, OSError) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise NumericsError(f"model.rewards.{name} failed ({cause[:_LONGEST]}). {about(0)}") from error
        if score.shape != (count,):
            raise NumericsError(
                f"model.rewards.{name} gave numbers of shape {tuple(score.shape)} for {count}: it has to give each one "
                f"number. {about(0)}"
            )
        if not score.isfinite().all():
            wrong = int((~score.isfinite()).nonzero()[0, 0])
            raise NumericsError(f"model.rewards.{name} gave {float(score[wrong])}. {about(wrong)}")
        scores[name] = score
    weighted = [reward.weight * scores[name] for name, reward in rewards.items() if reward.weight]
    return torch.stack(weighted).sum(dim=0), scores
