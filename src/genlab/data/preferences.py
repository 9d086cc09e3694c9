"""Preferences as data: pairs of answers in files of JSON lines, or of a Hugging Face data set."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from genlab.data.base import KeyedDataset, Split
from genlab.data.conversation import ANSWERS, Message
from genlab.data.conversation_data import text_reader
from genlab.data.conversations import Conversations
from genlab.data.pair import Pair, PairColumns
from genlab.data.sampler import Keys
from genlab.data.tokenizer.base import Tokenizer
from genlab.errors import ConfigError, DataError

_MOST_LEFT_OUT = 0.5  # share of pairs
_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """A prompt and an answer to it."""

    tokens: np.ndarray  # (L,)
    counted: np.ndarray  # (L,) bool: those of the answer, with the token that ends it


@dataclass(frozen=True)
class EncodedPair:
    chosen: Answer
    rejected: Answer
    pair: Pair


class Preferences(Conversations):
    """Rows of ``prompt``, ``chosen`` and ``rejected``, as TRL has them: texts, or lists of messages; ``tie: true``
    where neither is better. Held out are the rows of another file, or those whose prompt has a hash below
    ``val_fraction``.

    What counts is the answer after the prompt, with the token that ends it. As conversations, for metrics and samples,
    the data are the prompts with their chosen answers.
    """

    judged = "preferences"

    def __init__(
        self,
        tokenizer: Tokenizer,
        path: str,  # of JSON lines; or hf: and the name of a data set at the Hub, or a folder of one
        val_path: str | None = None,  # the held-out rows, likewise; null: a part of path, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1)
        ties: Literal["drop", "half"] = "drop",  # leave them out, or count each answer as preferred by half
        config: str | None = None,  # of a data set at the Hub that has several
        split: str = "train",  # of a data set at the Hub
        val_split: str | None = None,  # its held-out rows; null: see val_path
        revision: str | None = None,  # branch, tag or commit at the Hub; null: the newest
        template: str | None = None,
        context: int = 256,
        cache_dir: str | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,
    ):
        """Raises ConfigError if a value is out of its range."""
        if ties not in ("drop", "half"):
            raise ConfigError(f"data.ties must be drop or half, got {ties}.")
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
        self.columns, self.ties = PairColumns(), ties
        self._encoded_pairs: dict[Split, list[EncodedPair]] = {}

    @property
    def unit(self) -> str:
        return "pairs of answers"

    def conversations(self, split: Split) -> Sequence[Pair]:
        """Pairs of different answers, without ties if they are dropped. Raises DataError: there are none."""
        found = cast(Sequence[Pair], super().conversations(split))
        equal = [pair for pair in found if pair.messages == pair.rejected]
        tied = [pair for pair in found if pair.tie and pair.messages != pair.rejected] if self.ties == "drop" else []
        left_out = {id(pair) for pair in (*equal, *tied)}
        kept = [pair for pair in found if id(pair) not in left_out]
        if not kept:
            raise DataError(
                f"nothing is left of the {len(found):,} pairs of {self.title(split)}: {len(equal):,} have equal "
                f"answers, and {len(tied):,} are ties."
            )
        self._tell_of(equal, "the same chosen and rejected answer", len(found), split)
        self._tell_of(tied, "no better answer (data.ties=half counts half of each)", len(found), split)
        return kept

    def _tell_of(self, pairs: Sequence[Pair], what: str, of: int, split: Split) -> None:
        if pairs and os.environ.get("LOCAL_RANK", "0") == "0":
            _log.warning(
                f"{len(pairs):,} of the {of:,} pairs of {self.title(split)} have {what}; the first is {pairs[0].where}"
                ": they are left out."
            )

    def documents(self, split: Split) -> Iterator[str]:
        reader = text_reader(self.template)
        for pair in cast(Sequence[Pair], self.known(split)):
            yield reader.plain(pair.messages, pair.where)
            yield reader.plain(pair.rejected, pair.where)

    def _blocks(self, split: Split) -> Iterator[np.ndarray]:
        """Of each pair both conversations, of which the answers after the prompt count."""
        yield np.zeros(0, np.uint32)
        for pair in cast(Sequence[Pair], self.known(split)):
            for messages in (pair.messages, pair.rejected):
                tokens, is_answer = self.encoded_messages(messages, pair.where)
                is_answer[: _start(is_answer, pair.prompt)] = False
                yield np.insert(tokens * 2 + is_answer, 0, len(tokens)).astype(np.uint32)

    def encoded_pairs(self, split: Split) -> list[EncodedPair]:
        """Those that differ in ``context`` + 1 tokens. Raises DataError: most do not."""
        if split not in self._encoded_pairs:
            self._encoded_pairs[split] = self._fitting_pairs(split)
        return self._encoded_pairs[split]

    def _fitting_pairs(self, split: Split) -> list[EncodedPair]:
        whole = self.sequences(split)
        room = self.context + 1
        cut = [Answer(tokens[:room], counted[:room]) for tokens, counted in whole]
        pairs = cast(Sequence[Pair], self.known(split))
        both = [EncodedPair(*three) for three in zip(cut[::2], cut[1::2], pairs, strict=True)]
        kept = [one for one in both if _differ(one)]
        number = sum(len(tokens) > room for tokens, _ in whole)
        lost, needed = len(both) - len(kept), max(len(tokens) for tokens, _ in whole) - 1
        if lost > _MOST_LEFT_OUT * len(both):
            raise DataError(
                f"{lost:,} of the {len(both):,} pairs of {self.title(split)} do not differ within data.context="
                f"{self.context} tokens. Use data.context={needed}."
            )
        if number and os.environ.get("LOCAL_RANK", "0") == "0":
            _log.warning(
                f"{number:,} of the {len(whole):,} answers of {self.title(split)} end beyond data.context="
                f"{self.context} tokens, the longest at {needed + 1:,}: they are cut. {lost:,} pairs that do not "
                "differ before that are left out."
            )
        return kept

    def fitting(self, split: Split) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Of the prompts with their chosen answers."""
        chosen = [pair.chosen for pair in self.encoded_pairs(split)]
        return [answer.tokens for answer in chosen], [answer.counted for answer in chosen]

    def dataset(self, split: Split) -> KeyedDataset:
        pairs = self.encoded_pairs(split)
        return Pairs(pairs[: self.limit] if split == "train" else pairs, self.context)

    def tokens(self, split: Split) -> np.ndarray:
        return np.concatenate([answer.tokens for answer in self._answers(split)]).astype(np.int64)

    def _answers(self, split: Split) -> Iterator[Answer]:
        for pair in self.encoded_pairs(split):
            yield from (pair.chosen, pair.rejected)


