"""A linear classifier as a probe of representations."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from genlab.metrics.base import Direction
from genlab.metrics.logistic import fit_best
from genlab.metrics.probe import Labelled, Probe


class LinearProbe(Probe):
    """Held-out accuracy of multinomial logistic regression on standardised features of training images.

    The strength of its L2 penalty is the one of ``strengths`` with the best accuracy on a fifth of the training
    examples; the measured split chooses nothing, and there are no epochs of which the best could be reported. The
    regression is convex and solved by L-BFGS in float64, so nothing is random.

    ``linear_probe``; ``linear_probe_strength``, the one chosen; ``linear_probe_pixels``, the accuracy of the same on
    pixels; ``linear_probe_chance``, of always naming the most frequent class.
    """

    name: ClassVar[str] = "linear_probe"
    directions: ClassVar[Mapping[str, Direction | None]] = {
        "linear_probe": "higher",
        "linear_probe_strength": None,
        "linear_probe_pixels": None,
        "linear_probe_chance": None,
    }

    def __init__(
        self,
        strengths: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),  # of the penalty, beside a mean of nats
        num_train: int | None = 10000,  # training images, spread evenly; None: all
        layer: float | None = None,  # depth of the block that is read, in [0, 1]; None: the family's own place
        noise_level: float | None = None,  # sigma, of a diffusion model; None: the family's own
    ):
        """Raises ValueError: a value outside its range."""
        super().__init__(num_train, layer, noise_level)
        if not strengths or min(strengths) <= 0:
            raise ValueError(f"strengths={list(strengths)} must be one or more numbers above 0.")
        self.strengths = tuple(strengths)

    def scores(self, train: Labelled, held_out: Labelled) -> dict[str, Tensor]:
        classes = int(train.labels.max()) + 1
        probe, strength = fit_best(train.features, train.labels, classes, self.strengths)
        return {
            "linear_probe": probe.accuracy(held_out.features, held_out.labels),
            "linear_probe_strength": torch.tensor(strength, dtype=torch.float64),
        }

    def settings(self) -> dict[str, int | float | str]:
        return {"strengths": ",".join(map(str, self.strengths)), **super().settings()}
