"""Reward models of pictures: an image encoder that scores them, trained on preferences."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genlab.model.base import Batch, LearningRateSchedule, OptimizerFactory
from genlab.model.parts import FeatureNetwork, RewardObjective
from genlab.model.reward_model import Member, RewardModel


class ImageReward(RewardModel):
    """A network that gives features of a picture, and a head that makes its reward of them. It does not see what a
    picture was drawn for."""

    kinds = frozenset({"continuous"})
    learns_from = frozenset({"judged pictures"})

    def __init__(
        self,
        network: Callable[[], FeatureNetwork],
        objective: RewardObjective,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        members: int = 1,  # of an ensemble
        compile: bool = False,  # the networks, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: an argument is outside its range."""
        super().__init__(objective, optimizer, schedule, members, seed)
        self.make_network, self.shape, self.compile_network = network, tuple(shape), compile

    def new_network(self) -> tuple[nn.Module, int]:
        network: Any = self.make_network()
        if self.compile_network:
            network.compile()
        return network, network.num_features

    def scored(self, member: Member, batch: Batch) -> Tensor:
        both = torch.stack([batch[self.key], batch["rejected"]], dim=1)  # (N, 2, C, H, W)
        return self.score(member, both.flatten(0, 1)).view(-1, 2)

    def score(self, member: Member, x: Tensor) -> Tensor:
        """The rewards of pictures (N, C, H, W) on [-1, 1]. -> (N,), float32."""
        return member.head(member.network(x)).float()[:, 0]
