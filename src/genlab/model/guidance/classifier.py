"""Guidance by the gradient of a classifier of noisy images (Dhariwal and Nichol 2021)."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from genlab.model.elsewhere import FROM_ELSEWHERE
from genlab.model.guidance.noise_range import NoiseRange


class ClassifiesNoisy(Protocol):
    """A classifier that may have been trained on noisy images."""

    noise: Any  # of its training; None: clean images alone
    shape: tuple[int, ...]  # of an image
    num_classes: Any

    def configure_model(self) -> None:
        """Make its networks."""
        ...

    def condition_log_prob(self, x: Tensor, sigma: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """log p(condition | x; sigma) of x = clean + sigma * noise, (N, C, H, W) and (N,), in nats; 0 of rows that have
        no class. -> (N,)."""
        ...


class ClassifierGuidance:
    """D + w sigma^2 grad_x log p(y | x; sigma), with a classifier of noisy images: algorithm 1, whose score this is in
    terms of D. 0 is no guidance. By Bayes' rule, w added to a conditional model is classifier-free guidance of 1 + w.

    The classifier comes from a run of ``model=classifier model/noise=uniform``. Its passes, forward and back, are in
    float32, and are none of the sampling network: a call costs one evaluation.
    """

    reads_pictures: ClassVar[bool] = True

    def __init__(
        self,
        classifier: Annotated[ClassifiesNoisy, FROM_ELSEWHERE],  # outputs/classifier-...
        strength: float = 1.0,  # w
        low: float = 0.0,  # sigma
        high: float = float("inf"),
    ):
        """Makes the networks of ``classifier``; the caller loads its weights afterwards."""
        classifier.configure_model()
        assert isinstance(classifier, nn.Module)
        self.classifier: Any = classifier.eval().requires_grad_(False)
        self.strength, self.range = strength, NoiseRange(low, high)

    def check_model(self, model: Any) -> None:
        """Raises ValueError: the classifier does not know noise, or other images or labels; or D is no mean."""
        if not model.predicts_mean:
            raise ValueError(
                "model/guidance=classifier adds to an expected image, and D of model/objective=consistency is none. "
                "Use model/guidance=none."
            )
        if self.classifier.noise is None:
            raise ValueError(
                "model.guidance.classifier was trained on clean images, and cannot tell of noisy ones. Name a run of "
                "model=classifier model/noise=uniform."
            )
        theirs = (tuple(self.classifier.shape), self.classifier.num_classes)
        ours = (tuple(model.shape), model.num_classes)
        if theirs != ours:
            raise ValueError(
                f"model.guidance.classifier was trained on images of shape {theirs[0]} with {theirs[1]} labels, this "
                f"model on {ours[0]} with {ours[1]}. Name a run of model=classifier model/noise=uniform on these data."
            )

    def guide(
        self,
        denoise: Callable[..., Tensor],
        condition: Mapping[str, Tensor] | None,
        nothing: Mapping[str, Tensor] | None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        plain = lambda x, sigma: denoise(x, sigma, condition)  # noqa: E731
        if condition is None or self.strength == 0:
            return plain

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            with torch.inference_mode(False), torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
                self.classifier.to(x.device)
                y, told = x.detach().float().clone().requires_grad_(), {k: v.clone() for k, v in condition.items()}
                nats = self.classifier.condition_log_prob(y, sigma.clone(), told)
                (slope,) = torch.autograd.grad(nats.sum(), y)
            return plain(x, sigma) + (self.strength * sigma.square()).view(-1, *[1] * (x.ndim - 1)) * slope

        return self.range.within(guided, plain)
