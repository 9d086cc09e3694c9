"""The base class of pictures with written captions."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genlab.data.array_cache import default_folder
from genlab.data.base import ConditionSpec, DataSpec, KeyedDataset, Split
from genlab.data.captions import Captions, Coder, all_texts, encoded, padded, tell
from genlab.data.image import ImageDataModule, ImageDataset, ImageTable
from genlab.data.sampler import Keys
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.data.tokenizer.words import Words
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path

EXAMPLES = 64  # held-out captions that a run can be sampled with, without its data


class CaptionedImages(ImageDataModule):
    """Images with captions: ``caption`` (N, T) int64 in batches, as :class:`genlab.data.base.ConditionSpec` defines it.

    A subclass provides pictures and texts. A picture may have several captions: training draws one of them by (seed,
    epoch, index), metrics are given the first, and :meth:`references` has all. The tokenizer learns from the training
    captions. Captions of more than ``caption_length`` tokens are cut, and words without a token left out; both are
    counted and reported once.
    """

    def __init__(
        self,
        tokenizer: CaptionTokenizer,
        caption_length: int = 64,
        cache_dir: str | None = None,
        batch_size: int = 128,
        flip: bool = False,
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,
    ):
        """
        Args:
            tokenizer: of the captions; trained when the data are prepared
            caption_length: tokens of a caption, at most; T is less if all captions are shorter
            cache_dir: None: $GENLAB_CACHE, else ~/.cache/genlab
            batch_size: examples in a step, over all ranks together
            flip: mirror training images, half of the time; not for captions that say left and right
            num_workers: processes that assemble batches
            limit: train on the first ``limit`` images only; None: on all
            seed: of the order of the data, of the flips and of the choice of captions
        """
        super().__init__(batch_size, flip, num_workers, limit, seed)
        if caption_length < 1:
            raise ConfigError(f"data.caption_length must be a whole number >= 1, got {caption_length}.")
        self._tokenizer, self.caption_length = tokenizer, caption_length
        self.cache: Path = read_path(cache_dir) if cache_dir else default_folder()

    @abstractmethod
    def pictures(self, split: Split) -> ImageTable:
        """The images of a split, prepared if needed. Raises DataError with a remedy."""

    @abstractmethod
    def texts(self, split: Split) -> Sequence[Sequence[str]]:
        """The captions of each of these images, one at least. Raises DataError with a remedy."""

    def title(self, split: Split) -> str:
        """The name of a split, for messages."""
        return "the training images" if split == "train" else "the held-out images"

    def length_of(self, longest: int) -> int:
        """T, where the longest caption of :meth:`texts` has ``longest`` tokens."""
        return min(self.caption_length, longest)

    def references(self, split: Split) -> Sequence[tuple[str, ...]]:
        """All captions of each image of a split as they were written, one at least: for metrics of captioning."""
        captions = self.table(split).every_caption
        assert captions is not None, "each image has one"
        return captions.texts

    @cached_property
    def tokenizer(self) -> CaptionTokenizer:
        """The tokenizer, trained on the captions of all training images, those beyond ``limit`` too."""
        self._tokenizer.train(all_texts(self.texts("train")))
        return self._tokenizer

    @cached_property
    def _captions(self) -> dict[Split, Captions]:
        """The captions of both splits, of one length."""
        texts = {split: self.texts(split) for split in self.splits}
        found = {
            split: encoded(self.tokenizer, texts[split], self.caption_length, f"captions of {self.title(split)}")
            for split in self.splits
        }
        length = self.length_of(max(loss.longest for _, loss in found.values()))
        if found["train"][1].longest == 0:
            raise DataError(
                f"the captions of {self.title('train')} have no word. Write some, or use data=image_folder."
            )
        for split, (tokens, loss) in found.items():
            tell(loss, sum(map(len, tokens)), self.caption_length, self.title(split))
        return {split: padded(tokens, texts[split], length) for split, (tokens, _) in found.items()}

    @cached_property
    def coder(self) -> Coder:
        """Captions to tokens and back."""
        return Coder(self.tokenizer, self._captions["train"].tokens.shape[1])

    def load(self, split: Split) -> ImageTable:
        captions = self._captions[split]
        return replace(self.pictures(split), captions=captions.first, every_caption=captions)

    def dataset(self, split: Split) -> KeyedDataset:
        table = self.table(split)
        if split == "train" and table.every_caption is not None and table.every_caption.several:
            return _SeveralCaptions(table, self.flip, self.seed)
        return super().dataset(split)

    def caption_texts(self, tokens: np.ndarray) -> list[str]:
        return self.coder.texts(tokens)

    @property
    def caption_spec(self) -> ConditionSpec:
        """The tokens of captions, and the first of held-out images."""
        examples = tuple(filter(None, self.coder.texts(self._captions["val"].first[:EXAMPLES])))
        names = ("<nothing>", *self.tokenizer.words) if isinstance(self.tokenizer, Words) else ()
        size = self.tokenizer.vocab_size + 1
        return ConditionSpec(size, names, self.coder.length, examples=examples, tokenized=True)

    @property
    def spec(self) -> DataSpec:
        found = super().spec
        return replace(found, condition={**found.condition, "caption": self.caption_spec})

    def _fingerprint(self) -> dict[str, str]:
        captions = self.table("train").every_caption
        assert captions is not None, "each image has one"
        digest = hashlib.sha256(repr(captions.texts).encode("utf-8", "surrogatepass"))
        return {**super()._fingerprint(), "captions": digest.hexdigest()[:16]}


class _SeveralCaptions(ImageDataset):
    """Batches of a table with one caption for each image, drawn by (seed, epoch, index)."""

    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        assert self.table.every_caption is not None, "see CaptionedImages.dataset"
        rows = np.array([index for _, index in keys])
        drawn = self.table.every_caption.drawn(rows, keys[0][0], self.seed)
        return {**super().__getitem__(keys), "caption": torch.from_numpy(drawn)}
