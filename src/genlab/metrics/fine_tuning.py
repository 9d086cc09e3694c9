"""Fine-tuning as a probe of representations: a copy of the network learns to classify."""

import copy
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.data.image import to_float
from genlab.errors import ConfigError
from genlab.machine.rank import rank, world
from genlab.metrics.base import Direction
from genlab.metrics.extractor.precision import full_precision
from genlab.metrics.few_labels import stratified
from genlab.metrics.probe import (
    LabelledImages,
    chance,
    check_place,
    check_probed,
    held_out_split,
    labelled,
    place_settings,
)
from genlab.model.base import Model, in_eval_mode
from genlab.model.representation import features_of
from genlab.progress import progress
from genlab.seeding import derive_seed, seed_torch

_FLAT = 1e-6  # a feature that varies less is not divided by its deviation
_DRAWS, _ORDER, _DROPOUT = range(3)  # keys of random numbers


class FineTuning(Metric):
    """Held-out accuracy of a copy of the network with a linear layer on its features, both trained on a share of the
    training labels for a fixed number of examples: AdamW without weight decay, a learning rate that falls to 0, no
    augmentation. The last weights count, not the best ones.

    The model itself is not changed. Costs about three passes over ``num_examples`` images, and one over the measured
    ones, for each evaluation; every rank trains the same copy. ``fine_tuning``; ``fine_tuning_chance``, of always
    naming the most frequent class. A network that begins with random weights is ``model=classifier``.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {"fine_tuning": "higher", "fine_tuning_chance": None}
    full_state_update = False

    right: Tensor
    usual: Tensor
    count: Tensor

    def __init__(
        self,
        share: float = 0.1,  # of the training labels, the same of each class and one at least
        num_examples: int = 20000,  # that are learned from, with repetitions
        lr: float = 1e-3,
        batch_size: int = 64,
        seed: int = 0,  # of the choice of labels, of the order and of dropout
        num_train: int | None = 10000,  # training images, of whose labels a share is told; None: all
        layer: float | None = None,  # depth of the block that is read, in [0, 1]; None: the family's own place
        noise_level: float | None = None,  # sigma, of a diffusion model; None: the family's own
    ):
        """Raises ValueError: a value outside its range."""
        super().__init__()
        check_place(num_train, layer, noise_level)
        if not 0 < share <= 1:
            raise ValueError(f"share={share} must be above 0 and at most 1.")
        if min(num_examples, batch_size) < 2 or lr <= 0:
            raise ValueError(
                f"num_examples={num_examples} and batch_size={batch_size} must be 2 or more, lr={lr} above 0."
            )
        self.share, self.num_examples, self.lr, self.batch_size, self.seed = share, num_examples, lr, batch_size, seed
        self.num_train, self.layer, self.noise_level = num_train, layer, noise_level
        self._facts: dict[str, int | float | str] = {}
        for name in ("right", "usual", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor, train_labels: Tensor) -> None:
        """Take in logits (N, K) and labels (N,) of held-out images, and the labels (M,) that were learned from."""
        self.right += (logits.argmax(dim=1) == labels).sum()
        self.usual += chance(train_labels, labels) * len(labels)
        self.count += len(labels)

    def compute(self) -> dict[str, Tensor]:
        return {"fine_tuning": self.right / self.count, "fine_tuning_chance": self.usual / self.count}

    def settings(self) -> dict[str, int | float | str]:
        """With hashes of the images and labels of the latest ``measure``."""
        own = {"share": self.share, "num_examples": self.num_examples, "lr": self.lr}
        more = {"batch_size": self.batch_size, "seed": self.seed}
        return {**own, **more, **place_settings(self.num_train, self.layer, self.noise_level), **self._facts}

    def measure(self, model: Model, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Train a copy, and take in this rank's share of the split. Raises ConfigError as :meth:`check`, and if the
        features have no gradient."""
        self.check(model, data)
        every = labelled(data, "train", self.num_train, "fine_tuning")
        tested = labelled(data, held_out_split(split), None, "fine_tuning")
        rows = stratified(torch.from_numpy(every.labels), self.share, derive_seed(self.seed, _DRAWS)).numpy()
        told = LabelledImages(every.images[rows], every.labels[rows])
        self._facts = {
            "split": held_out_split(split),
            "train_sha256": every.sha256(),
            "sha256": tested.sha256(),
        }
        tuned = self._tuned(model, told)
        train_labels = torch.from_numpy(told.labels)
        mine = np.arange(len(tested.labels))[rank() :: world()]
        with in_eval_mode(tuned), full_precision(model.device):
            for start in range(0, len(mine), batch_size):
                chosen = mine[start : start + batch_size]
                logits = tuned(to_float(torch.from_numpy(tested.images[chosen]).to(model.device)))
                labels = torch.from_numpy(tested.labels[chosen]).to(self.device)
                self.update(logits.to(self.device), labels, train_labels.to(self.device))

    def _tuned(self, model: Model, told: LabelledImages) -> "Tuned":
        device = model.device
        images, labels = torch.from_numpy(told.images), torch.from_numpy(told.labels).to(device)
        devices = [device] if device.type == "cuda" else []
        size = min(self.batch_size, len(labels))
        steps = max(1, self.num_examples // size)
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices):
            seed_torch(derive_seed(self.seed, _DROPOUT))
            tuned = Tuned(copied(model), self.layer, self.noise_level)
            tuned.begin(images, int(labels.max()) + 1)
            optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], self.lr, weight_decay=0.0)
            order = self._order(len(labels), size)
            with progress(f"fine-tuning on {steps * size:,} images", steps, quiet=rank() != 0) as advance:
                for step in range(steps):
                    for group in optimizer.param_groups:
                        group["lr"] = self.lr * (1 - step / steps)
                    rows = next(order)
                    optimizer.zero_grad()
                    F.cross_entropy(tuned(to_float(images[rows].to(device))), labels[rows.to(device)]).backward()
                    optimizer.step()
                    advance(1)
        return tuned

    def _order(self, count: int, size: int) -> Iterator[Tensor]:
        """Places of a batch (size,), without end: every example once, in a random order, then in another."""
        left = torch.zeros(0, dtype=torch.long)
        epoch = 0
        while True:
            if len(left) < size:
                rng = np.random.default_rng(derive_seed(self.seed, _ORDER, epoch))
                left, epoch = torch.from_numpy(rng.permutation(count)), epoch + 1
            yield left[:size]
            left = left[size:]

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError: the model has no features at this place, or is sharded; the data are no images, or have
        too few labels."""
        check_probed("fine_tuning", model, data, self.num_train, self.layer, self.noise_level)
        if model.device_mesh is not None:
            raise ConfigError("metrics=fine_tuning cannot copy a sharded model. Leave it out of metrics=[...].")

    def subject(self, model: Model, split: Split) -> str:
        return held_out_split(split)


class Tuned(nn.Module):
    """A copy of a model, and a linear layer on its features, which are standardised as they were at the start."""

    mean: Tensor
    scale: Tensor
    head: nn.Linear

    def __init__(self, model: Model, layer: float | None, noise_level: float | None):
        super().__init__()
        self.model, self.layer, self.noise_level = model, layer, noise_level

    def begin(self, images: Tensor, classes: int) -> None:
        """Make the linear layer, which begins at 0. ``images``: (N, C, H, W) uint8, those that are learned from.

        Raises ConfigError: the features have no gradient."""
        self.model.train()
        device = self.model.device
        if not self._features(to_float(images[:2].to(device))).requires_grad:
            raise ConfigError(
                f"metrics=fine_tuning: the features of a {type(self.model).__name__} have no gradient. "
                "Leave it out of metrics=[...]."
            )
        with in_eval_mode(self.model), torch.no_grad():
            found = torch.cat([self._features(to_float(part.to(device))) for part in images.split(256)])
        deviation = found.std(dim=0, correction=0)
        self.register_buffer("mean", found.mean(dim=0))
        self.register_buffer("scale", torch.where(deviation > _FLAT, deviation, 1.0))
        self.head = nn.Linear(found.shape[1], classes, device=device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> logits (N, K)."""
        return self.head((self._features(x) - self.mean) / self.scale)

    def _features(self, x: Tensor) -> Tensor:
        return features_of(self.model, x, self.layer, self.noise_level)


def copied(model: Model) -> Model:
    """A model with copies of all networks, which share nothing that is trained with ``model``'s; all is trained that
    the family does not keep frozen. Whatever else it refers to, a trainer among it, is the same object."""
    shared = {id(trainer): trainer for trainer in (getattr(model, "_trainer", None),) if trainer is not None}
    other = copy.copy(model)
    for name in ("_modules", "_parameters", "_buffers"):
        other.__dict__[name] = copy.deepcopy(model.__dict__[name], shared)
    for parameter in other.parameters():
        parameter.grad = None
        parameter.requires_grad_(parameter.is_floating_point())
    for part in other.frozen():
        part.requires_grad_(False)
    return other
