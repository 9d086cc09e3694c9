"""Tokens of text on disk, windows of them, and the base class of text datamodules."""

import hashlib
import logging
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from genlab.data.array_cache import cached_array, default_folder, digest
from genlab.data.base import DataModule, DataSpec, KeyedDataset, Split
from genlab.data.remembered import recall, remember
from genlab.data.sampler import Keys
from genlab.data.tokenizer.base import Tokenizer, UnknownCharacterError, place_of, unknown_of
from genlab.data.tokenizer.pretrained import Pretrained
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path
from genlab.progress import progress
from genlab.seeding import derive_seed

_log = logging.getLogger(__name__)
_OFFSETS = 1  # key of the random numbers for window offsets


class Windows(KeyedDataset):
    """A text cut into windows of ``context`` tokens, each with the token that follows it, taken by (epoch, index) keys.

    Window i of epoch e starts at offset(e) + i * context. The offset is drawn from (seed, epoch), below ``context`` as
    far as the text allows, so each epoch cuts the text at other places, into the same number of windows; without a
    seed it is 0.
    """

    def __init__(self, tokens: np.ndarray, context: int, seed: int | None, limit: int | None = None):
        assert len(tokens) > context, "checked by the datamodule, with a remedy"
        self.tokens, self.context, self.seed = np.asarray(tokens), context, seed  # a plain view of the mapped file
        room = 0 if seed is None else context - 1
        count = max(1, (len(tokens) - 1 - room) // context)
        self._room = min(room, len(tokens) - 1 - count * context)  # less in a text of fewer than 2 * context tokens
        self._count = count if limit is None else min(limit, count)

    def __len__(self) -> int:
        return self._count

    def offset(self, epoch: int) -> int:
        """Where the first window of an epoch starts."""
        return 0 if self.seed is None else derive_seed(self.seed, epoch, _OFFSETS) % (self._room + 1)

    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        indices = np.array([index for _, index in keys])
        starts = self.offset(keys[0][0]) + indices * self.context
        tokens = self.tokens[starts[:, None] + np.arange(self.context + 1)]  # (N, T + 1)
        return {"tokens": torch.from_numpy(tokens.astype(np.int64)), "index": torch.from_numpy(indices)}


class TextDataModule(DataModule):
    """Text by split, as tokens. A subclass yields the text in :meth:`documents`.

    The tokenizer learns from the training split. Its state and the tokens are kept in the cache of
    :mod:`genlab.data.array_cache`, under a hash of the text, so they are made once and again when the text changes.
    """

    learn_from: int | None = None  # number of first documents that the tokenizer learns from; None: all

    def __init__(
        self,
        tokenizer: Tokenizer,
        context: int = 256,
        cache_dir: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,
    ):
        """
        Args:
            tokenizer: trained when the data are prepared
            context: tokens that the model sees at once
            cache_dir: None: $GENLAB_CACHE, else ~/.cache/genlab
            batch_size: windows in a step, over all ranks together
            num_workers: processes that assemble batches; windows are quick enough without (0)
            limit: train on the first ``limit`` windows only; None: on all
            seed: of the order of the windows, and of where they are cut
        """
        super().__init__(batch_size, num_workers, limit, seed)
        if context < 1:
            raise ConfigError(f"data.context must be a whole number >= 1, got {context}.")
        self._tokenizer, self.context = tokenizer, context
        self.cache = read_path(cache_dir) if cache_dir else default_folder()
        self._tokens: dict[Split, np.ndarray] = {}
        self._hashes: dict[Split, str] = {}
        self._told = set[Split]()  # splits whose unknown characters were reported

    @property
    def unit(self) -> str:
        return "windows of text"

    def keep_tokenizer(self, state: str) -> None:
        """Use the tokenizer that a run keeps, if it was read from a file, which may be gone. Raises DataError."""
        if isinstance(self._tokenizer, Pretrained):
            self._tokenizer.load_state(state)

    @abstractmethod
    def documents(self, split: Split) -> Iterable[str]:
        """The texts of a split, in an order that is always the same. Raises DataError with a remedy."""

    def title(self, split: Split) -> str:
        """The user's name for a split, for messages."""
        return "the training text" if split == "train" else "the held-out text"

    def text_hash(self, split: Split) -> str:
        """32 hex digits, a hash of the documents of a split."""
        if split not in self._hashes:
            self._hashes[split] = self._hash_of_text(split)
        return self._hashes[split]

    def stamp(self, split: Split) -> str | None:
        """A value that changes when the files of a split do, found without reading them, so that their text is hashed
        only once; None if there is no such value."""
        return None

    def _hash_of_text(self, split: Split) -> str:
        stamp = self.stamp(split)
        key = f"text-{digest(1, type(self).__module__, type(self).__qualname__, split, stamp)}"
        facts = None if stamp is None else recall(self.cache, key)
        if facts is not None and isinstance(facts.get("text"), str):
            return str(facts["text"])
        with progress(f"reading {self.title(split)}", None) as advance:
            found = hashlib.blake2b(digest_size=16)
            for document in self.documents(split):
                encoded = document.encode("utf-8", "surrogatepass")
                found.update(len(encoded).to_bytes(8, "little") + encoded)
                advance(1)
        if stamp is not None and stamp == self.stamp(split):  # no file changed meanwhile
            remember(self.cache, key, {"text": found.hexdigest()})
        return found.hexdigest()

    def _fingerprint(self) -> dict[str, str]:
        return {"text": self.text_hash("train")}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, trained or loaded as it was trained on the same text."""

        def learned() -> Iterator[np.ndarray]:
            with progress(f"learning the tokens of {self.title('train')}", None):
                self._tokenizer.train(islice(self.documents("train"), self.learn_from))
            yield np.frombuffer(self._tokenizer.state().encode(), dtype=np.uint8)

        key = digest(1, self._tokenizer.fingerprint(), self.text_hash("train"), self.learn_from)
        self._tokenizer.load_state(cached_array(self.cache, f"tokenizer-{key}", learned).tobytes().decode())
        return self._tokenizer

    def tokens(self, split: Split) -> np.ndarray:
        """(L,) uint16, or uint32 where there are more tokens than that: the documents of a split, each with the begin
        token before it and the end token after it, where there are such. Mapped from the cache.

        Raises:
            DataError: there is too little text for one window, or the tokenizer has no token for some of it.
            StorageError: the cache cannot be written.
        """
        if split not in self._tokens:
            dtype = np.uint16 if self.tokenizer.vocab_size <= 1 << 16 else np.uint32
            key = digest(1, self.tokenizer.fingerprint(), self.text_hash(split))

            def blocks() -> Iterator[np.ndarray]:
                yield np.zeros(0, dtype)
                yield from (tokens.astype(dtype) for tokens in self.encoded(split))

            tokens = cached_array(self.cache, f"tokens-{key}", blocks)
            if len(tokens) <= self.context:
                raise DataError(
                    f"{self.title(split)} has {len(tokens)} tokens; at least {self.context + 1} are needed for "
                    f"data.context={self.context}."
                )
            self._tokens[split] = tokens
        return self._tokens[split]

    def unknown_characters(self, split: Split) -> Counter[str]:
        """Counts of the characters of a split that are not in the vocabulary; empty if these are refused."""
        unknown, found = unknown_of(self.tokenizer), Counter[str]()
        if unknown is not None and unknown in self.tokens(split):
            for document in self.documents(split):
                places = np.flatnonzero(self.tokenizer.encode(document) == unknown)
                found.update(document[place] for place in places.tolist())
        return found

    def _tell_of_unknown(self, split: Split) -> None:
        found = self.unknown_characters(split) if split not in self._told else {}
        self._told.add(split)
        if found and os.environ.get("LOCAL_RANK", "0") == "0":
            count, shown = sum(found.values()), ", ".join(repr(c) for c in list(found)[:5])
            _log.warning(
                f"{count:,} of the {len(self.tokens(split)):,} characters in {self.title(split)} are not in the "
                f"training text ({len(found)} different: {shown}{', ...' if len(found) > 5 else ''}). Each becomes the "
                "unknown token, and costs about 20 bits more in bits per byte and perplexity."
            )

    def encoded(self, split: Split) -> Iterator[np.ndarray]:
        """The tokens of each document, including the end token."""
        with progress(f"tokenizing {self.title(split)}", None) as advance:
            for document in self.documents(split):
                try:
                    tokens = self.encode(document)
                except UnknownCharacterError as error:
                    place = self.place(split, document, error.position)
                    raise DataError(
                        f"{error.what}, which is {place}: the training text has none. Train with "
                        "data/tokenizer=bytes, or data.tokenizer.unknown=true."
                    ) from error
                yield tokens
                advance(1)

    def place(self, split: Split, document: str, position: int) -> str:
        """The position of a character in a document, for messages."""
        return f"{place_of(document, position)} of a document of {self.title(split)}"

    def encode(self, document: str) -> np.ndarray:
        """(L,) int64: its tokens between the begin token and the end token, if there are such. An empty document has
        neither."""
        if not document:
            return self.tokenizer.encode(document)
        around = [[] if token is None else [token] for token in (self.tokenizer.begin, self.tokenizer.end)]
        return np.concatenate([around[0], self.tokenizer.encode(document), around[1]]).astype(np.int64)

    def dataset(self, split: Split) -> KeyedDataset:
        if split == "val":
            return Windows(self.tokens("val"), self.context, seed=None)
        return Windows(self.tokens("train"), self.context, self.seed, self.limit)

    @property
    def spec(self) -> DataSpec:
        """Prepares both splits, so that a text that is too short is reported at once."""
        self.tokens("train"), self.tokens("val")
        self._tell_of_unknown("val")
        start = start_token(self.tokenizer)
        return DataSpec("text", (self.context,), self.tokenizer.vocab_size, start_token=start)


def start_token(tokenizer: Tokenizer) -> int:
    """The first token without a prompt: the begin token, else the end token, else that of a new line, else 0."""
    if tokenizer.begin is not None:
        return tokenizer.begin
    if tokenizer.end is not None:
        return tokenizer.end
    return next((token for token in range(tokenizer.vocab_size) if tokenizer.bytes_of(token) == b"\n"), 0)
