"""Joint-embedding prediction of images (I-JEPA, Assran et al. 2023, arXiv:2301.08243), at any scale."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.model.augment.views import Views, numbers_by_index
from genlab.model.base import Batch, LearningRateSchedule, Model, OptimizerFactory
from genlab.model.block_masks import BlockMasks, Blocks, Sizes
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.parts import MaskedEncoder, PatchPredictor
from genlab.model.patches import check_views, each_view, picked
from genlab.model.sharding import shard
from genlab.model.spread import log_spread
from genlab.seeding import derive_seed, uniform_by_index

_LOSSES = {"smooth_l1": F.smooth_l1_loss, "squared_error": F.mse_loss}


class JEPA(Model):
    """A context encoder sees a part of an image's patches, and a predictor tells from its output what another encoder,
    which sees the whole image, makes of blocks of the others (section 3).

    That encoder, ``encoder``, gets no gradients: its weights follow those of ``context_encoder`` as a moving average.
    Checkpoints have both. Its outputs are normalised patch by patch (a layer norm without weights), so that they
    cannot all shrink.

    It does not sample. Features are the mean of ``encoder``'s patches, which follows the trained one and has no second
    average in callbacks: ``metrics.extractor=<its run folder>``.

    What is hidden, and the view of an image, depend on the seed, the examples seen before the step and the
    image's index. Held-out images have the same blocks hidden in every evaluation. Several views of an image are as
    many images.
    """

    kinds = frozenset({"continuous"})
    feature_network = "encoder"
    encoder: Any  # networks are made in configure_model
    context_encoder: Any
    predictor: Any

    def __init__(
        self,
        encoder: Callable[[], MaskedEncoder],
        predictor: Callable[..., PatchPredictor],
        masks: BlockMasks,
        views: Views,  # of training images; mirror images are theirs
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        momentum: float = 0.996,  # of the moving average, of a step: from this to 1 at the end of the budget
        loss: Literal["smooth_l1", "squared_error"] = "smooth_l1",  # the published code's, or the paper's (eq. 1)
        seed: int = 0,
    ):
        """Raises ValueError: a momentum outside [0, 1], or small views."""
        super().__init__(seed, schedule)
        check_views(views)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum={momentum} is a share: use a value from 0 to 1, such as model.momentum=0.996.")
        self.make_encoder, self.make_predictor, self.make_optimizer = encoder, predictor, optimizer
        self.masks, self.views, self.shape = masks, views, tuple(shape)
        self.momentum, self.distance = momentum, _LOSSES[loss]
        self.copies = {"context_encoder.": "encoder."}  # start= may name a run of another family, which has the latter
        self.costs_most = False
        for name in ("encoder", "context_encoder", "predictor"):
            self.register_module(name, None)

    def configure_model(self) -> None:
        """Raises ValueError: the images have too few patches."""
        if self.encoder is not None:
            return
        context_encoder: Any = self.make_encoder()
        self.masks.check(context_encoder.grid)
        width = context_encoder.num_features
        predictor: Any = self.make_predictor(in_features=width, out_features=width, grid=context_encoder.grid)
        encoder = copy.deepcopy(context_encoder).requires_grad_(False).eval()
        if self.device_mesh is not None:
            for part in (encoder, context_encoder):
                shard(part, self.device_mesh, methods=["tokens"])
            shard(predictor, self.device_mesh)
        self.encoder, self.context_encoder, self.predictor = encoder, context_encoder, predictor

    def frozen(self) -> Iterable[nn.Module]:
        return () if self.encoder is None else (self.encoder,)

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(parameter_groups(self))

    # --- training ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        index = batch["index"]
        uniform = numbers_by_index(self.seed, self.progress.examples, index)
        x, uniform = each_view(self.views, batch[self.key], uniform)
        blocks = self.masks.draw(self.encoder.grid, self.sizes(), uniform)
        whole = self.whole(x)
        loss = self.distance(self.predict(x, blocks), self.targets(whole, blocks))
        self.log("train/loss", loss, on_step=True, batch_size=len(index))
        self.log("train/momentum", self.momentum_at(self.progress.fraction), on_step=True, batch_size=len(index))
        log_spread(self, self.encoder.pooled(whole))
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of images as they are, with the same blocks hidden every time, of middle sizes."""
        grid, uniform = self.encoder.grid, numbers_by_index(derive_seed(self.seed, 1), 0, batch["index"])
        blocks = self.masks.draw(grid, self.masks.sizes(grid, (0.5, 0.5, 0.5)), uniform)
        return {"loss": self.loss(batch[self.key], blocks)}

    def loss(self, x: Tensor, blocks: Blocks) -> Tensor:
        """How far predictions are from targets, the mean over all numbers. ``x``: (N, C, H, W)."""
        return self.distance(self.predict(x, blocks), self.targets(self.whole(x), blocks))

    def predict(self, x: Tensor, blocks: Blocks) -> Tensor:
        """The vectors of targets, each block by itself, from what is seen: (N, num_targets, M, width) float32."""
        count = blocks.targets.shape[1]
        tokens, seen = self.context_encoder.tokens(x, blocks.seen), blocks.seen
        tokens, seen = tokens.repeat_interleave(count, dim=0), seen.repeat_interleave(count, dim=0)
        predicted = self.predictor(tokens, seen, blocks.targets.flatten(0, 1))  # (N * num_targets, M, width)
        return predicted.unflatten(0, (-1, count)).float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def whole(self, x: Tensor) -> Tensor:
        """What the moving average makes of all patches of images (N, C, H, W)."""
        return self.encoder.tokens(x)  # type: ignore[no-any-return]

    def targets(self, tokens: Tensor, blocks: Blocks) -> Tensor:
        """Vectors of the patches in blocks, normalised: (N, num_targets, M, width). ``tokens``: of :meth:`whole`."""
        patches = self.encoder.of_patches(tokens).float()
        normalised = F.layer_norm(patches, patches.shape[2:])
        return picked(normalised, blocks.targets.flatten(1)).unflatten(1, blocks.targets.shape[1:])

    def sizes(self) -> Sizes:
        """Of the blocks of the next step."""
        grid = self.encoder.grid
        if self.costs_most:
            return self.masks.largest(grid)
        seed = derive_seed(derive_seed(self.seed, 2), self.progress.examples)
        return self.masks.sizes(grid, uniform_by_index(seed, np.arange(3)).tolist())

    def step_kind(self, batch_idx: int) -> str:
        sizes = self.sizes()
        return f"{super().step_kind(batch_idx)} target {sizes.target} context {sizes.context}"

    def at_full_cost(self) -> None:
        self.costs_most = True

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimizer's, and then one of the moving average."""
        super().optimizer_step(*args, **kwargs)
        self.follow(self.momentum_at(self.progress.fraction))

    def momentum_at(self, fraction: float) -> float:
        """From ``momentum`` to 1 on a straight line over the budget; ``fraction`` of it in [0, 1]."""
        return self.momentum + (1 - self.momentum) * fraction

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """encoder <- momentum * encoder + (1 - momentum) * context_encoder."""
        for average, weight in zip(self.encoder.parameters(), self.context_encoder.parameters(), strict=True):
            average.lerp_(weight, 1 - momentum)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, D) float32: the mean of the patches of ``encoder``."""
        return self.encoder(x).float()  # type: ignore[no-any-return]
