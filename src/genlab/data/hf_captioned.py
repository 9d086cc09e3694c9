"""Images with captions in the formats of Hugging Face."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from genlab.data import hub
from genlab.data.array_cache import cached_array, cached_rows, digest
from genlab.data.base import Split
from genlab.data.caption_files import written
from genlab.data.captioned import CaptionedImages
from genlab.data.decode import DECODER, Channels
from genlab.data.decoding import in_parallel
from genlab.data.held_out import cached_part, rows_of
from genlab.data.hf_images import check_columns, decoded
from genlab.data.image import ImageTable
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datasets import IterableDataset


class HFCaptioned(CaptionedImages):
    """A data set of the Hugging Face Hub, or a folder of parquet files or another of its formats: (channels, S, S).

    A row has an image and a text, or a list of texts: several captions. It is streamed once into the cache, as
    :class:`genlab.data.hf_images.HFImages` does; later runs need no network.
    """

    def __init__(
        self,
        tokenizer: CaptionTokenizer,
        name: str,  # at the Hub, like owner/name; or a folder
        config: str | None = None,  # of a data set that has several
        split: str = "train",  # to train on
        val_split: str | None = None,  # the held-out images, e.g. test; null: a fixed part of split, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1): held out by the hash of the row's number
        image_column: str = "image",
        text_column: str = "text",
        revision: str | None = None,  # branch, tag or commit at the Hub; null: the newest
        image_size: int = 64,  # pixels
        channels: Channels = 3,  # 3: RGB, 1: gray
        caption_length: int = 64,  # tokens of a caption, at most; what is cut is reported
        cache_dir: str | None = None,  # null: $GENLAB_CACHE, else ~/.cache/genlab
        batch_size: int = 128,  # examples in a step, over all ranks together
        flip: bool = False,  # mirror training images, half of the time; not for captions that say left and right
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,  # of the order of the data, of the flips, and of the choice among several captions
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(tokenizer, caption_length, cache_dir, batch_size, flip, num_workers, limit, seed)
        if not 0 < val_fraction < 1:
            raise ConfigError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}.")
        if image_size < 1:
            raise ConfigError(f"data.image_size must be a whole number >= 1, got {image_size}.")
        self.data_set, self.config, self.split, self.val_split = name, config, split, val_split
        self.val_fraction, self.image_column, self.text_column = val_fraction, image_column, text_column
        self.revision, self.image_size, self.channels = revision, image_size, channels
        self._sources: dict[str, tuple[np.ndarray, list[tuple[str, ...]]]] = {}

    def pictures(self, split: Split) -> ImageTable:
        """Raises ConfigError: the package datasets is not installed; DataError: there is no such data set, split or
        column, it cannot be reached, or a row is invalid; StorageError for the cache."""
        images, _ = self._source(split)
        if self.val_split is not None:
            return ImageTable(images)
        key = f"{self._key(self.split)}-{split}-{self.val_fraction}"
        return ImageTable(cached_part(images, self._part(split), self.cache, key))

    def texts(self, split: Split) -> Sequence[Sequence[str]]:
        _, texts = self._source(split)
        return texts if self.val_split is not None else [texts[row] for row in self._part(split).tolist()]

    def title(self, split: Split) -> str:
        return f"{super().title(split)} of {self.data_set}"

    def _part(self, split: Split) -> np.ndarray:
        count = len(self._source(split)[0])
        return rows_of(split, count, self.val_fraction, f"{self.data_set} ({self.split})")

    def _source(self, split: Split) -> tuple[np.ndarray, list[tuple[str, ...]]]:
        """All images and captions of the split of the data set that a split here is taken from."""
        source = self.val_split if split == "val" and self.val_split is not None else self.split
        if source not in self._sources:
            key = self._key(source)
            images, _ = cached_rows(self.cache, key, lambda: self._rows(source))
            kept = cached_array(self.cache, f"{key}-captions", lambda: self._captions_alone(source))
            self._sources[source] = images, [tuple(texts) for texts in json.loads(kept.tobytes())]
        return self._sources[source]

    @cached_property
    def _version(self) -> str:
        """The version of both splits, fixed at the first call."""
        hub.require_datasets("hf_captioned", "hf")
        return hub.version(self.data_set, self.revision, self.cache)

    def _key(self, source: str) -> str:
        form = DECODER, self.image_column, self.text_column, self.image_size, self.channels
        return f"hf-captioned-{digest(1, self.data_set, self._version, self.config, source, form)}"

    def _rows(self, source: str) -> Iterator[np.ndarray]:
        """The pixels of each image, (C, S, S) uint8. Its captions are kept in the cache when all have been read."""
        rows = enumerate(hub.read(self._stream(source), self.data_set, source))
        captions = []
        for pixels, texts in in_parallel(rows, self._row, f"streaming {self.data_set} ({source})", None):
            captions.append(texts)
            yield pixels
        cached_array(self.cache, f"{self._key(source)}-captions", lambda: [_packed(captions)])

    def _captions_alone(self, source: str) -> Iterator[np.ndarray]:
        """The captions alone, where their entry of the cache is gone."""
        rows = enumerate(hub.read(self._stream(source), self.data_set, source))
        yield _packed([self._texts_of(number, row) for number, row in rows])

    def _stream(self, source: str) -> "IterableDataset":
        from datasets import Image

        stream = hub.open_stream(self.data_set, self.config, source, self._version)
        columns = {"image_column": self.image_column, "text_column": self.text_column}
        check_columns(stream, self.data_set, columns)
        undecoded = stream.cast_column(self.image_column, Image(decode=False))  # decoded here
        return undecoded.select_columns(list(columns.values()))

    def _row(self, item: tuple[int, dict[str, Any]]) -> tuple[np.ndarray, tuple[str, ...]]:
        number, row = item
        name = f"row {number} of {self.data_set}"
        pixels = decoded(row[self.image_column], self.data_set, name, self.image_size, self.channels)
        return pixels, self._texts_of(number, row)

    def _texts_of(self, number: int, row: dict[str, Any]) -> tuple[str, ...]:
        value = row[self.text_column]
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str | None) for text in texts):
            raise DataError(
                f"row {number} of {self.data_set} has neither a text nor a list of texts in {self.text_column}. "
                "Name the column with captions: data.text_column=..."
            )
        captions = written(text for text in texts if text is not None)
        if not captions:
            raise DataError(
                f"row {number} of {self.data_set} has no caption in {self.text_column}. Remove it from the data set, "
                "or train without captions: data=hf_images."
            )
        return captions


def _packed(captions: Sequence[Sequence[str]]) -> np.ndarray:
    """Captions as JSON, (L,) uint8."""
    return np.frombuffer(json.dumps(captions).encode(), dtype=np.uint8)
