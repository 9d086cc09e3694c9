"""Augmentations whose strength follows the discriminator, and others as such augmentations that never change."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from genlab.model.augment.diffaugment import Augmentation, Uniform


@runtime_checkable
class AdaptiveAugmentation(Protocol):
    """A differentiable change of candidates, real and generated, which learns how well the discriminator knows the
    real ones. Families without a discriminator take an :class:`Augmentation` alone."""

    @property
    def adapts(self) -> bool:
        """Whether its strength changes."""
        ...

    @property
    def acts(self) -> bool:
        """Whether it changes images at present; of one that does not, a step has fewer operations."""
        ...

    def __call__(self, candidates: Tensor, uniform: Uniform) -> Tensor:
        """``candidates``: (N, C, H, W) in [-1, 1]. -> like ``candidates``."""
        ...

    def observe(self, real_scores: Tensor, undecided: float | None) -> None:
        """Scores of real images (N,) in one pass on one rank; ``undecided``: the score at the decision boundary."""
        ...

    def end_step(self) -> dict[str, Tensor]:
        """After each optimizer step of the discriminator, on all ranks. -> scalars to log, by name."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the rest of a run depends on, the same on all ranks."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Unchanging:
    """An augmentation that keeps its strength, and has no state."""

    adapts = acts = False

    def __init__(self, augment: Augmentation):
        self.augment = augment

    def __call__(self, candidates: Tensor, uniform: Uniform) -> Tensor:
        return self.augment(candidates, uniform)

    def observe(self, real_scores: Tensor, undecided: float | None) -> None:
        pass

    def end_step(self) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def adaptive(augment: Augmentation | AdaptiveAugmentation) -> AdaptiveAugmentation:
    """Any augmentation as one that may be adaptive, so that a family treats all of them alike."""
    return augment if isinstance(augment, AdaptiveAugmentation) else Unchanging(augment)
