"""Data as sequences of tokens for transformers: text, and images by pixels or by codes.

A sequence (N, P + L) begins with P tokens that are given (of text, the one before; of an image, its
condition: a token for its label, the words of its caption), and L tokens follow that the model predicts.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.model.base import Condition, GenerativeModel, HasTokens
from genlab.model.bits_per_dim import as_density, quantized
from genlab.model.condition import Conditions


class TokenView(Protocol):
    """Converts one kind of data to tokens and back."""

    key: ClassVar[str]  # of the data in batches
    open_ended: ClassVar[bool]  # a sample may be longer or shorter than an example, and begin with a prompt
    given_length: int  # P
    length: int  # L
    num_outputs: int  # tokens that can be predicted
    num_tokens: int  # these, and those that are only inputs

    def sequences(self, data: Tensor, condition: Condition | None) -> Tensor:
        """Data in the form of batches -> (N, P + L)."""
        ...

    def given(self, count: int, condition: Condition | None, device: torch.device) -> Tensor:
        """The tokens at the start of sequences, (N, P), for the condition or the empty one."""
        ...

    def beginning(self, count: int, condition: Condition | None, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The tokens (N, P) that samples begin with, and how many of each row are padding, (N,), if any. Raises
        ValueError for what the model does not know."""
        ...

    def data(self, tokens: Tensor) -> Tensor:
        """The predicted tokens (N, L) -> data."""
        ...

    def log_density(self, log_prob: Tensor, data: Tensor, sequences: Tensor) -> Tensor:
        """From nats of the tokens, (N,), to nats of the data."""
        ...