def _start(is_answer: np.ndarray, prompt: Sequence[Message]) -> int:
    """Where the answer that follows ``prompt`` begins: at the first token of an answer after those in the prompt."""
    starts = np.flatnonzero(is_answer & ~np.concatenate([[False], is_answer[:-1]]))
    return int(starts[sum(message["role"] == ANSWERS for message in prompt)])


def _differ(pair: EncodedPair) -> bool:
    if not (pair.chosen.counted.any() and pair.rejected.counted.any()):
        return False
    return not np.array_equal(pair.chosen.tokens, pair.rejected.tokens)


class Pairs(KeyedDataset):
    """Pairs of answers by (epoch, index) keys.

    A batch has ``tokens`` (N, 2, T + 1) int64, chosen and rejected, each filled up with 0 after its end, and ``answer``
    (N, 2, T) bool, whether the prediction of token t + 1 is one of the answer; ``tie`` (N,) bool, that neither is
    better; ``margin`` (N,) float32, by how much the chosen one is; and ``mismatched`` and ``mismatched_answer``, the
    same with the answers to another prompt, those of the next pair that has one, so that no number of ranks changes
    them.
    """

    def __init__(self, pairs: Sequence[EncodedPair], context: int):
        self.pairs, self.context = pairs, context
        self.others = _others([pair.pair.prompt for pair in pairs])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        chosen = [index for _, index in keys]
        found = [(self.pairs[i].chosen, self.pairs[i].rejected) for i in chosen]
        mismatched = [self._mismatched(i) for i in chosen]
        tokens, answer = self._rows(found)
        other_tokens, other_answer = self._rows(mismatched)
        return {
            "tokens": tokens,
            "answer": answer,
            "mismatched": other_tokens,
            "mismatched_answer": other_answer,
            "tie": torch.tensor([self.pairs[i].pair.tie for i in chosen]),
            "margin": torch.tensor([self.pairs[i].pair.margin for i in chosen]),
            "index": torch.tensor(chosen),
        }

    def _mismatched(self, index: int) -> tuple[Answer, Answer]:
        """The prompt of a pair with both answers of another one."""
        own, other = self.pairs[index], self.pairs[self.others[index]]
        prompt = own.chosen.tokens[: int(own.chosen.counted.argmax())]
        return _joined(prompt, other.chosen, self.context + 1), _joined(prompt, other.rejected, self.context + 1)

    def _rows(self, pairs: Sequence[tuple[Answer, Answer]]) -> tuple[Tensor, Tensor]:
        shape = (len(pairs), 2, self.context + 1)
        tokens, counted = np.zeros(shape, np.int64), np.zeros(shape, bool)
        for i, pair in enumerate(pairs):
            for side, answer in enumerate(pair):
                tokens[i, side, : len(answer.tokens)] = answer.tokens
                counted[i, side, : len(answer.tokens)] = answer.counted
        return torch.from_numpy(tokens), torch.from_numpy(counted[..., 1:].copy())


def _joined(prompt: np.ndarray, answer: Answer, room: int) -> Answer:
    own = answer.tokens[int(answer.counted.argmax()) :]
    counted = answer.counted[int(answer.counted.argmax()) :]
    tokens = np.concatenate([prompt, own])[:room]
    return Answer(tokens, np.concatenate([np.zeros(len(prompt), bool), counted])[:room])


def _others(prompts: Sequence[Sequence[Message]]) -> list[int]:
    """For each the number of the next one, in a circle, that is another; itself, if all are equal."""
    doubled = [*prompts, *prompts]
    changes = [i + 1 for i, (one, two) in enumerate(pairwise(doubled)) if one != two]
    found, place = [], 0
    for i in range(len(prompts)):
        while place < len(changes) and changes[place] <= i:
            place += 1
        found.append(changes[place] % len(prompts) if place < len(changes) else i)
    return found
