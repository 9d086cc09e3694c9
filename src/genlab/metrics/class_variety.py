"""Variety of samples within a class, relative to the data: 0 for one image per class."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.judge import verdicts
from genlab.metrics.ordered import in_order

_STRONG = 0.8  # share of the power of a class in the used frequencies
_RELATIVE_ERROR = 1e-9  # largest error of a variety: identical pictures have 1e-14 in float32
_FEWEST = 5  # images of a class, of either kind, for it to count


class ClassVariety(Metric):
    """How much samples of a class vary, relative to data: 1 if they vary as much or more, 0 for one image a class.

    The mean squared distance of two pictures of a class, by which variety is usually measured (Zhu et al. 2017,
    arXiv:1711.11586, sec. 5), would fall with blur and rise with noise. So it is taken frequency by frequency, as a
    share of the power that pictures have there: v_c(f) = Var_c X(f) / E_c |X(f)|^2, X the Fourier transform of a
    picture of class c. A blur scales both alike and cancels. Noise is weak at the used frequencies,
    the strongest ones without the mean, which hold four fifths of the power w_c(f) of the data's class.
    ``class_variety`` is the mean over classes of sum_f w_c(f) v_c(f) of the samples, over that of the reference, and 1
    at most, since what noise adds is not variety.

    The class of a picture is a judge's prediction, as in ``class_balance``; data without labels count as one class.
    """

    reads: frozenset[str]
    optional: ClassVar[frozenset[str]] = frozenset({"label"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"class_variety": "higher"}
    is_differentiable = False
    full_state_update = False

    real_images: list[Tensor]
    real_named: list[Tensor]
    real_labels: list[Tensor]
    real_index: list[Tensor]
    fake_images: list[Tensor]
    fake_named: list[Tensor]

    def __init__(
        self,
        judge: Literal["pixels", "logits"] = "pixels",  # a machine fitted to the reference, or the extractor's logits
        num_reference: int = 2000,  # images of the reference that are used, the first labelled ones
        penalty: float = 10.0,  # C of the support vector machine
    ):
        super().__init__()
        self.judge, self.num_reference, self.penalty = judge, num_reference, penalty
        self.reads = frozenset({"image"} if judge == "pixels" else {"image", "logits"})  # labels too, if there are any
        for state in ("real_images", "real_named", "real_labels", "real_index", "fake_images", "fake_named"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, C, H, W) uint8, ``index`` (N,), with judge=logits ``logits`` (N, K), and of the reference
        ``label`` (N,), -1: none."""
        images = batch["image"]
        none = torch.full((len(images),), -1, device=images.device)
        named = none if self.judge == "pixels" else batch["logits"].argmax(dim=1)
        (self.real_images if real else self.fake_images).append(images)
        (self.real_named if real else self.fake_named).append(named)
        if real:
            self.real_labels.append(batch.get("label", none))
            self.real_index.append(batch["index"])

    def compute(self) -> dict[str, Tensor]:
        """``class_variety``. Raises DataError if images of the reference do not differ."""
        states = (self.real_images, self.real_named, self.real_labels)
        real, named_real, labels = (in_order(state, self.real_index) for state in states)
        samples, named = dim_zero_cat(self.fake_images), dim_zero_cat(self.fake_named)
        if self.judge == "pixels" and bool((labels >= 0).any()):
            real = real[labels >= 0][: self.num_reference]
            _, of_real, of_samples = verdicts(
                "pixels", real, labels[labels >= 0][: self.num_reference], samples, self.num_reference, self.penalty
            )
        else:  # predicted from logits; or all are of the class -1
            of_real, of_samples = named_real.cpu().numpy(), named.cpu().numpy()
        value = relative_variety(spectra(samples), of_samples, spectra(real), of_real)
        return {"class_variety": torch.tensor(value)}

    def check_enough(self, real: Tensor, fake: Tensor) -> None:
        """See NeedsEnough."""
        if len(real) < 2:
            raise DataError("class_variety needs at least 2 real images. Leave it out of metrics=[...].")

    def settings(self) -> dict[str, int | float | str]:
        if self.judge == "logits":
            return {"judge": "logits"}
        return {"judge": "SVC rbf, blurred too", "num_reference": self.num_reference, "penalty": self.penalty}


def spectra(images: Tensor) -> np.ndarray:
    """uint8 (N, C, H, W) -> complex (N, F), without the frequency 0, which is brightness."""
    found = torch.fft.rfft2(images.float().cpu())  # (N, C, H, W // 2 + 1)
    found[:, :, 0, 0] = 0
    return found.flatten(1).numpy()


def relative_variety(
    samples: np.ndarray,  # (N, F) complex, N >= 2
    classes: np.ndarray,  # (N,)
    real: np.ndarray,  # (M, F)
    real_classes: np.ndarray,  # (M,)
) -> float:
    """The variety of samples over that of real pictures, over the classes that have five or more of both.

    Where no class has, all count as one. Raises DataError if real pictures do not differ.
    """
    names = [n for n in np.unique(real_classes) if min(np.sum(classes == n), np.sum(real_classes == n)) >= _FEWEST]
    pairs = [(samples[classes == name], real[real_classes == name]) for name in names] or [(samples, real)]
    ours, theirs = 0.0, 0.0
    for x, y in pairs:
        weights = strong(np.square(np.abs(y)).mean(axis=0))
        ours, theirs = ours + variety(x, weights), theirs + variety(y, weights)
    if theirs < _RELATIVE_ERROR:
        raise DataError("class_variety: images of the reference do not differ. Leave it out of metrics=[...].")
    return min(1.0, ours / theirs)


def strong(power: np.ndarray) -> np.ndarray:
    """Power (F,) -> weights (F,), of sum 1: the largest entries that hold four fifths of it; 0 elsewhere."""
    order = np.sort(power)[::-1]
    least = order[np.searchsorted(np.cumsum(order), _STRONG * power.sum())]
    kept = np.where(power >= least, power, 0.0)
    return kept / kept.sum()


def variety(x: np.ndarray, weights: np.ndarray) -> float:
    """The share of the power of spectra (N, F) that is variation, in [0, about 1]: 0 if all are the same."""
    power = np.square(np.abs(x)).mean(axis=0)
    varying = np.square(np.abs(x - x.mean(axis=0))).sum(axis=0) / (len(x) - 1)
    return float(np.sum(weights * np.divide(varying, power, out=np.zeros_like(power), where=power > 0)))
