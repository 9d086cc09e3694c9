"""Small shifts, for classifiers of small images."""

from torch import Tensor

from genlab.model.augment.diffaugment import Uniform, translation


class Shift:
    """Moves each image by whole pixels and repeats its edge where it leaves a gap.

    He et al. (2016, arXiv:1512.03385, section 4.2) fill the gap with zeros, which networks learn to detect on images
    with another background.
    """

    def __init__(self, ratio: float = 0.125):  # the farthest, as a share of the side: 4 of 32 pixels, as published
        """Raises ValueError if ``ratio`` is not in [0, 1]."""
        if not 0 <= ratio <= 1:
            raise ValueError(f"ratio={ratio} is a share of the image's side: use a value from 0 to 1.")
        self.ratio = ratio

    def __call__(self, images: Tensor, uniform: Uniform) -> Tensor:
        """(N, C, H, W) -> like ``images``."""
        return translation(images, uniform(2), self.ratio, repeat_edges=True)
