"""Latents whose image agrees with the known pixels of a picture: of VAEs and GANs, by gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

from genlab.model.base import Condition, GenerativeModel
from genlab.model.parts import Adversarial, StyledGenerator
from genlab.sampling.projection import Distance, FeatureDistance, Projection, given, project

STEPS = 300
_LR = 0.05
_STD = 0.1  # of a pixel around the decoded one


def fitted(
    decode: Callable[[Tensor], Tensor],
    start: Tensor,
    image: Tensor,
    known: Tensor,
    steps: int = STEPS,
    has_prior: bool = True,
    advance: Callable[[int], None] = lambda steps: None,
) -> Tensor:
    """Latents that maximize log N(image; decode(z), 0.1^2) of the known pixels, plus log N(z; 0, 1) where the prior is
    standard normal: ``steps`` steps of Adam from ``start`` (N, ...), each row on its own. The known pixels are the
    context loss of Yeh et al. (2017, arXiv:1607.07539, eq. 2 to 4), the prior is that of the latent itself.

    ``image``: (N, C, H, W); ``known``: (N, 1, H, W) bool. -> like ``start``. Raises ValueError: ``steps`` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps} must be 1 or more.")
    with torch.inference_mode(False), torch.enable_grad():
        z = start.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=_LR)
        for _ in range(steps):
            missed = torch.where(known, decode(z) - image, 0.0).square().sum() / (2 * _STD**2)
            loss = missed + z.square().sum() / 2 if has_prior else missed
            (z.grad,) = torch.autograd.grad(loss, z)
            optimizer.step()
            advance(1)
    return z.detach()


class OfKnown:
    """A distance that sees the unknown pixels of the first image as the second has them: they count nothing."""

    def __init__(self, distance: Distance, unknown: Tensor):
        """``unknown``: (1, 1, H, W) bool."""
        self.distance, self.unknown, self.name = distance, unknown, f"{distance.name}, of known pixels"

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return self.distance.between(torch.where(self.unknown, b, a), b)


def projected(
    model: GenerativeModel,
    image: Tensor,
    unknown: Tensor | None,
    condition: Condition | None,
    steps: int,
    seed: int,
    advance: Callable[[int], None] = lambda steps: None,
) -> Projection:
    """The styles and the noise of pixels whose image is nearest to the known pixels of ``image`` (1, C, H, W), as in
    :func:`genlab.sampling.projection.project`."""
    assert isinstance(model, Adversarial)
    distance: Distance = FeatureDistance(model.discriminator, condition)
    if unknown is not None:
        distance = OfKnown(distance, unknown)
    return project(model, image, steps, seed, condition, distance, advance)


def is_styled(model: GenerativeModel) -> bool:
    """Whether :func:`projected` is for it."""
    return isinstance(model, Adversarial) and isinstance(model.generator, StyledGenerator)


@torch.no_grad()
def synthesized(model: GenerativeModel, styles: Tensor, noise: list[Tensor]) -> Tensor:
    """Images of styles (N, num_styles, W) and the noise of pixels (1, side, side) of each layer. -> (N, C, H, W)."""
    assert isinstance(model, Adversarial)
    assert isinstance(model.generator, StyledGenerator)
    return model.generator.synthesize(styles, given(noise))
