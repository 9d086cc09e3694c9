"""Answers of a model to conversations, each ended by the token that ends answers."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from genlab.errors import ConfigError
from genlab.model.base import Generates, GenerativeModel
from genlab.model.float32 import exact_float32
from genlab.seeding import RandomStream


def check_answers(model: GenerativeModel, name: str) -> None:
    """Raises ConfigError: the model does not write text token by token. ``name``: what needs it, as typed."""
    if not isinstance(model, Generates) or "tokens" not in type(model).kinds:
        raise ConfigError(f"{name}: {type(model).__name__} does not answer. Use model=transformer.")


def answers(
    model: GenerativeModel,
    prompts: Sequence[np.ndarray],  # (L,) tokens of each
    indices: Sequence[int],  # the numbers of the samples
    seed: int,
    end: int,  # the token that ends an answer
    batch_size: int,
) -> Iterator[list[list[int]]]:
    """The tokens of answers to prompts, without the end, batch by batch, in order. Answer i is a function of (seed,
    number i) for any batches. One that does not end within ``model.sample_length`` tokens is cut there."""
    assert isinstance(model, Generates)
    for start in range(0, len(prompts), batch_size):
        some = prompts[start : start + batch_size]
        stream = RandomStream.for_samples(seed, list(indices[start : start + batch_size]), model.device)
        with exact_float32(model.device):
            yield _until_all_end(model.generate({"prompt": padded(some).to(model.device)}, stream), len(some), end)


def padded(prompts: Sequence[np.ndarray]) -> Tensor:
    """(N, P) int64: -1 before those that are shorter than the longest."""
    longest = max(len(prompt) for prompt in prompts)
    rows = torch.full((len(prompts), longest), -1)
    for row, prompt in zip(rows, prompts, strict=True):
        row[longest - len(prompt) :] = torch.from_numpy(prompt)
    return rows


def _until_all_end(tokens: Iterator[Tensor], rows: int, end: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(rows)]
    ended = [False] * rows
    for step in tokens:
        for row, token in enumerate(step.tolist()):
            ended[row] = ended[row] or token == end
            if not ended[row]:
                found[row].append(token)
        if all(ended):
            break
    return found
