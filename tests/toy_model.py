"""A model that asks more of the contract than any family does yet.

A language-model-like fine-tuning in miniature: a trained network and a frozen copy of it, samples drawn inside the
training step and scored, a penalty for leaving the frozen copy, and a condition that is a sequence of words.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.base import Batch, Condition, GenerativeModel, LearningRateSchedule, OptimizerFactory
from genlab.seeding import RandomStream


class Painter(nn.Module):
    """Words to the mean of an image."""

    def __init__(self, shape: Sequence[int], vocabulary: int, width: int):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.out = nn.Linear(width, torch.Size(shape).numel())
        self.shape = tuple(shape)

    def forward(self, words: Tensor) -> Tensor:
        """(N, T) -> (N, C, H, W)."""
        return self.out(torch.tanh(self.words(words).mean(dim=1))).unflatten(1, self.shape)


class Toy(GenerativeModel):
    kinds = frozenset({"continuous"})

    def __init__(
        self,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],
        vocabulary: int,
        width: int = 4,
        seed: int = 0,
    ):
        super().__init__(seed, schedule)
        self.make_optimizer = optimizer
        self.shape, self.vocabulary, self.width = tuple(shape), vocabulary, width
        self.register_module("policy", None)
        self.register_module("reference", None)

    def configure_model(self) -> None:
        if self.policy is not None:
            return
        self.policy = Painter(self.shape, self.vocabulary, self.width)
        self.reference = Painter(self.shape, self.vocabulary, self.width).requires_grad_(False)
        self.reference.load_state_dict(self.policy.state_dict())

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.policy.parameters())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        words = batch["caption"]
        with torch.no_grad():
            drawn = self.sample(len(words), {"caption": words})  # generation inside the step
        reward = -(drawn - batch["image"]).square().mean(dim=(1, 2, 3))
        log_probability = -(drawn - self.policy(words)).square().mean(dim=(1, 2, 3))
        distance = F.mse_loss(self.policy(words), self.reference(words))
        loss = -((reward - reward.mean()) * log_probability).mean() + 0.1 * distance
        self.log("train/loss", loss, on_step=True, batch_size=len(words))
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"distance": F.mse_loss(self.policy(batch["caption"]), self.reference(batch["caption"]))}

    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        nothing = torch.zeros(num_samples, 1, dtype=torch.long, device=self.device)
        words = nothing if condition is None else condition["caption"]
        return self.policy(words) + self.stream(num_samples, generator).randn(*self.shape)
