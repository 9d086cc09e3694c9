"""Learning from preferences without a reward model: DPO and its relatives, for the token transformer."""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from genlab.model.base import Batch, LearningRateSchedule, OptimizerFactory
from genlab.model.cross_entropy import MOST, nats
from genlab.model.objective.preference import Scored
from genlab.model.parts import PreferenceObjective, SwitchableAdapter, TokenNetwork, TokenSampler
from genlab.model.reference import TrainedFurther


class Preference(TrainedFurther):
    """A transformer that has been trained (``start=``), and learns which of two answers to a prompt is preferred.

    Objectives without a reference have none. Log-probabilities are sums over the tokens of an answer; those of a tie
    count half as chosen and half as rejected.

    What is logged beside the loss, as means over pairs: ``accuracy``, the share of chosen answers with the larger
    implied reward, and ``margin``, by how much; ``chosen`` and ``rejected``, the log-probabilities, and
    ``chosen_per_token``, that of a token; and ``kl``, the divergence of the policy from the reference in the prediction
    of the next token, over the places of both answers, in nats.
    """

    learns_from = frozenset({"preferences"})

    def __init__(
        self,
        network: Callable[..., TokenNetwork],
        objective: PreferenceObjective,
        sampler: TokenSampler,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # (T,), the tokens that are seen at once
        vocab_size: int,
        start_token: int | None,  # first token of text without a prompt
        sample_length: int | None = None,  # tokens of an answer; None: as many as are seen at once
        adapter: SwitchableAdapter | None = None,  # trained in place of the network's own weights; None: these are
        compile: bool = False,  # the network, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: an argument is outside its range."""
        super().__init__(
            network,
            sampler,
            optimizer,
            schedule,
            shape,
            vocab_size,
            start_token,
            sample_length,
            adapter,
            objective.needs_reference,
            compile,
            seed,
        )
        self.objective = objective

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        found = self._measured(batch, self._drift(batch, over_ranks=True))
        for name, value in found.items():
            self.log(f"train/{name}", value.detach(), on_step=True, batch_size=len(batch["index"]))
        return found["loss"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self._measured(batch, self._drift(batch))

    def _measured(self, batch: Batch, drift: Tensor | None) -> dict[str, Tensor]:
        """The loss and what is logged beside it, scalars."""
        scored, divergence = self.scored(batch["tokens"].flatten(0, 1), batch["answer"].flatten(0, 1))
        chosen, rejected = scored.every_other(0), scored.every_other(1)
        loss = self.objective.loss(chosen, rejected, drift)
        turned = self.objective.loss(rejected, chosen, drift)
        loss = torch.where(batch["tie"], (loss + turned) / 2, loss).mean()
        with torch.no_grad():
            margin = self.objective.reward(chosen) - self.objective.reward(rejected)
            told = {
                "accuracy": (margin > 0).float().mean(),
                "margin": margin.mean(),
                "chosen": chosen.policy.mean(),
                "chosen_per_token": chosen.mean.mean(),
                "rejected": rejected.policy.mean(),
            }
        return {"loss": loss, **told, **({} if divergence is None else {"kl": divergence})}

    def scored(self, tokens: Tensor, answer: Tensor) -> tuple[Scored, Tensor | None]:
        """``tokens`` (M, T + 1), of which the predictions at ``answer`` (M, T) are those of an answer, by both
        networks; and the mean divergence of their predictions."""
        given, targets = tokens[:, :-1], tokens[:, 1:]
        logits = self.network(given)
        policy = -(nats(logits, targets) * answer).sum(dim=1)
        length = answer.sum(dim=1)
        if not self.objective.needs_reference:
            return Scored(policy, None, length), None
        with torch.no_grad():
            theirs = self.reference_logits(given)
            reference = -(nats(theirs, targets) * answer).sum(dim=1)
            return Scored(policy, reference, length), _mean_divergence(logits[answer], theirs[answer])

    @torch.no_grad()
    def _drift(self, batch: Batch, over_ranks: bool = False) -> Tensor | None:
        """The mean log-ratio of answers to other prompts, at least 0 (Ethayarajh et al. 2024, section 4.1)."""
        if not self.objective.needs_drift:
            return None
        scored, _ = self.scored(batch["mismatched"].flatten(0, 1), batch["mismatched_answer"].flatten(0, 1))
        mean = scored.log_ratio.mean()
        if over_ranks and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(mean)
            mean = mean / dist.get_world_size()
        return mean.clamp(min=0)


def _mean_divergence(policy: Tensor, reference: Tensor) -> Tensor:
    """The mean KL divergence of predictions, by their logits (L, V)."""
    rows = max(1, MOST // policy.shape[1])
    total = policy.new_zeros((), dtype=torch.float32)
    for ours, theirs in zip(policy.split(rows), reference.split(rows), strict=True):
        p, q = (logits.float().log_softmax(dim=-1) for logits in (ours, theirs))
        total = total + (p.exp() * (p - q)).sum()
    return total / max(1, len(policy))
