"""Answers of a policy to a batch, with all that is known of them; and those of several batches as one."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.model.answers import Answers
from genlab.model.objective.policy import Drawn


class Rollout(NamedTuple):
    """M answers to prompts, as rewards and as objectives see them."""

    answers: Answers
    drawn: Drawn
    told: dict[str, Tensor]  # what is logged of each, (M,) or a scalar


def joined(rollouts: Sequence[Rollout]) -> Rollout:
    """Those of several batches as one, prompts and answers filled up to the longest."""
    if len(rollouts) == 1:
        return rollouts[0]
    answers = [one.answers for one in rollouts]
    drawn = [one.drawn for one in rollouts]
    length = max(one.log_prob.shape[1] for one in drawn)
    prompts = max(one.sequences.shape[1] - one.most for one in answers)
    whole = Answers(
        data=answers[0].data,
        split=answers[0].split,
        numbers=[number for one in answers for number in one.numbers],
        texts=[text for one in answers for text in one.texts],
        sequences=torch.cat([_filled(one.sequences, prompts - one.sequences.shape[1] + one.most, length - one.most)
                             for one in answers]),
        padding=torch.cat([one.padding + prompts - one.sequences.shape[1] + one.most for one in answers]),
        length=torch.cat([one.length for one in answers]),
        ended=torch.cat([one.ended for one in answers]),
        limit=answers[0].limit,
    )  # fmt: skip
    fields = {}
    for name in ("counted", "log_prob", "reference", "value"):
        found = [getattr(one, name) for one in drawn]
        width = length + (name == "value")
        fields[name] = None if found[0] is None else torch.cat([_filled(x, 0, width - x.shape[1]) for x in found])
    ends = {name: torch.cat([getattr(one, name) for one in drawn]) for name in ("reward", "ended")}
    together = drawn[0]._replace(**ends, **fields)  # type: ignore[arg-type]
    told = {
        name: torch.cat([one.told[name] for one in rollouts]) if value.ndim else max(one.told[name] for one in rollouts)
        for name, value in rollouts[0].told.items()
    }
    return Rollout(whole, together, told)


def _filled(x: Tensor, before: int, after: int) -> Tensor:
    """(M, T) with zeros before and after."""
    return F.pad(x, (before, after))
