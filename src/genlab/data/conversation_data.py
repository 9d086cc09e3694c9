"""The base class of conversations as data: tokens in rows, and which predictions count."""

import hashlib
import logging
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from genlab.data.array_cache import cached_array, digest
from genlab.data.base import DataSpec, KeyedDataset, Split
from genlab.data.chat_template import ChatTemplate, template_of
from genlab.data.chat_tokens import ChatTokens
from genlab.data.conversation import Conversation, Message
from genlab.data.packing import Rows, packed
from genlab.data.prompted import Prompted
from genlab.data.text import TextDataModule, start_token
from genlab.data.tokenizer.base import Tokenizer, UnknownCharacterError
from genlab.errors import ConfigError, DataError
from genlab.progress import progress

_MOST_LEFT_OUT = 0.5  # share of conversations
_log = logging.getLogger(__name__)


class ConversationData(TextDataModule):
    """Conversations by split, in rows of ``context`` tokens. A subclass gives them in :meth:`conversations`.

    An example is a row: a conversation, or with ``packing`` as many as fit. ``counted`` says which predictions are
    learnt and measured: those of answers with the token that ends them, or all.
    """

    counts_some = True  # a model's loss has to heed which predictions count

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str | None = None,
        counted: Literal["answers", "all"] = "answers",
        packing: bool = True,
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
            template: chatml, plain, or a file of jinja2; None: that of the tokenizer's folder, and chatml for a
                tokenizer that is learned from the data
            counted: which predictions count, those of answers or all
            packing: several conversations in a row, none of which sees another
            context: tokens that the model sees at once; longer conversations are cut at their end
            cache_dir: None: $GENLAB_CACHE, else ~/.cache/genlab
            batch_size: rows in a step, over all ranks together
            num_workers: processes that assemble batches
            limit: train on the first ``limit`` rows only; None: on all
            seed: of the order of the rows
        """
        super().__init__(tokenizer, context, cache_dir, batch_size, num_workers, limit, seed)
        if counted not in ("answers", "all"):
            raise ConfigError(f"data.counted must be answers or all, got {counted}.")
        self._asked_template, self.counted, self.packing = template, counted, packing
        self.asks = False  # see ``ask``
        self._known: dict[Split, Sequence[Conversation]] = {}
        self._prompts: dict[Split, list[np.ndarray]] = {}
        self._in_rows: dict[Split, Rows] = {}

    @property
    def unit(self) -> str:
        return "prompts" if self.asks else "rows of conversations"

    @abstractmethod
    def conversations(self, split: Split) -> Sequence[Conversation]:
        """Those of a split, in an order that is always the same. Raises DataError with a remedy."""

    @cached_property
    def template(self) -> ChatTemplate:
        """Raises ConfigError: there is none."""
        found = template_of(self._asked_template, self._tokenizer)
        self._tokenizer.reserve(found.markers)
        return found

    @property
    def tokenizer(self) -> Tokenizer:
        """With the special tokens of the template."""
        self.template  # noqa: B018  which reserves them
        found: Tokenizer = super().tokenizer
        return found

    @cached_property
    def chat(self) -> ChatTokens:
        """Template and tokenizer together."""
        return ChatTokens(self.template, self.tokenizer)

    def known(self, split: Split) -> Sequence[Conversation]:
        """The conversations of a split, found once."""
        if split not in self._known:
            self._known[split] = self.conversations(split)
        return self._known[split]

    def documents(self, split: Split) -> Iterator[str]:
        """The texts of conversations without special tokens."""
        reader = text_reader(self.template)
        return (reader.plain(one.messages, one.where) for one in self.known(split))

    def _hash_of_text(self, split: Split) -> str:
        found = hashlib.blake2b(self.template.state().encode(), digest_size=16)
        for conversation in self.known(split):
            row = conversation.row()
            found.update(len(row).to_bytes(8, "little") + row)
        return found.hexdigest()

    def sequences(self, split: Split) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each conversation its tokens (L,) and which belong to an answer (L,), whole; from the cache."""
        key = digest(1, self.tokenizer.fingerprint(), self.text_hash(split))
        flat = cached_array(self.cache, f"conversations-{key}", lambda: self._blocks(split))
        found, place = [], 0
        while place < len(flat):
            length = int(flat[place])
            both = flat[place + 1 : place + 1 + length]
            found.append((both >> 1, (both & 1).astype(bool)))
            place += 1 + length
        return found

    def _blocks(self, split: Split) -> Iterator[np.ndarray]:
        """Each conversation as its length, then twice its tokens, one more in answers."""
        yield np.zeros(0, np.uint32)
        with progress(f"tokenizing {self.title(split)}", None) as advance:
            for conversation in self.known(split):
                tokens, is_answer = self.encoded_messages(conversation.messages, conversation.where)
                yield np.insert(tokens * 2 + is_answer, 0, len(tokens)).astype(np.uint32)
                advance(1)

    def encoded_messages(self, messages: Sequence[Message], where: str) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (L,) and which belong to an answer (L,). Raises DataError: there is no token for a character."""
        try:
            return self.chat.conversation(messages, where)
        except UnknownCharacterError as error:
            raise DataError(
                f"{where}: {error.what}: the training conversations have none. Train with "
                "data/tokenizer=bytes, or data.tokenizer.unknown=true."
            ) from error

    def tokens(self, split: Split) -> np.ndarray:
        """(L,) all tokens of a split, one conversation after the other."""
        return np.concatenate([tokens for tokens, _ in self.sequences(split)]).astype(np.int64)

    def fitting(self, split: Split) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The tokens (L,) of conversations, at most ``context`` + 1, and whether the prediction of each counts, the
        first one's never. Those in which nothing counts are left out.

        Raises DataError: most are.
        """
        whole = self.sequences(split)
        kept, counts, lacking = [], [], []
        for number, (tokens, is_answer) in enumerate(whole):
            counted = is_answer[: self.context + 1] | (self.counted == "all")
            counted[:1] = False
            if counted.any():
                kept.append(tokens[: self.context + 1])
                counts.append(counted)
            else:
                lacking.append(number)
        self._tell(split, [len(tokens) for tokens, _ in whole], lacking)
        return kept, counts

    def _tell(self, split: Split, lengths: Sequence[int], lacking: Sequence[int]) -> None:
        """Say what is cut and left out."""
        cut = sum(length > self.context + 1 for length in lengths)
        if not cut:
            return
        share, needed = len(lacking) / len(lengths), max(lengths) - 1
        first = self.known(split)[lacking[0]].where if lacking else ""
        if share > _MOST_LEFT_OUT:
            raise DataError(
                f"nothing is left to count in {len(lacking):,} of the {len(lengths):,} conversations of "
                f"{self.title(split)} ({share:.0%}; the first is {first}): their answers begin beyond "
                f"data.context={self.context} tokens. Use data.context={needed}."
            )
        if os.environ.get("LOCAL_RANK", "0") == "0":
            left_out = (
                f" In {len(lacking):,} of them ({share:.1%} of all; the first is {first}) nothing is left to count: "
                "they are left out."
            )
            _log.warning(
                f"{cut:,} of the {len(lengths):,} conversations of {self.title(split)} ({cut / len(lengths):.1%}) have "
                f"more than data.context={self.context} tokens, the longest {needed + 1:,}: their ends are cut."
                + left_out
                * bool(lacking)
            )

    def ask(self) -> None:
        """From now on its examples are prompts alone, each that of a conversation's last answer."""
        self.asks = True

    def prompts(self, split: Split) -> list[np.ndarray]:
        """The tokens (L,) that the last answers of the conversations of a split follow."""
        if split not in self._prompts:
            known = self.known(split)
            self._prompts[split] = [self.chat.prompt(one.prompt, one.where) for one in known]
        return self._prompts[split]

    def longest_prompt(self) -> tuple[int, str]:
        """In tokens, over both splits, and where it stands."""
        found = [(len(prompt), split, i) for split in self.splits for i, prompt in enumerate(self.prompts(split))]
        length, split, number = max(found, key=lambda one: one[0])
        return length, self.known(split)[number].where

    def dataset(self, split: Split) -> KeyedDataset:
        if self.asks:
            prompts = self.prompts(split)
            return Prompted(prompts[: self.limit] if split == "train" else prompts, split != "train")
        if split not in self._in_rows:
            tokens, counted = self.fitting(split)
            room = self.context + 1
            rows = packed([len(own) for own in tokens], room) if self.packing else [[i] for i in range(len(tokens))]
            limited = rows[: self.limit] if split == "train" else rows
            self._in_rows[split] = Rows(tokens, counted, limited, self.context, self.packing)
        return self._in_rows[split]

    @property
    def spec(self) -> DataSpec:
        """Prepares both splits, so that what is wrong with one is reported at once."""
        self.dataset("train"), self.dataset("val")
        self.chat.end  # noqa: B018  raises if answers have no end
        return DataSpec("text", (self.context,), self.tokenizer.vocab_size, start_token=start_token(self.tokenizer))

    def title(self, split: Split) -> str:
        return "the training conversations" if split == "train" else "the held-out conversations"


def text_reader(template: ChatTemplate) -> ChatTokens:
    """For texts that a tokenizer is still to be learned from: of its special tokens the texts alone are known."""
    from genlab.data.tokenizer.bytes import Bytes

    known = Bytes()
    known.reserve([*template.markers, *filter(None, template.variables.values())])
    return ChatTokens(template, known)
