"""Where a denoiser works: on pixels, or on the latents of an autoencoder."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from genlab.model.base import Condition, GenerativeModel
from genlab.model.parts import Denoises, DenoisesLatents, DenoisesToTheEnd


@dataclass(frozen=True)
class Space:
    """The space of a diffusion model."""

    model: Denoises
    encode: Callable[[Tensor, Condition | None], Tensor]  # images (N, C, H, W) -> what is denoised
    decode: Callable[[Tensor, Condition | None], Tensor]  # and back
    is_of_pixels: bool

    @property
    def is_consistency(self) -> bool:
        """Whether D is the end of the probability-flow ODE, not an expected image."""
        return isinstance(self.model.objective, DenoisesToTheEnd)

    def unknown(self, places: Tensor) -> Tensor:
        """Places (N, 1, H, W) of images, bool -> those of the space that stand for one of them, (N, 1, h, w)."""
        if self.is_of_pixels:
            return places
        return F.adaptive_max_pool2d(places.float(), self.model.shape[1:]) > 0


def space_of(model: GenerativeModel) -> Space | None:
    """None: it is no diffusion model."""
    if isinstance(model, DenoisesLatents):
        return Space(model.diffusion, model.latents_of, model.images_of, False)
    if isinstance(model, Denoises):
        return Space(model, lambda x, _: x, lambda x, _: x, True)
    return None


def evaluations_of(model: GenerativeModel) -> int:
    """Evaluations of the network so far, counted by rows."""
    space = space_of(model)
    return model.evaluations if space is None else space.model.evaluations
