"""Adaptive projected guidance (Sadat et al. 2024): strong guidance without colours that are too strong."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from genlab.model.guidance.classifier_free import both
from genlab.model.guidance.noise_range import NoiseRange


class AdaptiveProjectedGuidance:
    """D_c + (w - 1) (d_orthogonal + eta d_parallel), where d is a changed D_c - D_u (algorithm 1 and section 4).

    The difference of each call is added to ``momentum`` times that of the call before it, changed likewise; below 0,
    what all steps have in common counts less. If it is longer than ``norm_threshold``, it is cut to that length, in the
    norm of a whole example. Of what is left, the part that points along D_c, which makes colours and contrast stronger,
    counts ``eta`` times.

    1 is no guidance. With eta 1, no threshold and no momentum it is classifier-free guidance. The momentum is of one
    trajectory, from the first call of the denoiser that :meth:`guide` returns: each evaluation adds to it, so of
    Heun's sampler both of a step; outside of ``low`` and ``high`` it stays as it is.
    """

    leads_away: ClassVar[bool] = True

    def __init__(
        self,
        strength: float = 4.0,  # w
        eta: float = 0.0,  # of the parallel part; 1: as it is
        norm_threshold: float = 2.5,  # longest difference, in the Euclidean norm of an example; 0: any
        momentum: float = -0.5,  # of the differences before; 0: none
        low: float = 0.0,  # sigma
        high: float = float("inf"),
    ):
        """Raises ValueError: an argument is outside its range."""
        if norm_threshold < 0:
            raise ValueError(f"model.guidance.norm_threshold={norm_threshold} is a length. Use 0 (no limit) or more.")
        if not -1 < momentum < 1:
            raise ValueError(f"model.guidance.momentum={momentum} is outside (-1, 1). Use -0.5, or 0 for none.")
        self.strength, self.eta, self.norm_threshold, self.momentum = strength, eta, norm_threshold, momentum
        self.range = NoiseRange(low, high)

    def check_model(self, model: Any) -> None:
        """Raises ValueError: the model was not trained without its condition; or it makes each step by itself, and
        guidance remembers the steps before."""
        model.conditions.check_guided(self.strength)
        if self.momentum and self.strength != 1 and model.repeats_steps:
            raise ValueError(
                "model/guidance=apg: momentum makes a step depend on those before it, and this family computes each "
                "by itself again. Use model.guidance.momentum=0."
            )

    def guide(
        self,
        denoise: Callable[..., Tensor],
        condition: Mapping[str, Tensor] | None,
        nothing: Mapping[str, Tensor] | None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Both predictions from one call of ``denoise`` on 2N rows."""
        plain = lambda x, sigma: denoise(x, sigma, condition)  # noqa: E731
        if condition is None or nothing is None or self.strength == 1:
            return plain
        predict = both(denoise, condition, nothing)
        before: Tensor | None = None

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal before
            untold, told = predict(x, sigma)
            difference = told - untold
            if before is not None and self.momentum:
                difference = difference + self.momentum * before
            before = difference.detach()
            return told + (self.strength - 1) * self._projected(self._shortened(difference), told)

        return self.range.within(guided, plain)

    def _shortened(self, difference: Tensor) -> Tensor:
        if not self.norm_threshold:
            return difference
        length = difference.flatten(1).norm(dim=1).view(-1, *[1] * (difference.ndim - 1))
        return difference * (self.norm_threshold / length).clamp(max=1)  # of length 0: by 1

    def _projected(self, difference: Tensor, onto: Tensor) -> Tensor:
        """Its part along ``onto`` (N, ...) ``eta`` times, the rest as it is (eq. 7 and 8)."""
        squared = onto.square().flatten(1).sum(dim=1).clamp_min(1e-12)  # (N,)
        share = ((difference * onto).flatten(1).sum(dim=1) / squared).view(-1, *[1] * (onto.ndim - 1))
        return difference + (self.eta - 1) * share * onto
