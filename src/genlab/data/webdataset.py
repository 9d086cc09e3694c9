"""Images with captions in tar shards, as of WebDataset: read in place, in an order that a resumed run continues."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from genlab.data.array_cache import cached_rows, digest
from genlab.data.base import ConditionSpec, DataModule, DataSpec, KeyedDataset, Split
from genlab.data.caption_files import written
from genlab.data.captioned import CaptionedImages
from genlab.data.captions import Captions, Coder, draw_one, encoded, padded, tell
from genlab.data.decode import DECODER, Channels, Size, UnreadableImageError, checked_size, decode
from genlab.data.decoding import in_parallel
from genlab.data.held_out import name_hash
from genlab.data.image import ImageTable
from genlab.data.sampler import Keys
from genlab.data.tar_index import COLUMNS, JSON, PICTURE, TEXT, Shards, cached_index, list_shards
from genlab.data.text_files import decode as decode_text
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path
from genlab.seeding import derive_seed, uniform_by_index

_HASHED = 256  # samples whose bytes are part of the fingerprint
_BITS = 1 << 53  # of a hash in [0, 1)


class Webdataset(CaptionedImages):
    """Samples in uncompressed tar files: ``key.jpg``, or another known format, with ``key.txt`` or ``key.json``, and
    maybe ``key.cls``, a class: (channels, H, W).

    Members are read where they lie; nothing is unpacked, and their names are no paths. Each shard has an index of
    offsets in the cache, so the order of the data is that of :mod:`genlab.data.sampler`: a function of (seed, epoch),
    whatever the number of ranks and workers, and continued exactly. Only held-out images are decoded into the cache,
    and training images where a metric asks for them.
    """

    def __init__(
        self,
        tokenizer: CaptionTokenizer,
        root: str,  # folder of .tar files, at any depth
        val_root: str | None = None,  # the held-out samples; null: a fixed part of root, see val_fraction
        val_fraction: float = 0.01,  # in (0, 1): held out by the hash of shard and position
        text_column: str = "text",  # of .json members: a text, or a list of texts
        learn_from: int = 100_000,  # training captions that the tokenizer learns from, spread evenly
        image_size: Size = 64,  # side in pixels, or [height, width]: the largest centered part of this shape
        channels: Channels = 3,  # 1: gray, 2: gray + alpha, 3: RGB, 4: RGBA
        caption_length: int = 64,  # tokens of a caption, at most; what is cut is reported
        cache_dir: str | None = None,  # null: $GENLAB_CACHE, else ~/.cache/genlab
        batch_size: int = 128,  # examples in a step, over all ranks together
        flip: bool = False,  # mirror training images, half of the time; not for captions that say left and right
        num_workers: int = 4,  # processes that read and decode
        limit: int | None = None,
        seed: int = 0,  # of the order of the data, of the flips, and of the choice among several captions
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(tokenizer, caption_length, cache_dir, batch_size, flip, num_workers, limit, seed)
        if not 0 < val_fraction < 1:
            raise ConfigError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}.")
        if learn_from < 1:
            raise ConfigError(f"data.learn_from must be a whole number >= 1, got {learn_from}.")
        size = checked_size(image_size)
        assert size is not None, "the slot takes no null"
        self.root, self.val_root, self.val_fraction, self.text_column = root, val_root, val_fraction, text_column
        self.learn_from, self.image_size, self.channels = learn_from, size, channels
        self._found: dict[str, Samples] = {}  # by folder
        self._samples: dict[Split, Samples] = {}

    def samples(self, split: Split) -> "Samples":
        """The samples of a split: where they are. Raises DataError, one line, for a shard that cannot be used."""
        if split not in self._samples:
            self._samples[split] = self._part(split)
        return self._samples[split]

    def _part(self, split: Split) -> "Samples":
        root = self.val_root if split == "val" and self.val_root is not None else self.root
        if root not in self._found:
            self._found[root] = self._look(root)
        found = self._found[root]
        if self.val_root is not None:
            return found
        held_out = found.hashes < self.val_fraction
        held_out[found.hashes.argmin()], held_out[found.hashes.argmax()] = True, False
        return found.of(np.flatnonzero(held_out if split == "val" else ~held_out))

    def _look(self, root: str) -> "Samples":
        top = read_path(root)
        if not top.is_dir():
            raise DataError(f"{root} is not a folder. Set data.root, or data.val_root, to a folder of .tar shards.")
        paths = list(list_shards(top))
        if not paths:
            raise DataError(f"no .tar shards found in {root}, including subfolders.")
        names = [path.relative_to(top).as_posix() for path in paths]
        shards = list(zip(paths, names, strict=True))
        indices = list(
            in_parallel(shards, lambda shard: cached_index(self.cache, *shard), f"indexing {root}", len(shards))
        )
        hashes = [
            uniform_by_index(int(name_hash(name) * _BITS), np.arange(len(index)))
            for name, index in zip(names, indices, strict=True)
        ]
        count = sum(map(len, indices))
        if count < (1 if self.val_root is not None else 2):
            raise DataError(f"the shards in {root} have {count} samples; one to train and one to hold out are needed.")
        places = np.repeat(np.arange(len(indices)), [len(index) for index in indices])
        return Samples(Shards(paths), places, np.concatenate(indices), np.concatenate(hashes), self.text_column)

    def texts(self, split: Split) -> Sequence[Sequence[str]]:
        """The captions of held-out images; of training images those that the tokenizer learns from."""
        return self._texts_of_val if split == "val" else self._texts_to_learn

    @cached_property
    def _texts_of_val(self) -> list[tuple[str, ...]]:
        return self.samples("val").every_text("reading captions")

    @cached_property
    def _texts_to_learn(self) -> list[tuple[str, ...]]:
        samples = self.samples("train")
        rows = np.linspace(0, len(samples) - 1, min(len(samples), self.learn_from)).astype(np.int64)
        return samples.of(rows).every_text("reading captions")

    def length_of(self, longest: int) -> int:
        """As long as can be if not all captions were read."""
        return super().length_of(longest) if len(self.samples("train")) <= self.learn_from else self.caption_length

    def title(self, split: Split) -> str:
        if split == "train" and len(self.samples("train")) > self.learn_from:
            return f"{self.learn_from:,} of the training images"
        return super().title(split)

    def pictures(self, split: Split) -> ImageTable:
        """All images of a split, decoded into the cache."""
        samples = self.samples(split)
        key = f"web-{digest(1, DECODER, samples.digest(), self.image_size, self.channels)}"
        work = lambda row: samples.picture(row, self.image_size, self.channels)  # noqa: E731
        title = f"decoding {len(samples):,} images"
        pixels, _ = cached_rows(self.cache, key, lambda: in_parallel(range(len(samples)), work, title, len(samples)))
        labels = samples.labels
        return ImageTable(pixels, labels, () if labels is None else self._class_names, entry=(self.cache, key))

    @cached_property
    def _class_names(self) -> tuple[str, ...]:
        labels = self.samples("train").labels
        held_out = self.samples("val").labels
        if (labels is None) != (held_out is None):
            raise DataError("only one of data.root and data.val_root has .cls members; both or none must.")
        return () if labels is None or held_out is None else tuple(map(str, range(int(max(*labels, *held_out)) + 1)))

    def load(self, split: Split) -> ImageTable:
        if split == "val":
            return super().load("val")
        texts = self.samples("train").every_text("reading captions")
        tokens, loss = encoded(self.tokenizer, texts, self.coder.length, f"captions of {super().title('train')}")
        captions: Captions = padded(tokens, texts, self.coder.length)
        tell(loss, len(captions.tokens), self.coder.length, super().title("train"))
        return replace(self.pictures("train"), captions=captions.first, every_caption=captions)

    def dataset(self, split: Split) -> KeyedDataset:
        """Training samples are read as they are asked for."""
        if split == "val":
            return super().dataset("val")
        samples = self.samples("train")
        limited = samples if self.limit is None else samples.of(np.arange(min(self.limit, len(samples))))
        return TarDataset(limited, self.coder, self.image_size, self.channels, self.flip, self.seed)

    @property
    def spec(self) -> DataSpec:
        height, width = (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
        names = self._class_names
        label = {"label": ConditionSpec(len(names), names)} if names else {}
        return DataSpec("image", (self.channels, height, width), condition={**label, "caption": self.caption_spec})

    def check(self, world_size: int) -> None:
        """As of the base class, without a look at all training labels."""
        DataModule.check(self, world_size)

    def _fingerprint(self) -> dict[str, str]:
        return {"samples": self.samples("train").digest()}


class Samples:
    """Samples in shards, by their places."""

    def __init__(self, shards: Shards, places: np.ndarray, index: np.ndarray, hashes: np.ndarray, text_column: str):
        assert index.shape == (len(places), COLUMNS)
        self.shards, self.places, self.index, self.hashes = shards, places, index, hashes
        self.text_column = text_column

    def __len__(self) -> int:
        return len(self.places)

    def of(self, rows: np.ndarray) -> "Samples":
        """A subset, in the order of ``rows``."""
        return Samples(self.shards, self.places[rows], self.index[rows], self.hashes[rows], self.text_column)

    @cached_property
    def labels(self) -> np.ndarray | None:
        """(N,) int64; None: there are none. Raises DataError: only some shards have labels."""
        labels = self.index[:, -1]
        if (labels < 0).any() and (labels >= 0).any():
            without = self.shards.paths[self.places[int((labels < 0).argmax())]]
            raise DataError(f"{without} has no .cls members, and other shards have. All or none must have them.")
        return None if not len(labels) or labels[0] < 0 else labels

    def picture(self, row: int, image_size: Size, channels: Channels) -> np.ndarray:
        """(C, H, W) uint8. Raises DataError, naming shard and member: it is damaged."""
        shard, offset, size = self._place(row, PICTURE)
        name = self.shards.name(shard, offset)
        try:
            return decode(self.shards.read(shard, offset, size), image_size, channels, name=name)
        except UnreadableImageError as error:
            raise DataError(f"cannot read {name} ({error}). Make the shard again without it.") from error

    def texts(self, row: int) -> tuple[str, ...]:
        """The captions, one at least: a line each of a .txt, else what a .json has in ``text_column``. Raises
        DataError, naming shard and member."""
        part = TEXT if self._place(row, TEXT)[2] else JSON
        shard, offset, size = self._place(row, part)
        content = self.shards.read(shard, offset, size)
        name = self.shards.name(shard, offset)
        found = written(decode_text(content, name).splitlines()) if part == TEXT else self._of_json(content, name)
        if not found:
            raise DataError(f"{name} has no caption. Make the shard again with one, or without the sample.")
        return found

    def every_text(self, title: str) -> list[tuple[str, ...]]:
        """:meth:`texts` of each sample."""
        return list(in_parallel(range(len(self)), self.texts, f"{title} of {len(self):,} samples", len(self)))

    def digest(self) -> str:
        """32 hex digits: of the places of all samples, and of the bytes of some, evenly spaced."""
        found = hashlib.blake2b(np.ascontiguousarray(self.index).data, digest_size=16)
        found.update(np.ascontiguousarray(self.places).data)
        for row in np.linspace(0, len(self) - 1, min(len(self), _HASHED)).astype(np.int64).tolist():
            for part in (PICTURE, TEXT, JSON):
                found.update(self.shards.read(*self._place(row, part)))
        return found.hexdigest()

    def _of_json(self, content: bytes, name: str) -> tuple[str, ...]:
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name} is not JSON in UTF-8 ({' '.join(str(error).split())[:100]}).") from error
        if not isinstance(value, dict) or self.text_column not in value:
            has = ", ".join(value)[:200] if isinstance(value, dict) else "no entries"
            raise DataError(f"{name} has no {self.text_column} (it has: {has}). Set data.text_column.")
        texts = value[self.text_column]
        texts = texts if isinstance(texts, list) else [texts]
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"{name}: {self.text_column} must be a text or a list of texts.")
        return written(texts)

    def _place(self, row: int, part: int) -> tuple[int, int, int]:
        """Shard, offset, size."""
        offset, size = self.index[row, 2 * part : 2 * part + 2].tolist()
        return int(self.places[row]), offset, size


class TarDataset(KeyedDataset):
    """Batches of samples, read by (epoch, index) keys; flips and captions are functions of (seed, epoch, index)."""

    def __init__(self, samples: Samples, coder: Coder, image_size: Size, channels: Channels, flip: bool, seed: int):
        self.samples, self.coder, self.image_size, self.channels = samples, coder, image_size, channels
        self.flip, self.seed = flip, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        rows, epoch = np.array([index for _, index in keys]), keys[0][0]
        images = np.stack([self.samples.picture(row, self.image_size, self.channels) for row in rows.tolist()])
        if self.flip:
            flipped = uniform_by_index(derive_seed(self.seed, epoch), rows) < 0.5
            images[flipped] = images[flipped, :, :, ::-1]
        labels = self.samples.labels
        return {
            "image": torch.from_numpy(images),
            "index": torch.from_numpy(rows),
            "caption": torch.from_numpy(self._captions(rows, epoch)),
            **({} if labels is None else {"label": torch.from_numpy(labels[rows])}),
        }

    def _captions(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        texts = [self.samples.texts(row) for row in rows.tolist()]
        chosen = draw_one(np.array([len(captions) for captions in texts]), rows, epoch, self.seed).tolist()
        drawn = [(captions[i],) for captions, i in zip(texts, chosen, strict=True)]
        tokens, _ = encoded(self.coder.tokenizer, drawn, self.coder.length, "captions of training images")
        return padded(tokens, drawn, self.coder.length).first
