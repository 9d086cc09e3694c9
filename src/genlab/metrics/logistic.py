"""Multinomial logistic regression of features, as a probe of representations: deterministic, in float64."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_FLAT = 1e-6  # a feature that varies less is not divided by its deviation
_ITERATIONS, _TOLERANCE = 500, 1e-6  # of the gradient of the mean loss


@dataclass(frozen=True)
class Logistic:
    """A fitted classifier of features (N, D), which standardises them by the statistics of what it was fitted to."""

    mean: Tensor  # (D,)
    scale: Tensor  # (D,)
    weight: Tensor  # (K, D), of standardised features
    bias: Tensor  # (K,)

    def logits(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K)."""
        return F.linear((features.double() - self.mean) / self.scale, self.weight, self.bias)

    def accuracy(self, features: Tensor, labels: Tensor) -> Tensor:
        """The share of features (N, D) whose label (N,) has the largest logit."""
        return (self.logits(features).argmax(dim=1) == labels).double().mean()


def fit(features: Tensor, labels: Tensor, classes: int, strength: float, start: Logistic | None = None) -> Logistic:
    """Minimizes the mean cross-entropy in nats of standardised features plus ``strength`` / 2 times the sum of squares
    of the weights, biases aside, by L-BFGS on all examples at once.

    ``features``: (N, D); ``labels``: (N,), 0 to ``classes`` - 1. It is scikit-learn's LogisticRegression with
    C = 1 / (N * ``strength``). ``start``: where to begin, which only saves time.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x, label = features.detach().double().clone(), labels.clone()
        mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
        scale = torch.where(deviation > _FLAT, deviation, 1.0)
        x = (x - mean) / scale
        weight, bias = x.new_zeros(classes, x.shape[1]), x.new_zeros(classes)
        if start is not None:
            weight, bias = start.weight.clone(), start.bias.clone()
        weight.requires_grad_(), bias.requires_grad_()
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=_ITERATIONS,
            tolerance_grad=_TOLERANCE,
            tolerance_change=0.0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            solver.zero_grad()
            value = F.cross_entropy(F.linear(x, weight, bias), label) + strength / 2 * weight.square().sum()
            value.backward()
            return value

        solver.step(loss)  # type: ignore[no-untyped-call]
        return Logistic(mean, scale, weight.detach(), bias.detach())


def fit_best(features: Tensor, labels: Tensor, classes: int, strengths: Sequence[float]) -> tuple[Logistic, float]:
    """The probe with the best of ``strengths``: that of the highest accuracy on every fifth example of each class, the
    strongest of equals, if the others are fitted to. Then it is fitted to all of them. -> the probe and its strength.
    """
    kept_back = fifth_of_each(labels)
    best, most, probe = strengths[0], -1.0, None
    for strength in sorted(strengths, reverse=True):
        probe = fit(features[~kept_back], labels[~kept_back], classes, strength, probe)
        if (right := float(probe.accuracy(features[kept_back], labels[kept_back]))) > most:
            best, most = strength, right
    return fit(features, labels, classes, best), best


def fifth_of_each(labels: Tensor) -> Tensor:
    """(N,) bool: of examples in the order of their labels (N,), every fifth."""
    chosen = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    chosen[labels.argsort(stable=True)[4::5]] = True
    return chosen
