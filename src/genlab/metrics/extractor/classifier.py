"""The features and logits of a classifier that was trained with genlab: ``metrics.extractor=<folder of its run>``."""

from typing import Annotated, Literal

import torch
from torch import Tensor

from genlab.data.image import to_float
from genlab.errors import DataError
from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision
from genlab.model.base import Classifies, Model
from genlab.model.elsewhere import FROM_ELSEWHERE


class ClassifierFeatures:
    """Features of images of the size that the classifier was trained on. Nothing is resized.

    Numbers with two classifiers are not comparable, not even with two trainings of one; their fingerprints, which
    hash the weights, differ.
    """

    modality: Literal["image"] = "image"
    gives = frozenset({"features", "logits"})

    def __init__(
        self,
        model: Annotated[Classifies, FROM_ELSEWHERE],
    ):
        """Makes the networks of ``model``; the caller loads its weights afterwards."""
        assert isinstance(model, Model)
        model.configure_model()
        self.model = model.eval().requires_grad_(False)
        self.shape = tuple(model.shape)
        with torch.no_grad():
            width = model.features(torch.zeros(1, *self.shape)).shape[1]
        self.name = f"classifier{width}"
        self.preprocessing = f"{type(model).__name__} of {self.shape}; no resize; to [-1, 1]; features standardised"

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
        given = {"features": self.model.features, "logits": self.model.logits}
        with full_precision(examples.device):
            return {name: given[name](to_float(examples)) for name in wanted}