class TextTokens:
    """Text, whose batches have one token more than the model's context. Without a prompt it begins with
    ``start_token``."""

    key: ClassVar[str] = "tokens"
    open_ended: ClassVar[bool] = True

    def __init__(self, context: int, vocab_size: int, start_token: int | None):
        self.given_length, self.length, self.num_outputs, self.num_tokens = 1, context, vocab_size, vocab_size
        self.start_token = start_token or 0

    def sequences(self, data: Tensor, condition: Condition | None) -> Tensor:
        return data

    def given(self, count: int, condition: Condition | None, device: torch.device) -> Tensor:
        raise ValueError("text models take no condition but a prompt.")

    def beginning(self, count: int, condition: Condition | None, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """``prompt`` of the condition, (N, P), -1 before short ones."""
        prompt = None if condition is None else condition.get("prompt")
        if prompt is None or prompt.shape[1] == 0:
            return torch.full((count, 1), self.start_token, device=device), None
        prompt = prompt.to(device)
        padding = (prompt == -1).long().cumprod(dim=1).sum(dim=1).clamp(max=prompt.shape[1] - 1)
        check_tokens(prompt[torch.arange(prompt.shape[1], device=device) >= padding[:, None]], self.num_tokens)
        return prompt.clamp(min=0), padding if padding.any() else None

    def data(self, tokens: Tensor) -> Tensor:
        return tokens

    def log_density(self, log_prob: Tensor, data: Tensor, sequences: Tensor) -> Tensor:
        return log_prob


class GivenTokens:
    """Conditions of images as tokens, numbered after those that are predicted, one key after the other; a single token
    if there are none."""

    key: ClassVar[str] = "image"
    open_ended: ClassVar[bool] = False
    num_outputs: int

    def __init__(self, num_outputs: int, conditions: Conditions):
        self.num_outputs, self.conditions = num_outputs, conditions
        kinds = conditions.kinds.values()
        self.given_length = sum(kind.length for kind in kinds) or 1
        self.num_tokens = num_outputs + (sum(kind.num_tokens for kind in kinds) or 1)

    def given(self, count: int, condition: Condition | None, device: torch.device) -> Tensor:
        told = self.conditions.filled(condition, count, device)
        if told is None:
            return torch.full((count, 1), self.num_outputs, device=device)
        tokens, first = [], self.num_outputs
        for key, kind in self.conditions.kinds.items():
            tokens.append(first + kind.tokens(told[key]))
            first += kind.num_tokens
        return torch.cat(tokens, dim=1)

    def beginning(self, count: int, condition: Condition | None, device: torch.device) -> tuple[Tensor, Tensor | None]:
        self.conditions.check(condition)
        return self.given(count, condition, device), None


class PixelTokens(GivenTokens):
    """The 256 levels of each channel of each pixel, row by row, colors of a pixel side by side. Data: (N, C, H, W)."""

    LEVELS = 256

    def __init__(self, shape: Sequence[int], conditions: Conditions):
        super().__init__(self.LEVELS, conditions)
        self.shape, self.length = tuple(shape), math.prod(shape)

    def sequences(self, data: Tensor, condition: Condition | None) -> Tensor:
        pixels = ((data + 1) * 127.5).round().long().clamp(0, self.LEVELS - 1)
        return torch.cat([self.given(len(data), condition, data.device), pixels.permute(0, 2, 3, 1).flatten(1)], dim=1)

    def touched(self, places: Tensor) -> Tensor:
        """Places (N, 1, H, W) bool of images -> which tokens are of them, (N, L) bool."""
        return places.expand(-1, *self.shape).permute(0, 2, 3, 1).flatten(1)

    def data(self, tokens: Tensor) -> Tensor:
        channels, height, width = self.shape
        return tokens.view(-1, height, width, channels).permute(0, 3, 1, 2) / 127.5 - 1

    def log_density(self, log_prob: Tensor, data: Tensor, sequences: Tensor) -> Tensor:
        return as_density(log_prob, self.LEVELS, self.length)


class CodeTokens(GivenTokens):
    """The codes that a trained tokenizer gives images, row by row. Data: (N, C, H, W)."""

    def __init__(self, tokenizer: HasTokens, conditions: Conditions):
        super().__init__(tokenizer.num_codes, conditions)
        self.tokenizer, self.length = tokenizer, math.prod(tokenizer.token_shape)

    def sequences(self, data: Tensor, condition: Condition | None) -> Tensor:
        codes = self.tokenizer.tokenize(data).flatten(1)
        return torch.cat([self.given(len(data), condition, data.device), codes], dim=1)

    def touched(self, places: Tensor) -> Tensor:
        """Places (N, 1, H, W) bool of images -> which tokens stand for a patch with one of them, (N, L) bool."""
        rows, columns = self.tokenizer.token_shape
        return F.adaptive_max_pool2d(places.float(), (rows, columns)).flatten(1) > 0

    def data(self, tokens: Tensor) -> Tensor:
        return self.tokenizer.detokenize(tokens.view(-1, *self.tokenizer.token_shape))

    def log_density(self, log_prob: Tensor, data: Tensor, sequences: Tensor) -> Tensor:
        """Nats of the codes, and of the pixels given the codes: a bound, since other codes may lead to them too."""
        codes = sequences[:, self.given_length :].view(-1, *self.tokenizer.token_shape)
        return log_prob + self.tokenizer.log_likelihood_given(data, codes)


def check_tokens(tokens: Tensor, vocab_size: int) -> None:
    """Raises ValueError if one of them is not in the vocabulary."""
    unknown = tokens[(tokens < 0) | (tokens >= vocab_size)]
    if len(unknown):
        raise ValueError(f"token id {int(unknown[0])} is outside the vocabulary ({vocab_size}).")


def view_of(
    shape: Sequence[int],
    vocab_size: int | None,
    start_token: int | None,
    conditions: Conditions,
    tokenizer: HasTokens | None,
) -> TokenView:
    """Text if there is a vocabulary, codes if there is a tokenizer, else pixels. Raises ValueError: data that
    are neither; a tokenizer of images of another shape."""
    if vocab_size is not None:
        return TextTokens(shape[0], vocab_size, start_token)
    if len(shape) != 3:
        raise ValueError(f"data of shape {tuple(shape)} are neither text nor images (C, H, W). Use model=diffusion.")
    if tokenizer is None:
        return PixelTokens(shape, conditions)
    if tuple(tokenizer.shape) != tuple(shape):
        raise ValueError(
            f"model.tokenizer was trained on images of shape {tuple(tokenizer.shape)}, the data have {tuple(shape)}. "
            "Name another run, or change the data."
        )
    return CodeTokens(tokenizer, conditions)


def made(tokenizer: HasTokens | None) -> None:
    """Make a tokenizer's networks, frozen."""
    if tokenizer is None:
        return
    assert isinstance(tokenizer, GenerativeModel)
    tokenizer.configure_model()
    tokenizer.requires_grad_(False).eval()


def dequantized_to_batch(x: Tensor) -> Tensor:
    """Images as likelihoods get them, with noise or without, as batches hold them; tokens as they are."""
    return quantized(x) if x.is_floating_point() else x
