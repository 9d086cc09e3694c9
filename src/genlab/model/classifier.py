"""Image classifiers, whose features and logits can be used to evaluate samples."""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.errors import ConfigError
from genlab.model.augment.diffaugment import Augmentation
from genlab.model.averages import running_statistics
from genlab.model.base import Batch, Condition, LearningRateSchedule, Model, OptimizerFactory
from genlab.model.freezing import trained
from genlab.model.objective.time_distribution import TimeDistribution
from genlab.model.parts import FeatureNetwork
from genlab.model.sharding import shard

_FLOOR = 1e-4  # added to a feature's variance: one that hardly varies is not blown up
_STD = 0.5  # about that of images in [-1, 1]
_CLEAN = 0.002  # the lowest noise level that is told from none
_EARLIEST = 1e-3  # time between noise and data, of a noise level of 1000
_HIDDEN = 64  # features of a noise level


class Classifier(Model):
    """A network that gives features, and a linear map of them to the logits of classes, trained with cross-entropy.

    It does not sample. Metrics can use its features and logits: ``metrics.extractor=<its run folder>``. Features are
    standardised, without which the linear map learns slowly: in training by the statistics of the batch, in use by
    running ones (batch norm without weights). These are averaged like the weights: those of others than the averaged
    weights would not fit. What comes before them does not depend on the batch, unless the network has batch norm too.

    With ``noise`` it is trained on noisy images, x = clean + sigma * noise, and is told sigma (Dhariwal and Nichol
    2021, section 4): its gradient can guide a diffusion model (``model/guidance=classifier``). The network sees x of
    unit size, and the noise level scales and shifts the features. What asks for none gives clean images.
    """

    kinds = frozenset({"continuous"})
    feature_network = "network"
    network: nn.Module  # made in configure_model, like the others
    noise_level: nn.Module | None  # log sigma to scales and shifts of features; None: it knows no noise
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
        noise: TimeDistribution | None = None,  # t in [0, 1] of training images, sigma = (1 - t) / t; None: clean ones
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
        self.compile_network, self.noise = compile, noise
        self.register_module("network", None)
        self.register_module("noise_level", None)
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
        if self.noise is not None:
            out = nn.Linear(_HIDDEN, 2 * head.in_features)
            nn.init.zeros_(out.weight)  # a noise level changes nothing at first
            nn.init.zeros_(out.bias)
            self.noise_level = nn.Sequential(nn.Linear(1, _HIDDEN), nn.SiLU(), out)

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
        logits = self.logits(*self.noisy(self.augment(x, lambda k: torch.rand(len(x), k, device=x.device))))
        loss = self.cross_entropy(logits, label)
        right = (logits.argmax(dim=1) == label).sum() / (label >= 0).sum().clamp_min(1)
        self.log("train/loss", loss, on_step=True, batch_size=len(x))
        self.log("train/accuracy", right, on_step=True, batch_size=len(x))
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of images as they are, without augmentation; with noise, if it is trained on noise, from torch's global
        generator, which the caller seeds."""
        return {"loss": self.cross_entropy(self.logits(*self.noisy(batch[self.key])), batch["label"])}

    def noisy(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (N, C, H, W) as it is trained on them, and their noise levels (N,), None for clean ones."""
        if self.noise is None:
            return x, None
        t = self.noise(len(x), x.device).clamp(min=_EARLIEST)
        sigma = (1 - t) / t
        return x + sigma[:, None, None, None] * torch.randn_like(x), sigma

    def cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        """Nats an example, with smoothed labels; over the examples with a label, 0 if there are none."""
        total = F.cross_entropy(logits, label, ignore_index=-1, label_smoothing=self.label_smoothing, reduction="sum")
        return total / (label >= 0).sum().clamp_min(1)

    def features(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) on [-1, 1], or with noise of ``sigma`` (N,) in them -> (N, D) float32, of about unit
        variance over training images."""
        if self.noise_level is None:
            assert sigma is None, "it was trained on clean images"
            return self.standardise(self.network(x).float())
        sigma = x.new_zeros(len(x)) if sigma is None else sigma
        size = (sigma.square() + _STD**2).rsqrt()[:, None, None, None]
        features = self.standardise(self.network(size * x).float())
        level = sigma.clamp(min=_CLEAN).log()[:, None] / 4
        scale, shift = cast(Tensor, self.noise_level(level)).float().chunk(2, dim=1)  # (N, D) each
        return features * (1 + scale) + shift

    def logits(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) on [-1, 1], or with noise of ``sigma`` (N,) in them -> (N, num_classes) float32."""
        return self.head(self.features(x, sigma)).float()

    def condition_log_prob(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """log p(label | x; sigma) of x = clean + sigma * noise, (N, C, H, W) and (N,), in nats; 0 of rows without a
        label. -> (N,)."""
        label = condition["label"]
        nats = self.logits(x, sigma).log_softmax(dim=1).gather(1, label.clamp(min=0)[:, None])[:, 0]
        return torch.where(label < 0, 0.0, nats)
