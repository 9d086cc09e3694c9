"""Data as sequences of tokens, which is how transformers see them: text as it is, images by pixels or by codes.

A sequence (N, 1 + L) begins with a token that is given (the text before; for an image, a stand-in for its label), and L
tokens follow that the model predicts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from genlab.model.base import Condition, GenerativeModel, HasTokens
from genlab.model.bits_per_dim import as_density, quantised
from genlab.model.spectral_norm import renew_singular_vectors


class TokenView(Protocol):
    """How one kind of data is read as tokens."""

    length: int  # L
    num_outputs: int  # tokens that can be predicted
    num_tokens: int  # these, and those that are only given

    def sequences(self, data: Tensor, condition: Condition | None) -> Tensor:
        """Data in the form of batches -> (N, 1 + L)."""
        ...

    def data(self, tokens: Tensor) -> Tensor:
        """The predicted tokens (N, L) -> data."""
        ...

    def log_density(self, log_prob: Tensor, data: Tensor, sequences: Tensor) -> Tensor:
        """From nats of the tokens, (N,), to nats of the data."""
        ...


class TextTokens:
    """Text, of which a batch holds one token more than the model sees at once."""

    def __init__(self, context: int, vocab_size: int):
        self.length, self.num_outputs, self.num_tokens = context, vocab_size, vocab_size

    def sequences(self, data: Tensor, condition: Condition | None) -> Tensor:
        return data

    def data(self, tokens: Tensor) -> Tensor:
        return tokens

    def log_density(self, log_prob: Tensor, data: Tensor, sequences: Tensor) -> Tensor:
        return log_prob


class PixelTokens:
    """The 256 levels of each channel of each pixel, row by row, colours of a pixel side by side. Data: (N, C, H, W)."""

    LEVELS = 256

    def __init__(self, shape: Sequence[int], num_classes: int | None):
        self.shape, self.length = tuple(shape), math.prod(shape)
        self.num_outputs, self.num_tokens = self.LEVELS, self.LEVELS + 1 + (num_classes or 0)

    def sequences(self, data: Tensor, condition: Condition | None) -> Tensor:
        pixels = ((data + 1) * 127.5).round().long().clamp(0, self.LEVELS - 1)
        return torch.cat(
            [first_tokens(self, len(data), condition, data.device), pixels.permute(0, 2, 3, 1).flatten(1)], 1
        )

    def data(self, tokens: Tensor) -> Tensor:
        channels, height, width = self.shape
        return tokens.view(-1, height, width, channels).permute(0, 3, 1, 2) / 127.5 - 1

    def log_density(self, log_prob: Tensor, data: Tensor, sequences: Tensor) -> Tensor:
        return as_density(log_prob, self.LEVELS, self.length)


class CodeTokens:
    """The codes that a trained tokeniser gives images, row by row. Data: (N, C, H, W)."""

    def __init__(self, tokenizer: HasTokens, num_classes: int | None):
        self.tokenizer = tokenizer
        self.length, self.num_outputs = math.prod(tokenizer.token_shape), tokenizer.num_codes
        self.num_tokens = self.num_outputs + 1 + (num_classes or 0)

    def sequences(self, data: Tensor, condition: Condition | None) -> Tensor:
        codes = self.tokenizer.tokenize(data).flatten(1)
        return torch.cat([first_tokens(self, len(data), condition, data.device), codes], dim=1)

    def data(self, tokens: Tensor) -> Tensor:
        return self.tokenizer.detokenize(tokens.view(-1, *self.tokenizer.token_shape))

    def log_density(self, log_prob: Tensor, data: Tensor, sequences: Tensor) -> Tensor:
        """Nats of the codes, and of the pixels given the codes: a bound, since other codes may lead to them too."""
        codes = sequences[:, 1:].view(-1, *self.tokenizer.token_shape)
        return log_prob + self.tokenizer.log_likelihood_given(data, codes)


def first_tokens(view: TokenView, count: int, condition: Condition | None, device: torch.device) -> Tensor:
    """(N, 1): the tokens that stand for labels come after those that are predicted, "no label" (-1) first."""
    if condition is None or view.num_tokens == view.num_outputs + 1:
        return torch.full((count, 1), view.num_outputs, device=device)
    return view.num_outputs + 1 + condition["label"][:, None].to(device)


def check_tokens(tokens: Tensor, vocab_size: int) -> None:
    """Raises ValueError if one of them is not in the vocabulary."""
    unknown = tokens[(tokens < 0) | (tokens >= vocab_size)]
    if len(unknown):
        raise ValueError(f"token id {int(unknown[0])} is outside the vocabulary ({vocab_size}).")


def view_of(
    shape: Sequence[int], vocab_size: int | None, num_classes: int | None, tokenizer: HasTokens | None
) -> TokenView:
    """Text if there is a vocabulary, codes if there is a tokeniser, else pixels. Raises ValueError: a tokeniser of
    images of another shape."""
    if vocab_size is not None:
        return TextTokens(shape[0], vocab_size)
    if tokenizer is None:
        return PixelTokens(shape, num_classes)
    if tuple(tokenizer.shape) != tuple(shape):
        raise ValueError(
            f"model.tokenizer was trained on images of shape {tuple(tokenizer.shape)}, the data have {tuple(shape)}. "
            "Name another run, or change the data."
        )
    return CodeTokens(tokenizer, num_classes)


def made(tokenizer: HasTokens | None, pretrained: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Make a tokeniser's networks, with the weights that another run gave them; they stay as they are."""
    if tokenizer is None:
        return
    assert isinstance(tokenizer, GenerativeModel)
    tokenizer.configure_model()
    if "tokenizer" in pretrained:
        tokenizer.load_state_dict(pretrained["tokenizer"])
        renew_singular_vectors(tokenizer)
    tokenizer.requires_grad_(False).eval()


def dequantised_to_batch(x: Tensor) -> Tensor:
    """Images as likelihoods get them, with noise or without, as batches hold them; tokens as they are."""
    return quantised(x) if x.is_floating_point() else x
