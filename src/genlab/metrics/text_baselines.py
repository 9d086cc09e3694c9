"""The rows that a score of text should be read beside: what texts score that took no model to write."""

import re

import numpy as np

from genlab.metrics.subject import Examples
from genlab.metrics.text_subject import TextSubject
from genlab.seeding import derive_seed

_SPACES = re.compile(r"(\s+)")


def text_baselines(subject: TextSubject, seed: int) -> dict[str, Examples]:
    """As many texts of each kind as samples, as long as these in tokens, by name; made from the training split.

    * ``random_tokens``: each token drawn by how often it occurs, whatever stands before it. What a model must beat.
    * ``shuffled_words``: training text with the words of each window in random order. The words of text without its
      order.
    * ``floor``: training text, windows spread evenly over it. Real text of other places: no model does better at
      diversity and at divergences; a model that minds its prompt does at overlap with the true continuation.
    """
    rngs = [np.random.default_rng(derive_seed(seed, kind)) for kind in range(2)]
    tokenizer = subject.data.tokenizer
    frequencies = np.bincount(subject.data.tokens("train"), minlength=tokenizer.vocab_size)
    shape = (subject.count, subject.length)
    drawn = rngs[0].choice(tokenizer.vocab_size, shape, p=frequencies / frequencies.sum())
    real = [tokenizer.decode(row) for row in subject.windows("train")[:, subject.prompt_length :].tolist()]
    texts = {
        "random_tokens": [tokenizer.decode(row) for row in drawn.tolist()],
        "shuffled_words": [shuffled(text, rngs[1]) for text in real],
        "floor": real,
    }
    return {name: Examples(made, length=subject.length) for name, made in texts.items()}


def shuffled(text: str, rng: np.random.Generator) -> str:
    """Its words change places, its spaces stay."""
    parts = _SPACES.split(text)  # words at even places
    words = parts[::2]
    parts[::2] = [words[i] for i in rng.permutation(len(words))]
    return "".join(parts)
