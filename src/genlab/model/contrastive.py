"""Self-supervised learning from two views of each image: SimCLR, Barlow Twins and VICReg, by the objective."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from genlab.errors import ConfigError
from genlab.model.augment.views import Views, numbers_by_index
from genlab.model.averages import running_statistics
from genlab.model.base import Batch, LearningRateSchedule, Model, OptimizerFactory
from genlab.model.gathered import gathered
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.parts import FeatureNetwork, ProjectorNetwork, ViewObjective
from genlab.model.sharding import shard
from genlab.model.spread import log_spread


class Contrastive(Model):
    """An encoder that gives features of images, trained without labels: a projector maps them to vectors, and the
    objective says what those of two views of each image should be.

    It does not sample. Metrics can use its features: ``metrics.extractor=<its run folder>``.

    * The objective compares the batches of all ranks together, and batch norm is over all ranks too.
    * The views pass the networks one after the other, so that with batch norm a vector depends on the same view of the
      other images, and not on the other view. Running statistics follow both.
    * With accumulated gradients a loss is of one batch, not of all that make a step.
    * In validation views are always the same ones, networks are as in use, and batches are those of one rank.
    * Gains and biases are not decayed.
    """

    kinds = frozenset({"continuous"})
    feature_network = "encoder"
    encoder: Any  # networks are made in configure_model
    projector: Any

    def __init__(
        self,
        encoder: Callable[[], FeatureNetwork],
        projector: Callable[..., ProjectorNetwork],
        views: Views,  # mirror images are theirs: no data.flip=true is needed
        objective: ViewObjective,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        compile: bool = False,  # the encoder, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: views that are not two."""
        super().__init__(seed, schedule)
        if views.count != 2 or views.num_local:
            raise ValueError(
                f"a contrastive model compares two views, and these are {views.count + views.num_local} an image. Use "
                "model.views.count=2 model.views.num_local=0."
            )
        self.make_encoder, self.make_projector, self.make_optimizer = encoder, projector, optimizer
        self.views, self.objective, self.shape, self.compile_encoder = views, objective, tuple(shape), compile
        self.register_module("encoder", None)
        self.register_module("projector", None)

    def configure_model(self) -> None:
        if self.encoder is not None:
            return
        encoder: Any = self.make_encoder()
        projector: Any = self.make_projector(num_features=encoder.num_features)
        if self.compile_encoder:
            encoder.compile()
        if self.device_mesh is not None:
            shard(encoder, self.device_mesh)
            shard(projector, self.device_mesh)
        self.encoder, self.projector = encoder, projector

    def averaged(self) -> Iterator[tuple[str, Tensor]]:
        """The weights, and the running statistics of batch norm, which go with them."""
        yield from super().averaged()
        yield from running_statistics(self)

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(parameter_groups(self))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x = batch[self.key]
        if len(x) < 2:
            raise ConfigError(
                "a contrastive model needs two images or more on each device. Use a larger data.batch_size."
            )
        seen = self.views(x, numbers_by_index(self.seed, self.progress.examples, batch["index"]))  # (2, N, C, H, W)
        features = [self.encoder(view) for view in seen]
        loss = self.compared(gathered(torch.cat([self.projector(f) for f in features], dim=1)))
        self.log("train/loss", loss, on_step=True, batch_size=len(x))
        log_spread(self, features[0])
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of views that are the same at every time."""
        seen = self.views(batch[self.key], numbers_by_index(self.seed, 0, batch["index"]))
        return {"loss": self.compared(torch.cat([self.projector(self.encoder(view)) for view in seen], dim=1))}

    def compared(self, vectors: Tensor) -> Tensor:
        """The loss of both views' vectors beside each other, (N, 2 D)."""
        with torch.autocast(vectors.device.type, enabled=False):
            return self.objective.loss(*vectors.chunk(2, dim=1))

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, D) float32, before the projector."""
        features: Tensor = self.encoder(x)
        return features.float()
