"""Representation alignment, REPA (Yu et al. 2025, arXiv:2410.06940): a denoiser learns features beside denoising."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.blocks import block_output
from genlab.model.elsewhere import FROM_ELSEWHERE
from genlab.model.frozen_features import (
    HasPatches,
    TrainedFeatures,
    as_map,
    check_same_images,
    network_of,
    without_memory,
)


class REPA(nn.Module):
    """What a block of the denoiser makes of the noisy example, mapped by a perceptron, is to point where trained
    features of the clean image point: ``weight`` times the mean of minus their cosine is added to the loss (eq. 8).

    Patch by patch where the trained model has vectors of patches: their grid is resized to that of the block. Else the
    features of the whole image are compared with the mean over places of the block.

    The features are frozen and in eval mode. The perceptron is trained with the denoiser and no part of samples.
    """

    features: Any
    projector: Any  # made in prepare; None: the weight is 0

    def __init__(
        self,
        features: Annotated[TrainedFeatures, FROM_ELSEWHERE],  # the model of a trained run
        shape: Sequence[int],  # of an image: (C, H, W)
        weight: float = 0.5,  # lambda in eq. 9; 0: as without
        layer: float = 0.25,  # depth of the block in [0, 1]: 0 the first that runs, 1 the last
        width: int = 256,  # of the perceptron's hidden layers
    ):
        """Raises ValueError: a value is out of its range, or the features are of images of another shape."""
        super().__init__()
        if weight < 0 or not 0 <= layer <= 1 or width < 1:
            raise ValueError(
                f"a weight of {weight} must be 0 or more, a layer of {layer} in [0, 1], and a width of {width} 1 or "
                "more."
            )
        check_same_images(features.shape, shape)
        self.features = features
        self.image_shape, self.weight, self.layer, self.width = tuple(shape), weight, layer, width
        self.sides: tuple[int, ...] = ()  # of what the denoiser sees
        self.register_module("projector", None)

    def train(self, mode: bool = True) -> "REPA":
        super().train(mode)
        self.features.eval()
        return self

    def prepare(self, network: nn.Module, shape: Sequence[int]) -> None:
        """Make the networks, for a denoiser of (C, H, W) that is neither compiled nor sharded. Raises ValueError: it
        has no blocks, or their outputs are no maps."""
        self.features.configure_model()
        self.features.requires_grad_(False).eval()
        self.sides = tuple(shape[1:])
        if self.weight == 0:
            return
        hidden = without_memory(
            network,
            lambda x, level: block_output(network, lambda: network(x, level, None), self.layer, mean=False),
            (1, *shape),
            (1,),
        )
        places = as_map(hidden, self.sides)
        targets = without_memory(self.features, lambda x: self.targets(x, places.shape[2:]), (1, *self.image_shape))
        self.projector = nn.Sequential(
            nn.Linear(places.shape[1], self.width),
            nn.SiLU(),
            nn.Linear(self.width, self.width),
            nn.SiLU(),
            nn.Linear(self.width, targets.shape[2]),
        )

    def losses(self, network: nn.Module, images: Tensor, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
        """``loss``, which calls ``network`` once for noisy examples of ``images`` (N, C, H, W), with the alignment
        added; and the mean of minus the cosine by itself."""
        if self.weight == 0:
            return {"loss": loss()}
        made: list[Tensor] = []
        hidden = block_output(network, lambda: made.append(loss()), self.layer, mean=False)
        alignment = self.alignment(hidden, images)
        return {"loss": made[0] + self.weight * alignment, "alignment": alignment}

    def alignment(self, hidden: Tensor, images: Tensor) -> Tensor:
        """Minus the mean cosine of mapped ``hidden``, what a block has put out, and features of ``images``, in
        [-1, 1]."""
        places = as_map(hidden, self.sides)
        targets = self.targets(images, places.shape[2:])  # (N, P, D)
        vectors = places.flatten(2).mT  # (N, h * w, C)
        if targets.shape[1] == 1:
            vectors = vectors.mean(dim=1, keepdim=True)
        return -F.cosine_similarity(self.projector(vectors).float(), targets.float(), dim=2).mean()

    @torch.no_grad()
    def targets(self, images: Tensor, grid: Sequence[int]) -> Tensor:
        """Trained features of images (N, C, H, W), at the places of a ``grid`` if there are some, else of the whole.
        -> (N, h * w, D) or (N, 1, D)."""
        encoder: Any = network_of(self.features)
        if not isinstance(encoder, HasPatches) or tuple(grid) == (1, 1):
            return self.features.features(images)[:, None]  # type: ignore[no-any-return]
        patches = encoder.of_patches(encoder.tokens(images)).mT.unflatten(2, encoder.grid)
        if tuple(grid) != tuple(encoder.grid):
            patches = F.interpolate(patches.float(), size=tuple(grid), mode="bilinear", antialias=True)
        return patches.flatten(2).mT
