"""Masked autoencoders (MAE, He et al. 2022, arXiv:2111.06377), at any scale: most of an image is hidden, and predicted
from the rest."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from genlab.model.augment.views import Views, numbers_by_index
from genlab.model.base import Batch, LearningRateSchedule, Model, OptimizerFactory
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.parts import MaskedEncoder, PatchPredictor
from genlab.model.patches import check_views, each_view, picked, to_images, to_patches
from genlab.model.sharding import shard
from genlab.model.spread import log_spread
from genlab.seeding import derive_seed

_TINY = 1e-6  # added to the variance of a patch, as published


class MaskedAutoencoder(Model):
    """An encoder that sees a random part of an image's patches, and a small decoder that predicts the pixels of the
    others: their mean squared error (section 3), of pixels that are standardised patch by patch.

    It does not sample. Features are those of the encoder, which then sees all patches: ``metrics.extractor=<its run
    folder>``. ``model.encoder.features`` says what they are: the mean of the patches, or the class token.

    Which patches are hidden, and the view of an image, depend on the seed, the examples seen before the step and
    the image's index. Held-out images have the same patches hidden in every evaluation. Several views of an image are
    as many images.
    """

    kinds = frozenset({"continuous"})
    feature_network = "encoder"
    encoder: Any  # networks are made in configure_model
    decoder: Any

    def __init__(
        self,
        encoder: Callable[[], MaskedEncoder],
        decoder: Callable[..., PatchPredictor],
        views: Views,  # of training images; mirror images are theirs
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        mask_ratio: float = 0.75,  # share of the patches that are hidden, between 0 and 1
        normalize_pixels: bool = True,  # targets are standardised patch by patch (section 4.1)
        seed: int = 0,
    ):
        """Raises ValueError: a share outside (0, 1), or small views."""
        super().__init__(seed, schedule)
        check_views(views)
        if not 0 < mask_ratio < 1:
            raise ValueError(
                f"mask_ratio={mask_ratio} is the share of patches that are hidden: use a value between 0 and 1, such "
                "as model.mask_ratio=0.75."
            )
        self.make_encoder, self.make_decoder, self.make_optimizer = encoder, decoder, optimizer
        self.views, self.shape = views, tuple(shape)
        self.mask_ratio, self.normalize_pixels = mask_ratio, normalize_pixels
        self.register_module("encoder", None)
        self.register_module("decoder", None)

    def configure_model(self) -> None:
        """Raises ValueError: the share leaves no patch to see, or hides none; a patch of one number is standardised."""
        if self.encoder is not None:
            return
        encoder: Any = self.make_encoder()
        numbers = self.shape[0] * encoder.patch_size**2  # of a patch
        num_patches = encoder.grid[0] * encoder.grid[1]
        if self.normalize_pixels and numbers == 1:
            raise ValueError(
                "the single number of a patch cannot be standardised. Use model.normalize_pixels=false, or a larger "
                "model.encoder.patch_size."
            )
        if not 0 < self.num_seen(num_patches) < num_patches:
            raise ValueError(
                f"mask_ratio={self.mask_ratio} of {num_patches} patches hides "
                f"{num_patches - self.num_seen(num_patches)} of them, and some must be hidden and some seen. Use "
                "another model.mask_ratio, or a smaller model.encoder.patch_size."
            )
        decoder: Any = self.make_decoder(in_features=encoder.num_features, out_features=numbers, grid=encoder.grid)
        if self.device_mesh is not None:
            shard(encoder, self.device_mesh, methods=["tokens"])
            shard(decoder, self.device_mesh)
        self.encoder, self.decoder = encoder, decoder

    def num_seen(self, num_patches: int) -> int:
        """How many of them are not hidden, rounded down."""
        return int(num_patches * (1 - self.mask_ratio) + 1e-9)

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(parameter_groups(self))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        uniform = numbers_by_index(self.seed, self.progress.examples, batch["index"])
        x, uniform = each_view(self.views, batch[self.key], uniform)
        seen, hidden = self.split(uniform(self.num_patches))
        tokens = self.encoder.tokens(x, seen)
        loss = self.error(self.decoder(tokens, seen, hidden), x, hidden)
        self.log("train/loss", loss, on_step=True, batch_size=len(batch["index"]))
        log_spread(self, self.encoder.pooled(tokens))
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of images as they are, with the same patches hidden every time."""
        return {"loss": self.loss(batch[self.key], *self.held_out_split(batch["index"]))}

    def loss(self, x: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        """The mean squared error of the pixels of hidden patches. ``x``: (N, C, H, W); the numbers of patches that are
        seen, (N, K), and hidden, (N, M)."""
        return self.error(self.predict(x, seen, hidden), x, hidden)

    def error(self, predicted: Tensor, x: Tensor, hidden: Tensor) -> Tensor:
        """Of ``predicted`` pixels of hidden patches, (N, M, C * patch_size^2)."""
        return (predicted.float() - self.standardised(picked(self.to_patches(x), hidden))).square().mean()

    def predict(self, x: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        """The pixels of hidden patches, standardised if targets are: (N, M, C * patch_size^2)."""
        return self.decoder(self.encoder.tokens(x, seen), seen, hidden)  # type: ignore[no-any-return]

    def standardised(self, patches: Tensor) -> Tensor:
        """The targets of patches (N, M, D), each of mean 0 and variance 1 if ``normalize_pixels``."""
        if not self.normalize_pixels:
            return patches
        mean, variance = patches.mean(dim=2, keepdim=True), patches.var(dim=2, keepdim=True)
        return (patches - mean) / (variance + _TINY).sqrt()

    def split(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """``noise`` (N, P) in [0, 1), a number for each patch -> the numbers of patches that are seen, (N, K), those
        with the least noise, and of hidden ones, (N, P - K)."""
        order = noise.argsort(dim=1, stable=True)
        count = self.num_seen(noise.shape[1])
        return order[:, :count], order[:, count:]

    def held_out_split(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """What is seen and hidden of held-out images, by their index (N,)."""
        return self.split(numbers_by_index(derive_seed(self.seed, 1), 0, index)(self.num_patches))

    @property
    def num_patches(self) -> int:
        return self.encoder.grid[0] * self.encoder.grid[1]  # type: ignore[no-any-return]

    def to_patches(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, P, C * patch_size^2), float32."""
        return to_patches(x.float(), self.encoder.patch_size)

    def fill_in(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) with index (N,) -> like them, with hidden patches gray, and with what is predicted there.

        Of standardised pixels the mean and the variance of a hidden patch are those of the image: they are not
        predicted."""
        seen, hidden = self.held_out_split(index)
        patches = self.to_patches(x)
        true, predicted = picked(patches, hidden), self.predict(x, seen, hidden).float()
        if self.normalize_pixels:
            deviation = (true.var(dim=2, keepdim=True) + _TINY).sqrt()
            predicted = predicted * deviation + true.mean(dim=2, keepdim=True)
        where = hidden[:, :, None].expand_as(predicted)
        grid = self.encoder.patch_size, self.encoder.grid
        masked, filled = (patches.scatter(1, where, values) for values in (torch.zeros_like(true), predicted))
        return to_images(masked, *grid), to_images(filled, *grid)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, D) float32: the encoder's, which sees all patches."""
        return self.encoder(x).float()  # type: ignore[no-any-return]
