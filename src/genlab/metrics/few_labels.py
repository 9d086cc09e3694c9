"""A linear probe that learns from few labels."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from genlab.data.base import DataModule
from genlab.errors import ConfigError
from genlab.metrics.base import Direction
from genlab.metrics.logistic import fit
from genlab.metrics.probe import Labelled, Probe, labelled
from genlab.model.base import Model
from genlab.seeding import derive_seed

_SHARES = {"1pct": 0.01, "10pct": 0.1}


class FewLabels(Probe):
    """Held-out accuracy of a linear probe that is told 1 % and 10 % of the training labels, a mean over ``draws`` of
    which ones; and the standard deviation over them.

    Each class keeps its share, and has one label at least. There are too few labels to choose a strength by, so it is
    the same for all models. ``..._pixels``: of pixels; ``few_labels_chance``: of always naming the most frequent class.
    """

    name: ClassVar[str] = "few_labels"
    directions: ClassVar[Mapping[str, Direction | None]] = {
        **{f"few_labels_{share}": "higher" for share in _SHARES},
        **{f"few_labels_{share}_{kind}": None for share in _SHARES for kind in ("std", "pixels")},
        "few_labels_chance": None,
    }

    def __init__(
        self,
        draws: int = 5,  # of labels
        seed: int = 0,  # of the draws
        strength: float = 0.1,  # of the L2 penalty, beside a mean of nats
        num_train: int | None = 10000,  # training images, of whose labels a share is told; None: all
        layer: float | None = None,  # depth of the block that is read, in [0, 1]; None: the family's own place
        noise_level: float | None = None,  # sigma, of a diffusion model; None: the family's own
    ):
        """Raises ValueError: a value outside its range."""
        super().__init__(num_train, layer, noise_level)
        if draws < 2 or strength <= 0:
            raise ValueError(f"draws={draws} must be 2 or more, strength={strength} above 0.")
        self.draws, self.seed, self.strength = draws, seed, strength

    def scores(self, train: Labelled, held_out: Labelled) -> dict[str, Tensor]:
        classes, found = int(train.labels.max()) + 1, {}
        for number, (name, share) in enumerate(_SHARES.items()):
            accuracies = []
            for draw in range(self.draws):
                rows = stratified(train.labels, share, derive_seed(self.seed, number, draw))
                probe = fit(train.features[rows], train.labels[rows], classes, self.strength)
                accuracies.append(probe.accuracy(held_out.features, held_out.labels))
            found[f"few_labels_{name}"] = torch.stack(accuracies).mean()
            found[f"few_labels_{name}_std"] = torch.stack(accuracies).std()
        return found

    def settings(self) -> dict[str, int | float | str]:
        return {"draws": self.draws, "seed": self.seed, "strength": self.strength, **super().settings()}

    def check(self, model: Model, data: DataModule) -> None:
        """As of any probe. Raises ConfigError, too, if 1 % of the labels are fewer than there are classes."""
        super().check(model, data)
        labels = labelled(data, "train", self.num_train, self.name).labels
        told, classes = round(min(_SHARES.values()) * len(labels)), len(np.unique(labels))
        if told < classes:
            raise ConfigError(
                f"metrics=few_labels: 1 % of {len(labels)} training labels are {told}, fewer than the {classes} "
                "classes. Leave it out of metrics=[...]."
            )


def stratified(labels: Tensor, share: float, seed: int) -> Tensor:
    """Places (m,) of a random ``share`` of labels (N,), as large a share of each class, rounded, and one at least.
    A function of the labels and the seed."""
    known, rng = labels.cpu().numpy(), np.random.default_rng(seed)
    chosen = []
    for label in np.unique(known):
        rows = np.flatnonzero(known == label)
        chosen.append(rng.permutation(rows)[: max(1, round(share * len(rows)))])
    return torch.from_numpy(np.sort(np.concatenate(chosen))).to(labels.device)
