"""The features of a model that was trained with genlab, a classifier or any other that has some:
``metrics.extractor=<folder of its run>``."""

import re
from typing import Annotated, Literal

import torch
from torch import Tensor

from genlab.data.image import to_float
from genlab.errors import DataError
from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision
from genlab.model.base import Classifies, ComparesCaptions, HasFeatures, Model
from genlab.model.elsewhere import FROM_ELSEWHERE


class ClassifierFeatures:
    """Features of images of the size that the model was trained on, and the logits of a classifier. Nothing is resized.

    Numbers with two models are not comparable, not even with two trainings of one; their fingerprints, which
    hash the weights, differ.
    """

    modality: Literal["image"] = "image"
    gives: frozenset[str] = frozenset({"features", "logits"})  # without logits, if it is not a classifier

    def __init__(
        self,
        model: Annotated[HasFeatures, FROM_ELSEWHERE],
    ):
        """Makes the networks of ``model``; the caller loads its weights afterwards."""
        assert isinstance(model, Model)
        model.configure_model()
        self.model = model.eval().requires_grad_(False)
        self.shape = tuple(model.shape)
        with torch.no_grad():
            width = model.features(torch.zeros(1, *self.shape)).shape[1]
        kind, scaled = _words(model)
        self.name = f"{kind}{width}"
        self.preprocessing = f"{type(model).__name__} of {self.shape}; no resize; to [-1, 1]; features {scaled}"
        if not isinstance(model, Classifies):
            self.gives = frozenset({"features"})

    def fingerprint(self) -> str:
        return network_fingerprint(self.model, self.preprocessing)

    def extract(self, examples: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """uint8 (N, *shape) -> ``features`` (N, D) and ``logits`` (N, K), float32, a pass for each that is wanted.

        Raises DataError for images of another shape.
        """
        if tuple(examples.shape[1:]) != self.shape:
            raise DataError(
                f"metrics.extractor was trained on images of shape {self.shape}, "
                f"got {tuple(examples.shape[1:])}. Name another run."
            )
        self.model.to(examples.device)
        with full_precision(examples.device):
            return {name: getattr(self.model, name)(to_float(examples)) for name in wanted}


def _words(model: Model) -> tuple[str, str]:
    """What a family is called in the names of numbers, and how its features are scaled."""
    if isinstance(model, Classifies):
        return "classifier", "standardised"
    if isinstance(model, ComparesCaptions):
        return "contrastive", "of mean square 1"
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(model).__name__).lower(), "of the encoder"
