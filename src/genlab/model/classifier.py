"""Image classifiers, whose features and logits can be used to evaluate samples."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.errors import ConfigError
from genlab.model.augment.diffaugment import Augmentation
from genlab.model.averages import running_statistics
from genlab.model.base import Batch, LearningRateSchedule, Model, OptimizerFactory
from genlab.model.freezing import trained
from genlab.model.parts import FeatureNetwork
from genlab.model.sharding import shard

_FLOOR = 1e-4  # added to a feature's variance: one that hardly varies is not blown up


class Classifier(Model):
    """A network that gives features, and a linear map of them to the logits of classes, trained with cross-entropy.

    It does not sample. Metrics can use its features and logits: ``metrics.extractor=<its run folder>``. Features are
    standardised, without which the linear map learns slowly: in training by the statistics of the batch, in use by
    running ones (batch norm without weights). These are averaged like the weights: those of others than the averaged
    weights would not fit. What comes before them does not depend on the batch, unless the network has batch norm too.
    """

    kinds = frozenset({"continuous"})
    feature_network = "network"
    network: nn.Module  # made in configure_model, like the others
    standardise: nn.BatchNorm1d
    head: nn.Linear

    def __init__(
        self,
        network: Callable[[], FeatureNetwork],
        augment: Augmentation,  # of training images; mirror images are the data's: data.flip=true
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        num_classes: int | None,  # None, of data without labels, is refused
        label_smoothing: float = 0.1,  # share of the target that is spread over all classes (Szegedy et al. 2016)
        compile: bool = False,  # the network, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: there are not two classes to tell apart; a share outside [0, 1)."""
        super().__init__(seed, schedule)
        if num_classes is None:
            raise ValueError(
                "a classifier needs labels, and the data have none. Use data with labels, such as "
                "data=image_folder with one folder a class."
            )
        if num_classes < 2:
            raise ValueError(f"a classifier needs two classes or more, and the data have {num_classes}.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing} is a share: use a value from 0 to below 1.")
        self.make_network, self.make_optimizer, self.augment = network, optimizer, augment
        self.shape, self.num_classes, self.label_smoothing = tuple(shape), num_classes, label_smoothing
        self.compile_network = compile
        self.register_module("network", None)
        self.register_module("standardise", None)
        self.register_module("head", None)

    def configure_model(self) -> None:
        if self.network is not None:
            return
        network = self.make_network()
        assert isinstance(network, nn.Module)
        if self.compile_network:
            network.compile()
        head = nn.Linear(network.num_features, self.num_classes)  # type: ignore[arg-type]
        if self.device_mesh is not None:
            shard(network, self.device_mesh)
            shard(head, self.device_mesh)
        self.network, self.head = network, head
        self.standardise = nn.BatchNorm1d(head.in_features, eps=_FLOOR, affine=False)

    def averaged(self) -> Iterator[tuple[str, Tensor]]:
        """The weights, and the statistics of features, which go with them."""
        yield from super().averaged()
        yield from running_statistics(self)

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(trained(self))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, label = batch[self.key], batch["label"]
        if len(x) < 2:
            raise ConfigError("a classifier needs two images or more on each device. Use a larger data.batch_size.")
        logits = self.logits(self.augment(x, lambda k: torch.rand(len(x), k, device=x.device)))
        loss = self.cross_entropy(logits, label)
        right = (logits.argmax(dim=1) == label).sum() / (label >= 0).sum().clamp_min(1)
        self.log("train/loss", loss, on_step=True, batch_size=len(x))
        self.log("train/accuracy", right, on_step=True, batch_size=len(x))
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of images as they are, without augmentation."""
        return {"loss": self.cross_entropy(self.logits(batch[self.key]), batch["label"])}

    def cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        """Nats an example, with smoothed labels; over the examples with a label, 0 if there are none."""
        total = F.cross_entropy(logits, label, ignore_index=-1, label_smoothing=self.label_smoothing, reduction="sum")
        return total / (label >= 0).sum().clamp_min(1)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, D) float32, of about unit variance over training images."""
        return self.standardise(self.network(x).float())

    def logits(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, num_classes) float32."""
        return self.head(self.features(x)).float()
