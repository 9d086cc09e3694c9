"""Autoguidance (Karras et al. 2024): a model is led away from what a worse one of its kind does."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor, nn

from genlab.model.elsewhere import FROM_ELSEWHERE
from genlab.model.guidance.noise_range import NoiseRange


class TrainedDenoiser(Protocol):
    """A trained diffusion model."""

    objective: Any  # what its denoiser follows from
    network: Any
    conditions: Any  # genlab.model.condition.Conditions
    shape: tuple[int, ...]  # of an example
    predicts_mean: bool  # whether D is the expected clean example

    def configure_model(self) -> None:
        """Make its networks."""
        ...

    def denoiser(self, condition: Any) -> Any:
        """D(x; sigma) under a condition."""
        ...


class Autoguidance:
    """D_weak + w (D - D_weak), where D_weak is the denoiser of a run that was trained for less time, or with less
    capacity, on the same data with the same conditions (eq. 4). Both are told the condition, so that samples get better
    without getting alike, with conditions or without. 1 is no guidance. Both networks are evaluated: a call costs
    an evaluation of each."""

    def __init__(
        self,
        weak: Annotated[TrainedDenoiser, FROM_ELSEWHERE],  # the model of a trained run: outputs/diffusion-...
        strength: float = 2.0,  # w
        low: float = 0.0,  # sigma
        high: float = float("inf"),
    ):
        """Makes the networks of ``weak``; the caller loads its weights afterwards."""
        weak.configure_model()
        assert isinstance(weak, nn.Module)
        self.weak: Any = weak.eval().requires_grad_(False)
        self.strength, self.range = strength, NoiseRange(low, high)

    def check_model(self, model: Any) -> None:
        """Raises ValueError: ``weak`` was trained on examples of another shape, or with other conditions; or one of
        the two is a consistency model."""
        if not (model.predicts_mean and self.weak.predicts_mean):
            whose = "the run of model.guidance.weak" if model.predicts_mean else "this model"
            raise ValueError(
                f"model/guidance=autoguidance compares expected images, and {whose} was trained with "
                "model/objective=consistency, whose D is none. Use model/guidance=none."
            )
        theirs, ours = self.weak.shape, model.shape
        if tuple(theirs) != tuple(ours):
            raise ValueError(
                f"model.guidance.weak was trained on examples of shape {tuple(theirs)}, this model on "
                f"{tuple(ours)}. Name a run on the same data."
            )
        if described(self.weak.conditions) != described(model.conditions):
            raise ValueError(
                f"model.guidance.weak was trained with other conditions ({in_words(self.weak.conditions)}) than this "
                f"model ({in_words(model.conditions)}). Name a run on the same data, with the same model.conditions."
            )

    def guide(
        self,
        denoise: Any,  # genlab.model.parts.ConditionalDenoiser
        condition: Mapping[str, Tensor] | None,
        nothing: Mapping[str, Tensor] | None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        plain = lambda x, sigma: denoise(x, sigma, condition)  # noqa: E731
        if self.strength == 1:
            return plain
        denoise_weakly = denoise.by(self.weak)

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            self.weak.to(x.device)
            return torch.lerp(denoise_weakly(x, sigma, condition), plain(x, sigma), self.strength)

        return self.range.within(guided, plain)


def described(conditions: Any) -> dict[str, Any]:
    """Conditions (``genlab.model.condition.Conditions``) as two models share them, by key."""
    return {key: (type(kind), kind.size, kind.length, list(kind.names)) for key, kind in conditions.kinds.items()}


def in_words(conditions: Any) -> str:
    return " and ".join(f"{key} of {kind.size}" for key, kind in conditions.kinds.items()) or "none"
