"""Image data sets in the formats of Hugging Face."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from genlab.data import hub
from genlab.data.array_cache import cached_rows, default_folder, digest
from genlab.data.base import Split
from genlab.data.decode import DECODER, Channels, UnreadableImageError, decode
from genlab.data.decoding import in_parallel
from genlab.data.held_out import cached_part, rows_of
from genlab.data.image import ImageDataModule, ImageTable
from genlab.data.row_files import read_row_file
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path

if TYPE_CHECKING:
    from datasets import IterableDataset

_LABEL_BYTES = 8  # an int64 at the end of each row of the cache


class HFImages(ImageDataModule):
    """A data set of the Hugging Face Hub, or a folder of parquet files or another of its formats: (channels, S, S).

    It is streamed once, decoded and cropped to squares as in :func:`genlab.data.decode.decode`, into the cache that
    :class:`genlab.data.image_folder.ImageFolder` uses too; later runs need no network. The cache follows the commit of
    the data set, or the files of the folder. Labels must be numbered classes, or whole numbers from 0.
    """

    def __init__(
        self,
        name: str,  # at the Hub, like ylecun/mnist; or a folder
        config: str | None = None,  # of a data set that has several
        split: str = "train",  # to train on
        val_split: str | None = None,  # the held-out images, e.g. test; null: a fixed part of split, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1): held out by the hash of the row's number
        image_column: str = "image",
        label_column: str | None = None,  # null: no labels
        revision: str | None = None,  # branch, tag or commit at the Hub; null: the newest
        image_size: int = 64,  # pixels
        channels: Channels = 3,  # 3: RGB, 1: gray
        cache_dir: str | None = None,  # null: $GENLAB_CACHE, else ~/.cache/genlab
        batch_size: int = 128,  # examples in a step, over all ranks together
        flip: bool = False,  # mirror training images, half of the time
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,  # of the order of the data and of the flips
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(batch_size, flip, num_workers, limit, seed)
        if not 0 < val_fraction < 1:
            raise ConfigError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}.")
        if image_size < 1:
            raise ConfigError(f"data.image_size must be a whole number >= 1, got {image_size}.")
        self.data_set, self.config, self.split, self.val_split = name, config, split, val_split
        self.val_fraction, self.image_column, self.label_column = val_fraction, image_column, label_column
        self.revision, self.image_size, self.channels = revision, image_size, channels
        self.cache = read_path(cache_dir) if cache_dir else default_folder()

    def load(self, split: Split) -> ImageTable:
        """Stream and decode a split, or find it in the cache: (N, C, S, S) uint8.

        Raises:
            ConfigError: the package datasets is not installed.
            DataError: there is no such data set, split or column, it cannot be reached, or a row is invalid.
            StorageError: the cache cannot be written.
        """
        hub.require_datasets("hf_images", "hf")
        source = self.val_split if split == "val" and self.val_split is not None else self.split
        form = DECODER, self.image_column, self.label_column, self.image_size, self.channels
        key = digest(1, self.data_set, self._version, self.config, source, form)
        rows, _ = cached_rows(self.cache, f"hf-{key}", lambda: self._rows(source))  # (N, C * S * S + 8)
        if self.val_split is None:
            chosen = rows_of(split, len(rows), self.val_fraction, f"{self.data_set} ({source})")
            rows = cached_part(rows, chosen, self.cache, f"hf-{key}-{split}-{self.val_fraction}")
        images = rows[:, :-_LABEL_BYTES].reshape(-1, self.channels, self.image_size, self.image_size)  # still mapped
        if self.label_column is None:
            return ImageTable(images)
        labels = np.ascontiguousarray(rows[:, -_LABEL_BYTES:]).view("<i8")[:, 0].astype(np.int64)
        return ImageTable(images, labels, self._class_names(split, labels))

    @cached_property
    def _version(self) -> str:
        """The version of both splits, fixed at the first call."""
        return hub.version(self.data_set, self.revision, self.cache)

    def _class_names(self, split: Split, labels: np.ndarray) -> tuple[str, ...]:
        """The data set's class names, else the numbers that occur in the training split."""
        key = digest(1, self.data_set, self._version, self.config, self.split, self.label_column)
        note = self.cache / f"hf-{key}-names.json"
        names = hub.recall(note)
        if names is None:
            feature = self._stream(self.split).features[self.label_column]
            names = getattr(feature, "names", [])  # only a ClassLabel has them
            hub.remember(note, names)
        if not names:
            training = labels if split == "train" else self.table("train").labels
            assert training is not None, "both splits have the column"
            names = [str(label) for label in range(int(training.max()) + 1)]
        if labels.max() >= len(names):
            raise DataError(
                f"the held-out part of {self.data_set} has the label {labels.max()}; "
                f"those to train on end at {len(names) - 1}."
            )
        return tuple(names)

    def _rows(self, source: str) -> Iterator[np.ndarray]:
        """The pixels of each image and its label, (C * S * S + 8,) uint8."""
        from datasets import Image

        stream = self._stream(source).cast_column(self.image_column, Image(decode=False))  # decoded below
        rows = enumerate(hub.read(stream, self.data_set, source))
        return in_parallel(rows, self._row, f"streaming {self.data_set} ({source})", None)

    def _stream(self, source: str) -> "IterableDataset":
        """A split, with the columns that are needed. Raises DataError if they are not there or hold something else."""
        from datasets import ClassLabel, Value

        stream = hub.open_stream(self.data_set, self.config, source, self._version)
        options = {"image_column": self.image_column, "label_column": self.label_column}
        columns = {option: column for option, column in options.items() if column is not None}
        check_columns(stream, self.data_set, columns)
        if self.label_column is not None:
            kind = stream.features[self.label_column]  # type: ignore[index]
            if not isinstance(kind, ClassLabel) and not (isinstance(kind, Value) and "int" in kind.dtype):
                raise DataError(
                    f"the column {self.label_column} of the data set {self.data_set} does not hold numbered classes."
                )
        return stream.select_columns(list(columns.values()))

    def _row(self, item: tuple[int, dict[str, Any]]) -> np.ndarray:
        number, row = item
        name = f"row {number} of {self.data_set}"
        image, label = row[self.image_column], row[self.label_column] if self.label_column else -1
        if self.label_column and (label is None or label < 0):
            raise DataError(f"{name} has no label (it is {label}). Choose another split, or data.label_column=null.")
        pixels = decoded(image, self.data_set, name, self.image_size, self.channels)
        return np.concatenate([pixels.ravel(), np.array([label], dtype="<i8").view(np.uint8)])


