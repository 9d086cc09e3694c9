"""Multi-scale structural similarity of pairs of samples: how varied they are (Odena et al. 2017)."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataSpec
from genlab.errors import ConfigError, DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.classes import random_pairs
from genlab.metrics.ordered import in_order

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of scales, from the finest (Wang et al. 2003)
_WINDOW, _SIGMA = 11, 1.5  # pixels
_SMALLEST = 4  # side of an image at the coarsest scale
_K1, _K2 = 0.01, 0.03
_CHUNK = 32  # pairs per pass, for any batch size, since float32 sums depend on it


class MSSSIM(Metric):
    """Mean multi-scale structural similarity of random pairs of samples, as Odena et al. (2017, arXiv:1610.09585,
    section 4.2) and Karras et al. (2018, arXiv:1710.10196, table 1) measure variation: 1 if all samples are one image,
    lower the more they vary, 0 at least.

    Pairs are of one class, each class in turn, where samples have labels; else of all. There is no reference, and noise
    is lowest: the number of a good model is that of the data, which ``baselines=true`` shows.

    With the windows of the published program: torchmetrics needs images of 176 pixels for five scales, and its coarsest
    one counts mirrored borders.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})
    optional: ClassVar[frozenset[str]] = frozenset({"label"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"ms_ssim": None}
    is_differentiable = False
    full_state_update = False

    image: list[Tensor]
    label: list[Tensor]
    index: list[Tensor]

    def __init__(
        self,
        num_pairs: int = 10_000,
        scales: int = 5,  # 1 to 5, each of half the side; five are published
        seed: int = 0,  # of the choice of pairs
    ):
        """Raises ValueError if there are no pairs, or another number of scales."""
        super().__init__()
        if num_pairs < 1 or not 1 <= scales <= len(_WEIGHTS):
            raise ValueError(f"num_pairs={num_pairs} must be >= 1, and scales={scales} from 1 to {len(_WEIGHTS)}.")
        self.num_pairs, self.scales, self.seed = num_pairs, scales, seed
        self._kind = "of one class"
        for state in ("image", "label", "index"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, C, H, W) uint8, ``index`` (N,) and, where there is one, ``label`` (N,) of samples."""
        if real:
            return
        self.image.append(batch["image"])
        self.label.append(batch["label"] if "label" in batch else torch.full_like(batch["index"], -1))
        self.index.append(batch["index"])

    def compute(self) -> dict[str, Tensor]:
        """``ms_ssim`` in [0, 1]. Raises DataError if there are fewer than 2 samples, or of a class."""
        images, labels = in_order(self.image, self.index), in_order(self.label, self.index).cpu().numpy()
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self._kind = "of all" if (labels < 0).all() else "of one class"
        self._check_groups(groups)
        pairs = torch.from_numpy(random_pairs(groups, self.num_pairs, self.seed)).to(images.device)  # (P, 2)
        similar = [
            ms_ssim(images[chunk[:, 0]].float(), images[chunk[:, 1]].float(), self.scales)
            for chunk in pairs.split(_CHUNK)
        ]
        return {"ms_ssim": torch.cat(similar).double().mean()}

    def settings(self) -> dict[str, int | float | str]:
        """As used by the latest ``compute``."""
        return {"num_pairs": self.num_pairs, "pairs": self._kind, "scales": self.scales, "seed": self.seed}

    def check_samples(self, spec: DataSpec, columns: frozenset[str]) -> None:
        """See ChecksSamples."""
        side = min(spec.shape[-2:])
        if side >> (self.scales - 1) >= _SMALLEST:
            return
        fit = [scales for scales in range(1, self.scales) if side >> (scales - 1) >= _SMALLEST]
        remedy = f"Set metrics.ms_ssim.scales={fit[-1]}" if fit else "Leave it out of metrics=[...]"
        raise ConfigError(
            f"ms_ssim: images of {side} pixels have less than {_SMALLEST} at the coarsest of {self.scales} scales. "
            f"{remedy}."
        )

    def check_enough(self, real: Tensor, fake: Tensor) -> None:
        """See NeedsEnough; only samples matter."""
        self._check_groups([np.flatnonzero(fake.cpu().numpy() == label) for label in fake.unique().tolist()])

    def _check_groups(self, groups: list[np.ndarray]) -> None:
        fewest = min((len(group) for group in groups), default=0)
        if fewest < 2:
            raise DataError(
                f"ms_ssim needs at least 2 samples, or of each class, got {fewest}. Use a larger "
                "evaluation.num_samples, or leave it out of metrics=[...]."
            )


def ms_ssim(a: Tensor, b: Tensor, scales: int = 5) -> Tensor:
    """Multi-scale structural similarity of images (N, C, H, W) float in [0, 255] -> (N,) in [0, 1] (Wang, Simoncelli
    and Bovik 2003, eq. 7).

    Of all scales but the coarsest contrast and structure count, of the coarsest luminance too; negative ones count as
    0. A window is not larger than the images of its scale, and there as narrow in proportion. With fewer than five
    ``scales`` the weights of the finest ones are enlarged in proportion, to the same sum.
    """
    weights = torch.tensor(_WEIGHTS[:scales]) * (sum(_WEIGHTS) / sum(_WEIGHTS[:scales]))
    found = torch.ones(len(a), device=a.device)
    for scale, weight in enumerate(weights.tolist()):
        similarity, contrast = ssim(a, b)
        found = found * (similarity if scale == scales - 1 else contrast).clamp(min=0) ** weight
        if scale < scales - 1:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return found


def ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Structural similarity of images (N, C, H, W) in [0, 255], and its part of contrast and structure, means over
    pixels whose window is inside the image: (N,) each (Wang et al. 2004, IEEE TIP 13(4), eq. 13)."""
    size = min(_WINDOW, *a.shape[-2:])
    mean_a, mean_b, square_a, square_b, product = (_local_mean(x, size) for x in (a, b, a * a, b * b, a * b))
    c1, c2 = (_K1 * 255) ** 2, (_K2 * 255) ** 2
    spread = square_a - mean_a**2 + square_b - mean_b**2
    contrast = (2 * (product - mean_a * mean_b) + c2) / (spread + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * contrast).mean(dim=(1, 2, 3)), contrast.mean(dim=(1, 2, 3))


def _local_mean(x: Tensor, size: int) -> Tensor:
    """Weighted by a Gaussian window of ``size`` pixels: (N, C, H, W) -> (N, C, H - size + 1, W - size + 1)."""
    places = torch.arange(size, device=x.device) - (size - 1) / 2
    row = torch.exp(-0.5 * (places / (_SIGMA * size / _WINDOW)) ** 2)
    row = row / row.sum()
    channels = x.shape[1]
    x = F.conv2d(x, row.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(x, row.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
