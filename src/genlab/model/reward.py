"""Reward models of text: a transformer that scores an answer, trained on preferences or ratings."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genlab.model.base import Batch, LearningRateSchedule, OptimizerFactory
from genlab.model.parts import Adapter, RewardObjective, TokenEncoder
from genlab.model.reward_model import Member, RewardModel


class Reward(RewardModel):
    """A transformer with a value head, which reads the last token of an answer that counts: the one that ends it, if
    the answer is not cut.

    It begins with random weights or, with ``start=``, with those of a transformer that has been trained, whose map to
    logits it does not use. With an adapter, that and the head are trained. Of texts the first ``shape`` tokens are
    seen.
    """

    kinds = frozenset({"tokens"})
    learns_from = frozenset({"preferences", "ratings"})
    counts_some = True

    def __init__(
        self,
        network: Callable[..., TokenEncoder],
        objective: RewardObjective,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # (T,), the tokens that are seen at once
        vocab_size: int,
        members: int = 1,  # of an ensemble
        adapter: Adapter | None = None,  # trained in place of the network's own weights; None: these are trained
        compile: bool = False,  # the networks, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: an argument is outside its range."""
        super().__init__(objective, optimizer, schedule, members, seed)
        self.make_network, self.shape, self.vocab_size = network, tuple(shape), vocab_size
        self.adapter, self.compile_network = adapter, compile

    def new_network(self) -> tuple[nn.Module, int]:
        network: Any = self.make_network(
            num_tokens=self.vocab_size, num_outputs=self.vocab_size, max_length=self.shape[0], causal=True
        )
        if network.head is not None:
            network.head.requires_grad_(False)  # it is not used
        if self.adapter is not None:
            self.adapter.adapt(network)
        if self.compile_network:
            network.compile()
        return network, network.width

    def scored(self, member: Member, batch: Batch) -> Tensor:
        if "last" in batch:
            return self.score(member, batch["tokens"], batch["last"])
        tokens = batch["tokens"][..., :-1]  # (N, 2, T)
        return self.score(member, tokens.flatten(0, 1), last_counted(batch["answer"]).flatten()).view(-1, 2)

    def score(self, member: Member, tokens: Tensor, last: Tensor, padding: Tensor | None = None) -> Tensor:
        """The rewards of ``tokens`` (N, T), read at the places ``last`` (N,), which may be followed by anything; of
        each row the first ``padding`` (N,) tokens are not seen. -> (N,), float32."""
        states = member.network(tokens, padding, hidden=True)
        read = states[torch.arange(len(states), device=states.device), last]
        return member.head(read).float()[:, 0]

    def answer_rewards(self, tokens: Tensor, last: Tensor, padding: Tensor) -> Tensor:
        """Of ``tokens`` (N, T), whose answers end at ``last`` (N,) and of which the first ``padding`` (N,) of a row are
        not seen, by all members: (members, N)."""
        return torch.stack([self.score(member, tokens, last, padding) for member in self.each()])


def last_counted(answer: Tensor) -> Tensor:
    """Of rows of T + 1 tokens, whether the prediction of each but the first is one of an answer, (..., T) bool -> the
    place of the last of these among the first T tokens, (...); the last of all, if there is none."""
    length = answer.shape[-1]
    places = torch.arange(1, length, device=answer.device)
    found = torch.where(answer[..., :-1], places, 0).amax(dim=-1)
    return torch.where(found > 0, found, length - 1)
