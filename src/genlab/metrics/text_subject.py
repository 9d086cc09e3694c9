"""Texts, for an evaluation: windows of held-out text, and what a model writes after the same beginnings."""

import functools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from genlab.data.base import Split
from genlab.data.text import TextDataModule
from genlab.errors import ConfigError, DataError
from genlab.machine.rank import rank
from genlab.metrics.subject import Examples
from genlab.model.base import GenerativeModel, WritesText
from genlab.progress import progress
from genlab.seeding import RandomStream

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextSubject:
    """Text of a split. Sample i goes on from the prompt of window i of ``count``, which are spread evenly over the
    split; reference i is how the text itself goes on there, for as many tokens as a sample has.

    So the reference depends on the model by the length of its samples alone. Both sides end where they are cut, in the
    middle of a word or of a character (U+FFFD), and may run across the end of a document.
    """

    data: TextDataModule
    split: Split
    prompt_length: int = 0  # tokens; 0: the model begins with its start token
    count: int = 0  # windows
    length: int = 0  # tokens after the prompt

    key: ClassVar[str] = "text"

    def sized(self, count: int, of: GenerativeModel | Examples) -> "TextSubject":
        """Raises ConfigError: the model writes no text, or the prompt is longer than it sees; DataError: the split is
        shorter than one window."""
        if self.prompt_length > self.data.context:
            raise ConfigError(
                f"evaluation.prompt_length={self.prompt_length} must be at most data.context={self.data.context}."
            )
        if isinstance(of, Examples):
            assert of.length is not None, "texts to be measured say how many tokens they have"
            sized = replace(self, count=count, length=of.length)
        elif isinstance(of, WritesText):
            sized = replace(self, count=count, length=of.continuation_length(self.prompt_length))
        else:
            raise ConfigError(f"{type(of).__name__} writes no text. Use metrics that ask the model.")
        sized._check_room()
        return sized

    def reference(self) -> Examples:
        tokens = self.windows(self.split)[:, self.prompt_length :]
        return Examples([self.data.tokenizer.decode(row) for row in tokens.tolist()], length=self.length)

    def reference_hash(self) -> str:
        """Of the text, and of where it is cut."""
        places = f"{self.prompt_length}-{self.count}-{self.length}"
        return f"{self.data.text_hash(self.split)[:16]}-{self.data.tokenizer.fingerprint()}-{places}"

    def facts(self) -> dict[str, Any]:
        cut = {"prompt_length": self.prompt_length, "sample_length": self.length, "num_windows": self.count}
        return {
            "reference": self.split,
            "reference_sha256": self.data.text_hash(self.split)[:16],
            "tokenizer": self.data.tokenizer.fingerprint(),
            "vocab_size": self.data.tokenizer.vocab_size,
            "context": self.data.context,
            **(cut if self.count else {}),
        }

    def condition_facts(self, keys: Iterable[str]) -> dict[str, str]:
        return {}

    def asked_facts(self, model: GenerativeModel) -> dict[str, Any]:
        return {}

    def labels(self, indices: Sequence[int]) -> None:
        """Text has none."""

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> None:
        """Text has none."""

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        """Texts without their prompts."""
        prompts = torch.from_numpy(self.windows(self.split)[indices, : self.prompt_length].astype(np.int64))
        texts: list[str] = []
        with progress(f"drawing {len(indices):,} samples", len(indices), quiet=rank() != 0) as advance:
            for start in range(0, len(indices), batch_size):
                batch = slice(start, start + batch_size)
                stream = RandomStream.for_samples(seed, indices[batch], model.device)
                condition = {"prompt": prompts[batch].to(model.device)} if self.prompt_length else None
                tokens = model.sample(len(stream), condition, stream).cpu()
                assert tokens.shape[1] == self.length, "as many as the model said"
                texts += [self.data.tokenizer.decode(row) for row in tokens.tolist()]
                advance(len(stream))
        return Examples(texts, length=self.length)

    def check(self, examples: Examples) -> None:
        assert examples.length == self.length

    def windows(self, split: Split) -> np.ndarray:
        """(count, prompt_length + length) tokens of a split, the first window at its beginning, the last at its end."""
        tokens, size = self.data.tokens(split), self.prompt_length + self.length
        starts = np.linspace(0, len(tokens) - size, self.count).round().astype(np.int64)
        return tokens[starts[:, None] + np.arange(size)]

    def _check_room(self) -> None:
        """Raises DataError if not one window fits into the split; warns if they overlap."""
        size, there = self.prompt_length + self.length, len(self.data.tokens(self.split))
        if size > there:
            raise DataError(
                f"{self.data.title(self.split)} has {there} tokens; a prompt and a sample of the model have "
                f"{self.prompt_length} + {self.length}. Let samples be shorter: model.sample_length=..."
            )
        if size * self.count > there:
            _warn_once(
                f"{self.count} windows of {size} tokens overlap in {self.data.title(self.split)}, which has {there}: "
                "references repeat each other. Fewer samples (evaluation.num_samples, callbacks.evaluation.num_samples)"
                " or shorter ones do not."
            )


@functools.cache
def _warn_once(message: str) -> None:
    if rank() == 0:
        _log.warning(message)
