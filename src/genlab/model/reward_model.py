"""The base class of reward models: ensembles of networks with a head, trained on preferences or ratings."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.model.base import Batch, LearningRateSchedule, Model, OptimizerFactory
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.parts import RewardObjective
from genlab.model.sharding import shard
from genlab.seeding import derive_seed, uniform_by_index

_POISSON = (0.36787944, 0.73575888, 0.91969860, 0.98101184, 0.99634015, 0.99940582)  # P(X <= k) of a mean of 1


class RewardModel(Model):
    """The base class of reward models. A subclass says how one of them is made, and what it scores in a batch.

    There are ``members`` of them, whose mean is the reward: an ensemble, each with a head of its own and, in training,
    with each example as often as a resample of the data with replacement has it (Breiman 1996), a function of (seed,
    member, example). A single one sees each example once.

    * Of pairs the loss is the objective's, of the difference of two rewards (Christiano et al. 2017).
    * Of ratings it is the squared error, on a scale from -1 to 1.

    The head starts at zero, so that the first reward of everything is 0; with ``start=``, all members as the first one.
    What is logged beside the loss: of pairs
    ``accuracy``, the share with the larger reward for the preferred one, ties left out; of an ensemble
    ``disagreement``, the standard deviation of its members' differences, or of their rewards.
    """

    begins_new = ("head.",)
    network: Any  # made in configure_model, as what follows
    head: nn.Linear
    others: nn.ModuleList  # members after the first

    def __init__(
        self,
        objective: RewardObjective,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        members: int,
        seed: int,
    ):
        """Raises ValueError: there is no member."""
        super().__init__(seed, schedule)
        if members < 1:
            raise ValueError(f"members={members} must be 1 or more.")
        self.objective, self.make_optimizer, self.members = objective, optimizer, members
        self.copies = {f"others.{i}.{part}.": f"{part}." for i in range(members - 1) for part in ("network", "head")}
        for name in ("network", "head", "others"):
            self.register_module(name, None)

    @abstractmethod
    def new_network(self) -> tuple[nn.Module, int]:
        """With random weights, and the number of features that it gives."""

    @abstractmethod
    def scored(self, member: "Member", batch: Batch) -> Tensor:
        """The rewards of a batch by one of the members: (N,) of what is rated, (N, 2) of pairs, float32."""

    def configure_model(self) -> None:
        if self.network is not None:
            return
        made = [self._new_member() for _ in range(self.members)]
        self.network, self.head = made[0].network, made[0].head
        self.others = nn.ModuleList(made[1:])

    def _new_member(self) -> "Member":
        network, width = self.new_network()
        head = nn.Linear(width, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        if self.device_mesh is not None:
            shard(network, self.device_mesh)
            shard(head, self.device_mesh)
        return Member(network, head)

    def each(self) -> Iterator["Member"]:
        """All members."""
        yield Member(self.network, self.head)
        yield from self.others  # type: ignore[misc]

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(parameter_groups(self))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        found = self._measured(batch, self._times(batch["index"]))
        for name, value in found.items():
            self.log(f"train/{name}", value.detach(), on_step=True, batch_size=len(batch["index"]))
        return found["loss"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self._measured(batch, None)

    def _measured(self, batch: Batch, times: Tensor | None) -> dict[str, Tensor]:
        """The loss and what is logged beside it, scalars. ``times`` (members, N): how often each sees an example."""
        rewards = torch.stack([self.scored(member, batch) for member in self.each()])  # (members, N) or (members, N, 2)
        if rewards.ndim == 2:
            values, told = rewards, {}
            loss = (values - batch["rating"]).square()
        else:
            values = rewards[..., 0] - rewards[..., 1]
            margin = batch["margin"] if "margin" in batch else torch.zeros_like(values[0])
            tie, margin = batch["tie"].expand_as(values), margin.expand_as(values)
            loss = self.objective.loss(values, tie, margin)
            better = values.detach().mean(dim=0)[~batch["tie"]] > 0
            told = {"accuracy": better.float().sum() / max(1, len(better))}
        if self.members > 1:
            told["disagreement"] = values.detach().std(dim=0).mean()
        return {"loss": (loss if times is None else times * loss).mean(), **told}

    def _times(self, index: Tensor) -> Tensor | None:
        if self.members == 1:
            return None
        numbers = index.cpu().numpy()
        drawn = [uniform_by_index(derive_seed(self.seed, member), numbers) for member in range(self.members)]
        limits = torch.tensor(_POISSON, dtype=torch.float64)
        times = torch.stack([torch.bucketize(torch.from_numpy(own), limits, right=True) for own in drawn])
        return times.float().to(index.device)

    @torch.no_grad()
    def rewards(self, batch: Batch) -> Tensor:
        """Of all members, (members, N) or (members, N, 2)."""
        return torch.stack([self.scored(member, batch) for member in self.each()])


class Member(nn.Module):
    """A network and its head."""

    def __init__(self, network: Any, head: nn.Linear):
        super().__init__()
        self.network, self.head = network, head
