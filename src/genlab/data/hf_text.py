"""Text data sets in the formats of Hugging Face."""

from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from itertools import count, islice

import numpy as np

from genlab.data import hub
from genlab.data.array_cache import cached_array, digest
from genlab.data.base import Split
from genlab.data.held_out import is_held_out
from genlab.data.text import TextDataModule
from genlab.data.tokenizer.base import Tokenizer
from genlab.errors import ConfigError, DataError
from genlab.progress import progress


class HFText(TextDataModule):
    """A data set of the Hugging Face Hub, or a folder of parquet, JSON lines or another of its formats. Each row is a
    document.

    It is streamed into the cache once; later runs need no network. The tokens are kept in shards of a fixed number of
    rows, so a stopped preparation continues with the first missing shard, and both parts of a split come from
    the same shards. The cache follows the commit of the data set, or the files of the folder.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        name: str,  # at the Hub, like roneneldan/TinyStories; or a folder
        config: str | None = None,  # of a data set that has several
        split: str = "train",  # to train on
        val_split: str | None = None,  # the held-out text, e.g. validation; null: a part of split, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1): held out by the hash of the row's number
        text_column: str = "text",
        revision: str | None = None,  # branch, tag or commit at the Hub; null: the newest
        train_documents: int | None = 100_000,  # the first ones, that the tokenizer learns from; null: all
        shard_rows: int = 10_000,
        context: int = 64,  # tokens that the model sees at once
        cache_dir: str | None = None,  # null: $GENLAB_CACHE, else ~/.cache/genlab
        batch_size: int = 32,  # windows in a step, over all ranks together
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,  # of the order of the windows, and of where they are cut
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(tokenizer, context, cache_dir, batch_size, num_workers, limit, seed)
        if not 0 < val_fraction < 1:
            raise ConfigError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}.")
        for option, value in (("train_documents", train_documents), ("shard_rows", shard_rows)):
            if value is not None and value < 1:
                raise ConfigError(f"data.{option} must be a whole number >= 1, got {value}.")
        self.data_set, self.config, self.split, self.val_split = name, config, split, val_split
        self.val_fraction, self.text_column, self.revision = val_fraction, text_column, revision
        self.learn_from, self.shard_rows = train_documents, shard_rows

    def documents(self, split: Split) -> Iterable[str]:
        """Streams them. Raises DataError: there is no such data set, split or column, or a row has no text."""
        return (text for row, text in enumerate(self._texts(self._source(split), 0)) if self._is_of(split, row))

    def text_hash(self, split: Split) -> str:
        """A hash of the version of the data set, and of the chosen rows."""
        part = None if self.val_split is not None else (split, self.val_fraction)
        return digest(1, self._rows_key(self._source(split)), part)

    def title(self, split: Split) -> str:
        return f"{super().title(split)} of {self.data_set}"

    def encoded(self, split: Split) -> Iterator[np.ndarray]:
        """The tokens of each document of a split, from the shards."""
        with progress(f"tokenizing {self.data_set} ({self._source(split)})", None) as advance:
            for row, tokens in enumerate(self._encoded_rows(self._source(split))):
                if self._is_of(split, row):
                    yield tokens
                advance(1)

    def _encoded_rows(self, source: str) -> Iterator[np.ndarray]:
        """The tokens of each row of a split of the data set, from existing shards, then from the stream."""
        key = digest(1, self._rows_key(source), self.tokenizer.fingerprint(), self.shard_rows)
        texts: Iterator[str] = iter(())
        position = -1  # the row that comes next from texts

        def blocks(start: int) -> Iterator[np.ndarray]:
            """Each row as its length, then its tokens."""
            nonlocal texts, position
            if position != start:
                texts = self._texts(source, start)
            yield np.zeros(0, np.uint32)
            for text in islice(texts, self.shard_rows):
                tokens = self.encode(text)
                yield np.insert(tokens, 0, len(tokens)).astype(np.uint32)
            position = start + self.shard_rows

        for start in count(0, self.shard_rows):
            shard = cached_array(self.cache, f"shard-{key}-{start:09d}", partial(blocks, start))
            rows = list(_cut(shard))
            yield from rows
            if len(rows) < self.shard_rows:
                return

    def _texts(self, source: str, start: int) -> Iterator[str]:
        """The text of each row of a split of the data set, from row ``start`` on."""
        stream = hub.open_stream(self.data_set, self.config, source, self._version)
        for number, row in enumerate(hub.read(stream, self.data_set, source, start), start):
            if self.text_column not in row:
                raise DataError(
                    f"the data set {self.data_set} has no column {self.text_column} (it has: {', '.join(row)}). "
                    "Set data.text_column."
                )
            text = row[self.text_column]
            if not isinstance(text, str):
                raise DataError(f"row {number} of {self.data_set} ({source}) has no text in {self.text_column}.")
            yield text

    @cached_property
    def _version(self) -> str:
        """The version of both splits, fixed at the first call."""
        hub.require_datasets("hf_text", "text")
        return hub.version(self.data_set, self.revision, self.cache)

    def _source(self, split: Split) -> str:
        return self.val_split if split == "val" and self.val_split is not None else self.split

    def _is_of(self, split: Split, row: int) -> bool:
        if self.val_split is not None:
            return True
        return bool(is_held_out(np.array([row]), self.val_fraction)[0]) == (split == "val")

    def _rows_key(self, source: str) -> str:
        return digest(1, self.data_set, self._version, self.config, source, self.text_column)


def _cut(shard: np.ndarray) -> Iterator[np.ndarray]:
    """Split a shard, stored as lengths and tokens, into documents."""
    position = 0
    while position < len(shard):
        length = int(shard[position])
        yield shard[position + 1 : position + 1 + length]
        position += 1 + length
