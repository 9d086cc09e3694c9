"""Ratings as data: texts, or answers to prompts, that people have given a number."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from genlab.data.base import KeyedDataset, Split
from genlab.data.conversation_data import text_reader
from genlab.data.conversations import Conversations
from genlab.data.rated import Rated, RatingColumns
from genlab.data.sampler import Keys
from genlab.data.tokenizer.base import Tokenizer
from genlab.errors import ConfigError, DataError

_MOST_LEFT_OUT = 0.5  # share of texts
_STEP = 16  # batches are as long as their longest text, in steps of so many tokens: few shapes
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedRating:
    tokens: np.ndarray  # (L,), at most ``context``
    counted: np.ndarray  # (L,) bool: those of the text, with the token that ends it
    target: float  # the rating, with the lowest at -1 and the highest at 1
    rated: Rated


class Ratings(Conversations):
    """Rows of ``completion`` and ``rating``, and ``prompt`` where there is one, as ``genlab feedback`` exports them.
    Held out are the rows of another file, or those whose group, prompt or, without either, text has a hash below
    ``val_fraction``.

    As conversations, for a tokenizer, the data are the prompts with their texts.
    """

    judged = "ratings"

    def __init__(
        self,
        tokenizer: Tokenizer,
        path: str,  # of JSON lines; or hf: and the name of a data set at the Hub, or a folder of one
        val_path: str | None = None,  # the held-out rows, likewise; null: a part of path, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1)
        prompt: str = "prompt",  # the column of what is answered, where there is one
        text: str = "completion",  # the column of texts
        rating: str = "rating",  # the column of ratings: a number, or a list of what several people said
        group: str | None = None,  # the column of what is held out together, such as a document
        lowest: float = 1.0,  # the scale of ratings
        highest: float = 5.0,
        config: str | None = None,  # of a data set at the Hub that has several
        split: str = "train",  # of a data set at the Hub
        val_split: str | None = None,  # its held-out rows; null: see val_path
        revision: str | None = None,  # branch, tag or commit at the Hub; null: the newest
        template: str | None = None,
        context: int = 256,
        cache_dir: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(
            tokenizer,
            path,
            val_path,
            val_fraction,
            config=config,
            split=split,
            val_split=val_split,
            revision=revision,
            template=template,
            packing=False,
            context=context,
            cache_dir=cache_dir,
            batch_size=batch_size,
            num_workers=num_workers,
            limit=limit,
            seed=seed,
        )
        if not lowest < highest:
            raise ConfigError(f"data.lowest={lowest:g} must be below data.highest={highest:g}.")
        self.lowest, self.highest = float(lowest), float(highest)
        self.columns = RatingColumns(prompt, text, None, rating, group, (self.lowest, self.highest))
        self._encoded_ratings: dict[Split, list[EncodedRating]] = {}

    @property
    def unit(self) -> str:
        return "rated texts"

    def target(self, rating: float) -> float:
        """Where it is on the scale, from -1 to 1."""
        return 2 * (rating - self.lowest) / (self.highest - self.lowest) - 1

    def documents(self, split: Split) -> Iterator[str]:
        reader = text_reader(self.template)
        return (reader.plain(one.messages, one.where) for one in self.known(split))

    def encoded_ratings(self, split: Split) -> list[EncodedRating]:
        """Those of which something counts in ``context`` tokens. Raises DataError: most are none."""
        if split not in self._encoded_ratings:
            self._encoded_ratings[split] = self._fitting_ratings(split)
        return self._encoded_ratings[split]

    def _fitting_ratings(self, split: Split) -> list[EncodedRating]:
        whole, known = self.sequences(split), cast(Sequence[Rated], self.known(split))
        all_of_them = [
            EncodedRating(tokens[: self.context], counted[: self.context], self.target(one.rating), one)
            for (tokens, counted), one in zip(whole, known, strict=True)
        ]
        kept = [one for one in all_of_them if one.counted.any()]
        lost, longest = len(all_of_them) - len(kept), max(len(tokens) for tokens, _ in whole)
        if lost > _MOST_LEFT_OUT * len(all_of_them):
            raise DataError(
                f"{lost:,} of the {len(all_of_them):,} texts of {self.title(split)} begin beyond data.context="
                f"{self.context} tokens. Use data.context={longest}."
            )
        cut = sum(len(tokens) > self.context for tokens, _ in whole)
        if cut and os.environ.get("LOCAL_RANK", "0") == "0":
            _log.warning(
                f"{cut:,} of the {len(whole):,} texts of {self.title(split)} end beyond data.context={self.context} "
                f"tokens, the longest at {longest:,}: they are cut. {lost:,} that begin beyond are left out."
            )
        return kept

    def fitting(self, split: Split) -> tuple[list[np.ndarray], list[np.ndarray]]:
        encoded = self.encoded_ratings(split)
        return [one.tokens for one in encoded], [one.counted for one in encoded]

    def dataset(self, split: Split) -> KeyedDataset:
        encoded = self.encoded_ratings(split)
        return RatedTexts(encoded[: self.limit] if split == "train" else encoded, self.context)


class RatedTexts(KeyedDataset):
    """Rated texts by (epoch, index) keys.

    A batch has ``tokens`` (N, T) int64, T at most ``context``, filled up with 0 after their end; ``last`` (N,), the
    place of the last token that counts; and ``rating`` (N,) float32, from -1 to 1.
    """

    def __init__(self, encoded: Sequence[EncodedRating], context: int):
        self.encoded, self.context = encoded, context

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        chosen = [index for _, index in keys]
        found = [self.encoded[i] for i in chosen]
        longest = max(len(one.tokens) for one in found)
        tokens = np.zeros((len(found), min(self.context, -(-longest // _STEP) * _STEP)), np.int64)
        for row, one in zip(tokens, found, strict=True):
            row[: len(one.tokens)] = one.tokens
        return {
            "tokens": torch.from_numpy(tokens),
            "last": torch.tensor([int(np.flatnonzero(one.counted)[-1]) for one in found]),
            "rating": torch.tensor([one.target for one in found], dtype=torch.float32),
            "index": torch.tensor(chosen),
        }
