"""A model of images and captions that was trained with genlab, as the CLIP of a metric."""

import json
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from genlab.data.base import DataSpec
from genlab.data.captions import Coder
from genlab.data.image import to_float
from genlab.data.tokenizer.words import Words
from genlab.errors import ConfigError, DataError
from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision
from genlab.model.base import ComparesCaptions, Model


class TrainedCLIP:
    """Vectors of images of the size that it was trained on, of which nothing is resized, and of captions of its words.

    Two trainings of one model are two judges: their fingerprints, which hash the weights and the words, differ.
    """

    def __init__(self, model: ComparesCaptions, option: str):
        """Makes the networks of ``model``; the caller loads its weights afterwards. ``option``: that names it, for
        messages."""
        assert isinstance(model, Model)
        model.configure_model()
        self.network = model.eval().requires_grad_(False)
        self.shape, self.caption, self.option = tuple(model.shape), model.caption, option
        if self.caption.tokenized and self.caption.names:  # the words are all that their tokenizer has learned
            tokenizer = Words()
            tokenizer.load_state(json.dumps({"words": list(self.caption.names[1:])}))
            self.caption.use(Coder(tokenizer, self.caption.length))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that its outputs depend on. Only once the weights are there."""
        preprocessing = f"{type(self.network).__name__} of {self.shape}; no resize; to [-1, 1]"
        return network_fingerprint(self.network, preprocessing, " ".join(self.caption.names), str(self.caption.length))

    def check(self, spec: DataSpec, captions: bool) -> None:
        """Raises ConfigError: the data have images of another shape or, where their ``captions`` are read, words that
        it does not know or longer captions."""
        if tuple(spec.shape) != self.shape:
            raise ConfigError(
                f"{self.option} was trained on images of shape {self.shape}, the data have {tuple(spec.shape)}. "
                "Name another run, or change the data."
            )
        theirs = spec.condition.get("caption")
        if not captions or theirs is None:
            return
        if not self.caption.names or not theirs.names:
            raise ConfigError(
                f"{self.option}: only captions of words can be judged, since a run of contrastive_text keeps no other "
                "tokenizer. Leave it out of metrics=[...], or train both runs with data/tokenizer=words."
            )
        if strange := [word for word in theirs.names[1:] if word not in self.caption.names[1:]]:
            raise ConfigError(
                f"{self.option} was trained on captions of other words: it does not know '{strange[0]}'"
                f"{f' and {len(strange) - 1:,} more' if len(strange) > 1 else ''} of the data's. Name a run of "
                "contrastive_text on data with these captions."
            )
        if (theirs.length or 0) > self.caption.length:
            raise ConfigError(
                f"{self.option} was trained on captions of at most {self.caption.length} words, and the data's have up "
                f"to {theirs.length}. Name a run of contrastive_text on data with captions as long."
            )

    def images(self, images: Tensor) -> Tensor:
        """uint8 (N, *shape) -> unit vectors (N, D) float32. Raises DataError for images of another shape."""
        if tuple(images.shape[1:]) != self.shape:
            raise DataError(
                f"{self.option} was trained on images of shape {self.shape}, got {tuple(images.shape[1:])}. "
                "Name another run."
            )
        self.network.to(images.device)
        with full_precision(images.device):
            return self.network.embed_images(to_float(images))  # type: ignore[operator, no-any-return]

    def texts(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """-> unit vectors (N, D) float32. Raises DataError, with a remedy: a word is not known, or there are too
        many."""
        self.network.to(device)
        rows = []
        for text in texts:
            try:
                rows.append(self.caption.read(text))
            except ValueError as error:
                raise DataError(f"{self.option} cannot read '{text}': {error}") from error
        with full_precision(device):
            return self.network.embed_captions(torch.cat(rows).to(device))  # type: ignore[operator, no-any-return]