def check_columns(stream: "IterableDataset", data_set: str, columns: Mapping[str, str]) -> None:
    """``columns``: by option. Raises DataError if one is not there, or that of ``image_column`` holds no images."""
    from datasets import Image

    if stream.features is None:
        raise DataError(f"the columns of the data set {data_set} have no types. Save it as parquet.")
    for option, column in columns.items():
        if column not in stream.features:
            has = ", ".join(stream.features)
            raise DataError(f"the data set {data_set} has no column {column} (it has: {has}). Set data.{option}.")
    column = columns["image_column"]
    if not isinstance(stream.features[column], Image):
        raise DataError(f"the column {column} of the data set {data_set} does not hold images.")


def decoded(image: Any, data_set: str, name: str, image_size: int, channels: Channels) -> np.ndarray:
    """(C, S, S) uint8 of a value of an undecoded column of images. Raises DataError; ``name``: of the row."""
    if image is None:
        raise DataError(f"{name} has no image.")
    try:
        source = image["bytes"]
        if source is None:
            source = read_row_file(str(image["path"] or ""), data_set, name)
        return decode(source, image_size, channels, name=name)
    except UnreadableImageError as error:
        raise DataError(
            f"cannot read {name} ({error}). Remove it from the data set; "
            "PNG, JPEG, WebP, GIF, BMP, TIFF and PPM can be read."
        ) from error
