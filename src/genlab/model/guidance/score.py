"""Guidance by the gradient of any score of pictures (Bansal et al. 2023, universal guidance)."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from genlab.model.guidance.noise_range import NoiseRange


class PictureScore(Protocol):
    """How good pictures are, as a differentiable function of them."""

    def score(self, images: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``images``: (N, C, H, W), about in [-1, 1]; ``condition``: what they are drawn for. -> (N,), higher for
        better ones, each a function of its row alone."""
        ...


class ScoreGuidance:
    """D + s sigma^2 grad_x r(D(x; sigma)) (eq. 6, in terms of D): samples of p(x) exp(s r(x)), as far as the expected
    picture stands for the pictures it is the mean of. 0 is no guidance; below 0, low scores are better.

    The score sees what the denoiser expects, so it needs no training on noise: a reward of pictures, such as
    ``genlab.rewards.pictures.Brightness``, or a class of your own. A call costs one evaluation, and a pass back through
    the network.
    """

    reads_pictures: ClassVar[bool] = True

    def __init__(
        self,
        score: PictureScore,
        strength: float = 1.0,  # s
        low: float = 0.0,  # sigma
        high: float = float("inf"),
    ):
        self.score, self.strength, self.range = score, strength, NoiseRange(low, high)

    def check_model(self, model: Any) -> None:
        """Raises ValueError: the score has no gradient; or D is no mean."""
        if not model.predicts_mean:
            raise ValueError(
                "model/guidance=score adds to an expected image, and D of model/objective=consistency is none. Use "
                "model/guidance=none."
            )
        with torch.inference_mode(False), torch.enable_grad():
            images = torch.zeros(1, *model.shape, requires_grad=True)
            score = self.score.score(images, model.conditions.nothing(1))
        if not score.requires_grad:
            raise ValueError(
                f"model.guidance.score is a {type(self.score).__name__}, which has no gradient. Use a score that is "
                "differentiable, such as model.guidance.score._target_=genlab.rewards.pictures.Brightness"
            )

    def guide(
        self,
        denoise: Callable[..., Tensor],
        condition: Mapping[str, Tensor] | None,
        nothing: Mapping[str, Tensor] | None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        plain = lambda x, sigma: denoise(x, sigma, condition)  # noqa: E731
        if self.strength == 0:
            return plain

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            is_learning = torch.is_grad_enabled()
            with torch.inference_mode(False), torch.enable_grad():
                y = x.detach().clone().requires_grad_()
                told = None if condition is None else {key: value.clone() for key, value in condition.items()}
                clean = denoise(y, sigma.clone(), told)
                (slope,) = torch.autograd.grad(self.score.score(clean, told).sum(), y, retain_graph=is_learning)
            clean = clean if is_learning else clean.detach()
            return clean + (self.strength * sigma.square()).view(-1, *[1] * (x.ndim - 1)) * slope

        return self.range.within(guided, plain)
