"""Baseline texts made without a model."""

import re

import numpy as np

from genlab.data.text import TextDataModule

_SPACES = re.compile(r"(\s+)")


def unigrams(data: TextDataModule, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Tokens drawn independently by their frequency in the training text."""
    size = data.tokenizer.vocab_size
    frequencies = np.bincount(data.tokens("train"), minlength=size)
    return rng.choice(size, shape, p=frequencies / frequencies.sum())


def shuffled(text: str, rng: np.random.Generator) -> str:
    """The text with its words shuffled and its spaces kept."""
    parts = _SPACES.split(text)  # words at even places
    words = parts[::2]
    parts[::2] = [words[i] for i in rng.permutation(len(words))]
    return "".join(parts)
