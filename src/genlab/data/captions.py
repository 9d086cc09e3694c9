"""Captions of pictures as tokens: one or several for each picture."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from genlab.data.tokenizer.base import CaptionTokenizer, UnknownCharacterError
from genlab.data.tokenizer.words import Words
from genlab.errors import DataError
from genlab.seeding import derive_seed, uniform_by_index

_log = logging.getLogger(__name__)
_WHICH = 2  # key of the random numbers that choose a caption
_SHOWN = 5  # words in a message


@dataclass(frozen=True)
class Captions:
    """The captions of N pictures. Those of picture i are the rows ``starts[i]`` to ``starts[i + 1]`` - 1 of ``tokens``,
    one at least."""

    tokens: np.ndarray  # (M, T) int32, padded with 0; see ConditionSpec
    starts: np.ndarray  # (N + 1,) int64
    texts: tuple[tuple[str, ...], ...]  # N: as they were written

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def first(self) -> np.ndarray:
        """The first caption of each picture, (N, T) int64."""
        return self.tokens[self.starts[:-1]].astype(np.int64)

    @property
    def several(self) -> bool:
        """Whether a picture has more than one."""
        return len(self.tokens) > len(self)

    def drawn(self, rows: np.ndarray, epoch: int, seed: int) -> np.ndarray:
        """One caption for each of the pictures ``rows`` (n,): a function of (seed, epoch, row). (n, T) int64."""
        chosen = draw_one(self.starts[rows + 1] - self.starts[rows], rows, epoch, seed)
        return self.tokens[self.starts[rows] + chosen].astype(np.int64)

    def of(self, rows: slice | np.ndarray) -> "Captions":
        """Those of some pictures."""
        chosen = np.arange(len(self))[rows]
        counts = self.starts[chosen + 1] - self.starts[chosen]
        starts = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(self.starts[chosen] - starts[:-1], counts) + np.arange(starts[-1])
        return Captions(self.tokens[places], starts, tuple(self.texts[row] for row in chosen.tolist()))


def draw_one(counts: np.ndarray, rows: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """A number below each of ``counts`` (n,), uniformly: a function of (seed, epoch, row). (n,) int64."""
    return (uniform_by_index(derive_seed(seed, epoch, _WHICH), rows) * counts).astype(np.int64)


class Coder:
    """Captions to numbers and back: number t + 1 is token t of a tokenizer, 0 is padding."""

    def __init__(self, tokenizer: CaptionTokenizer, length: int):  # tokens of a caption at most
        self.tokenizer, self.length = tokenizer, length

    def read(self, text: str, cut: bool = False) -> list[int]:
        """The numbers of a caption that a user types, (L,), without 0. ``cut``: the beginning of it that is known.

        Raises ValueError, with a remedy: a word or character has no token, or there are too many.
        """
        try:
            tokens = known(self.tokenizer, text)[0] if cut else self.tokenizer.encode(plain(text))
        except UnknownCharacterError as error:
            raise ValueError(f"{error.what}.") from error
        except DataError as error:
            raise ValueError(str(error)) from error
        if not len(tokens) and plain(text) and not cut:
            raise ValueError("it has no words, only punctuation.")
        if len(tokens) > self.length and not cut:
            unit = "words" if isinstance(self.tokenizer, Words) else "tokens"
            raise ValueError(f"it has {len(tokens)} {unit}, and captions of these data have at most {self.length}.")
        return (tokens[: self.length] + 1).tolist()

    def write(self, numbers: Sequence[int]) -> str:
        """The words of numbers (L,) from 1 on."""
        return self.tokenizer.decode([int(number) - 1 for number in numbers])

    def texts(self, tokens: np.ndarray) -> list[str]:
        """(N, T), padded with 0 -> N captions."""
        return [self.write([number for number in row if number]) for row in tokens.tolist()]


def plain(text: str) -> str:
    """A caption with single spaces."""
    return " ".join(text.split())


def known(tokenizer: CaptionTokenizer, text: str) -> tuple[np.ndarray, list[str]]:
    """The tokens of a caption, (L,) int64, and its words that have none. Raises UnknownCharacterError."""
    text = plain(text)
    return tokenizer.known(text) if isinstance(tokenizer, Words) else (tokenizer.encode(text), [])


@dataclass
class Loss:
    """What the tokens of a split lack of its captions."""

    longest: int = 0  # tokens
    cut: int = 0  # captions
    unknown: Counter[str] = field(default_factory=Counter)
    emptied: int = 0  # captions of which nothing is left


Found = list[list[np.ndarray]]  # the tokens of each caption of each picture


def encoded(tokenizer: CaptionTokenizer, texts: Sequence[Sequence[str]], most: int, title: str) -> tuple[Found, Loss]:
    """The tokens of captions, and what they lack. Captions of more than ``most`` tokens are cut.

    Raises DataError, with a remedy: a character has no token. ``title``: of the captions.
    """
    found: Found = []
    loss = Loss()
    for captions in texts:
        rows = []
        for text in captions:
            try:
                tokens, unknown = known(tokenizer, text)
            except UnknownCharacterError as error:
                raise DataError(
                    f"{error.what}, which {title} have ('{plain(text)[:60]}'). Train with data/tokenizer=bytes, or "
                    "data.tokenizer.unknown=true."
                ) from error
            loss.longest = max(loss.longest, len(tokens))
            loss.cut += len(tokens) > most
            loss.unknown.update(unknown)
            loss.emptied += not len(tokens)
            rows.append(tokens[:most])
        found.append(rows)
    return found, loss


def padded(found: Found, texts: Sequence[Sequence[str]], length: int) -> Captions:
    """Tokens as :class:`Captions` of ``length``."""
    rows = [tokens for captions in found for tokens in captions]
    result = np.zeros((len(rows), length), dtype=np.int32)
    for row, tokens in zip(result, rows, strict=True):
        row[: len(tokens)] = tokens + 1
    starts = np.concatenate([[0], np.cumsum([len(captions) for captions in found])]).astype(np.int64)
    return Captions(result, starts, tuple(map(tuple, texts)))


def tell(loss: Loss, count: int, most: int, title: str) -> None:
    """Log what ``count`` captions lack, in a line each; nothing if they lack nothing."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    if loss.cut:
        _log.warning(
            f"{loss.cut:,} of the {count:,} captions of {title} are longer than {most} tokens, and cut. The longest "
            f"has {loss.longest}: set data.caption_length={loss.longest} to keep all."
        )
    if loss.unknown:
        shown = ", ".join(word for word, _ in loss.unknown.most_common(_SHOWN))
        more = ", ..." * (len(loss.unknown) > _SHOWN)
        _log.warning(
            f"{loss.unknown.total():,} words in captions of {title} are not in the vocabulary and left out "
            f"({len(loss.unknown):,} different: {shown}{more})."
        )
    if loss.emptied:
        _log.warning(
            f"{loss.emptied:,} of the {count:,} captions of {title} have no word that is known: they are empty."
        )


def all_texts(texts: Iterable[Sequence[str]]) -> Iterable[str]:
    """The captions one after the other, as a tokenizer learns from them."""
    return (plain(text) for captions in texts for text in captions)
