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
    """What a trained classifier sees in images of the size that it was trained on. Nothing is resized.

    Numbers of two classifiers do not compare, not even of two trainings of one: the fingerprint, which is of the
    weights, says so.
    """

    modality: Literal["image"] = "image"
    gives = frozenset({"features", "logits"})

    def __init__(
        self,
        model: Annotated[Classifies, FROM_ELSEWHERE],
    ):
        """The networks of ``model`` are made; who has its weights loads them then."""
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
