"""Text continuation: windows of held-out text, and a model's samples after the same prompts."""

import copy
import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch

from genlab.data.base import DataModule, DataSpec, Split
from genlab.data.text import TextDataModule
from genlab.data.tokenizer.base import CaptionTokenizer, Tokenizer
from genlab.errors import ConfigError, DataError
from genlab.machine.rank import rank
from genlab.model.base import GenerativeModel, WritesText
from genlab.progress import progress
from genlab.sampling.draw import draws
from genlab.sampling.examples import Examples
from genlab.sampling.texts import Texts
from genlab.seeding import derive_seed
from genlab.task.text_baselines import shuffled, unigrams

_log = logging.getLogger(__name__)


class ContinueText:
    """Text of a split. Sample i continues the prompt of window i of ``count``, which are spread evenly over the
    split; reference i is the true continuation, with as many tokens as a sample.

    So the reference depends on the model only by the length of its samples. Both sides may be cut in the
    middle of a word or of a character (U+FFFD), and may run across the end of a document.
    """

    key: ClassVar[str] = "text"
    suited: ClassVar[str] = "metrics=[perplexity]"
    of_samples: ClassVar[str] = "metrics=[distinct]"
    data: TextDataModule
    split: Split

    def __init__(self, prompt_length: int = 0):
        """``prompt_length``: tokens of held-out text that a sample continues; 0: no prompt. Raises ConfigError if
        it is below 0."""
        if prompt_length < 0:
            raise ConfigError(f"task.prompt_length={prompt_length} must be a whole number >= 0.")
        self.prompt_length = prompt_length
        self.count = self.length = 0  # windows, and tokens after the prompt of each

    def form(self, spec: Mapping[str, Any], tokenizer: CaptionTokenizer | None) -> Texts:
        assert tokenizer is not None, "text has one"
        return Texts(cast(Tokenizer, tokenizer))

    def check(self, spec: DataSpec) -> None:
        """Raises ConfigError: the data are not text."""
        if spec.modality != "text":
            raise ConfigError(f"task=continue_text is for text; the data are {spec.modality}. Leave task= out.")

    def on(self, data: DataModule, split: Split) -> Self:
        self.check(data.spec)
        bound = copy.copy(self)
        bound.data, bound.split = data, split  # type: ignore[assignment]
        return bound

    def gives(self, model: GenerativeModel) -> frozenset[str]:
        return frozenset({self.key})

    def sized(self, count: int, of: GenerativeModel | Examples) -> Self:
        """Raises ConfigError: the model writes no text, or the prompt is longer than it sees; DataError: the split is
        shorter than one window."""
        if self.prompt_length > self.data.context:
            raise ConfigError(
                f"task.prompt_length={self.prompt_length} must be at most data.context={self.data.context}."
            )
        sized = copy.copy(self)
        if isinstance(of, Examples):
            assert of.length is not None, "texts to be measured say how many tokens they have"
            sized.count, sized.length = count, of.length
        elif isinstance(of, WritesText):
            sized.count, sized.length = count, of.continuation_length(self.prompt_length)
        else:
            raise ConfigError(f"{type(of).__name__} does not generate text. Use metrics that measure the model.")
        sized._check_room()
        return sized

    def reference(self) -> Examples:
        return Examples.of(self.length, text=self._after_prompts(self.windows(self.split)))

    def _after_prompts(self, windows: np.ndarray) -> list[str]:
        """The texts of windows (N, prompt_length + length) without their prompts."""
        place, rows = self.prompt_length, windows.tolist()
        return [self.data.tokenizer.decode(row[place:], row[place - 1] if place else None) for row in rows]

    def reference_hash(self) -> str:
        """A hash of the text, and of the positions of its windows."""
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

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> dict[str, torch.Tensor] | None:
        """The prompts of windows of these numbers; None: no prompts."""
        if not self.prompt_length or not self.count:
            return None
        prompts = self.windows(self.split)[list(indices), : self.prompt_length]
        return {"prompt": torch.from_numpy(prompts.astype(np.int64))}

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        """Texts without their prompts."""
        asked, form = self.asked(model, indices), Texts(self.data.tokenizer)
        texts: list[str] = []
        with progress(f"drawing {len(indices):,} samples", len(indices), quiet=rank() != 0) as advance:
            for tokens in draws(model, indices, asked, seed, batch_size):
                assert tokens.shape[1] == self.length, "as many as the model said"
                texts += form.content(tokens)
                advance(len(tokens))
        return Examples.of(self.length, text=texts)

    def check_examples(self, examples: Examples) -> None:
        assert examples.length == self.length

    def baselines(self, count: int, seed: int) -> dict[str, Examples]:
        """As many texts of each kind as samples, as long as these in tokens; made from the training split.

        * ``random_tokens``: each token drawn independently by its frequency. What a model must beat.
        * ``shuffled_words``: training text with the words of each window in random order. The words of text without its
          order.
        * ``floor``: training text, windows spread evenly over it. Real text of other places: no model does better at
          diversity and at divergences; a model that minds its prompt does at overlap with the true continuation.
        """
        assert count == self.count
        rngs = [np.random.default_rng(derive_seed(seed, kind)) for kind in range(2)]
        tokenizer = self.data.tokenizer
        drawn = unigrams(self.data, (self.count, self.length), rngs[0])
        real = self._after_prompts(self.windows("train"))
        texts = {
            "random_tokens": [tokenizer.decode(row) for row in drawn.tolist()],
            "shuffled_words": [shuffled(text, rngs[1]) for text in real],
            "floor": real,
        }
        return {name: Examples.of(self.length, text=made) for name, made in texts.items()}

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
