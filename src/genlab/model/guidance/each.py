"""A weight for each of several conditions (Liu et al. 2022, composable diffusion)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class EachCondition:
    """D_u + sum_k w_k (D_k - D_u), where D_k is told the condition k alone (eq. 11): a score of the product of
    p(c_k | x)^w_k and p(x), so the conditions are taken to be independent given x.

    ``strength`` is one weight for all conditions, or a mapping of one for each: ``{label: 2, caption: 3}``. Below 0, a
    condition is avoided; one of weight 0 is not asked for. A single weight of 1, others 0, is the model itself, told
    that condition. K conditions cost K + 1 evaluations.
    """

    def __init__(self, strength: float | Mapping[str, float] = 2.0):
        self.strength = strength

    def check_model(self, model: Any) -> None:
        """Raises ValueError: a weight of a condition that the model has not, or a condition without a weight; or the
        model was not trained on each condition alone, and on none."""
        kinds = model.conditions.kinds
        if isinstance(self.strength, Mapping):
            if unknown := [key for key in self.strength if key not in kinds]:
                raise ValueError(
                    f"model.guidance.strength.{unknown[0]}: the model is not conditioned on a {unknown[0]}. It has "
                    f"{' and '.join(kinds) or 'no conditions'}. Leave it out."
                )
            if missing := [key for key in kinds if key not in self.strength]:
                weights = ",".join(f"{key}:{self.strength.get(key, 0)}" for key in kinds)
                raise ValueError(
                    f"model.guidance.strength has no weight for the {missing[0]}, which the model is conditioned on. "
                    f"Use 'model.guidance.strength={{{weights}}}', where 0 leaves it out."
                )
        model.conditions.check_each_alone()

    def guide(
        self,
        denoise: Callable[..., Tensor],
        condition: Mapping[str, Tensor] | None,
        nothing: Mapping[str, Tensor] | None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """All predictions from one call of ``denoise`` on (K + 1) N rows."""
        if condition is None or nothing is None:
            return lambda x, sigma: denoise(x, sigma, condition)
        weights = [(key, weight) for key in nothing if (weight := self._weight(key)) != 0]
        alone: list[Mapping[str, Tensor]] = [{**nothing, key: condition.get(key, nothing[key])} for key, _ in weights]
        if not weights or [weight for _, weight in weights] == [1]:
            (only,) = alone or [nothing]
            return lambda x, sigma: denoise(x, sigma, only)
        times = 1 + len(alone)
        rows = {key: torch.cat([told[key] for told in (nothing, *alone)]) for key in nothing}

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            predictions = denoise(x.repeat(times, *[1] * (x.ndim - 1)), sigma.repeat(times), rows)
            untold, *told = predictions.chunk(times)
            result = untold
            for (_, weight), prediction in zip(weights, told, strict=True):
                result = result + weight * (prediction - untold)
            return result

        return guided

    def _weight(self, key: str) -> float:
        return self.strength[key] if isinstance(self.strength, Mapping) else self.strength
