"""A folder of images with captions."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from genlab.data.array_cache import cached_rows, digest
from genlab.data.base import Split
from genlab.data.caption_files import read_captions
from genlab.data.captioned import CaptionedImages
from genlab.data.decode import Channels, Size, checked_size
from genlab.data.decoding import FileDecoding
from genlab.data.image import ImageTable
from genlab.data.image_files import ImageFile, Seen, digest_of, images_of, look, split_files
from genlab.data.remembered import recall, remember
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.errors import ConfigError, DataError

_Captioned = tuple[ImageFile, tuple[str, ...]]


class CaptionedFolder(CaptionedImages):
    """PNG, JPEG, WebP, GIF, BMP, TIFF and PPM files at any depth below a folder, with captions: (channels, H, W).

    Captions are in a ``.txt`` beside each image, with one caption a line; or in ``metadata.jsonl`` or ``metadata.csv``,
    with columns ``file_name`` and ``text``, as of Hugging Face's imagefolder. Images are decoded once into the cache,
    as :class:`genlab.data.image_folder.ImageFolder` does.
    """

    def __init__(
        self,
        tokenizer: CaptionTokenizer,
        root: str,  # folder of images
        val_root: str | None = None,  # the held-out images; null: a fixed part of root, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1): held out by the hash of the file name, so it stays when files are added
        text_column: str = "text",  # of metadata files
        image_size: Size = 64,  # side in pixels, or [height, width]: the largest centered part of this shape
        channels: Channels = 3,  # 1: gray, 2: gray + alpha, 3: RGB, 4: RGBA
        on_bad: Literal["stop", "skip"] = "stop",  # a damaged file: stop, or leave out up to 0.1 % of the files
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
        size = checked_size(image_size)
        assert size is not None, "the slot takes no null"
        self.root, self.val_root, self.val_fraction, self.text_column = root, val_root, val_fraction, text_column
        self.image_size, self.channels, self.on_bad = size, channels, on_bad
        self._listed: dict[str, list[_Captioned]] = {}  # by folder
        self._decoded: dict[Split, tuple[ImageTable, list[tuple[str, ...]]]] = {}

    def pictures(self, split: Split) -> ImageTable:
        """Raises DataError: there are no images, one is damaged or has no caption; StorageError for the cache."""
        return self._split(split)[0]

    def texts(self, split: Split) -> Sequence[Sequence[str]]:
        return self._split(split)[1]

    def title(self, split: Split) -> str:
        root = self.val_root if split == "val" and self.val_root is not None else self.root
        return f"{root}" if self.val_root is not None else f"{super().title(split)} in {root}"

    def _split(self, split: Split) -> tuple[ImageTable, list[tuple[str, ...]]]:
        if split not in self._decoded:
            root, entries = self._entries(split)
            files = [file for file, _ in entries]
            decoding = FileDecoding(root, files, self.image_size, self.channels, on_bad=self.on_bad)
            pixels, kept = cached_rows(self.cache, decoding.key(), decoding.rows)
            table = ImageTable(pixels, entry=(self.cache, decoding.key()))
            self._decoded[split] = table, [entries[row][1] for row in np.asarray(kept).tolist()]
        return self._decoded[split]

    def _entries(self, split: Split) -> tuple[str, list[_Captioned]]:
        """The folder of a split, and its images with their captions."""
        if self.val_root is not None:
            root = self.val_root if split == "val" else self.root
            return root, self._list(root)
        entries = self._list(self.root)
        if len(entries) < 2:
            raise DataError(f"{self.root} has one image; at least one to train and one to hold out are needed.")
        train, held_out = split_files([file for file, _ in entries], self.val_fraction)
        chosen = {file.name for file in (train if split == "train" else held_out)}
        return self.root, [entry for entry in entries if entry[0].name in chosen]

    def _list(self, root: str) -> list[_Captioned]:
        if root not in self._listed:
            found = look(root)
            files, _ = images_of(found, root)
            self._listed[root] = list(zip(files, self._captions_in(root, files, found), strict=True))
        return self._listed[root]

    def _captions_in(self, root: str, files: list[ImageFile], found: list[Seen]) -> list[tuple[str, ...]]:
        """The captions of files, read once as long as no file in the folder changes."""
        key = f"captions-{digest(1, digest_of(found), self.text_column)}"
        texts = (recall(self.cache, key) or {}).get("texts")
        if isinstance(texts, list) and len(texts) == len(files):
            return [tuple(map(str, captions)) for captions in texts]
        captions = read_captions(root, files, found, self.text_column)
        remember(self.cache, key, {"texts": captions})
        return captions
