"""Answers that a policy gave, as rewards see them, and the data whose prompts it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class AsksQuestions(Protocol):
    """Data whose prompts can be answered."""

    chat: Any  # a genlab.data.chat_tokens.ChatTokens

    def known(self, split: Any) -> Sequence[Any]:
        """The conversations of a split, each a genlab.data.conversation.Conversation."""
        ...

    def longest_prompt(self) -> tuple[int, str]:
        """In tokens, over both splits, and where it stands."""
        ...


@dataclass(frozen=True)
class Answers:
    """M answers of up to L tokens to prompts of a split of the data."""

    data: Any  # AsksQuestions
    split: str
    numbers: Sequence[int]  # of the conversations whose last answer is given anew, in their split
    texts: Sequence[str]  # of the answers, without the token that ends them
    sequences: Tensor  # (M, P + L) prompts and answers, with 0 after the end
    padding: Tensor  # (M,): how many tokens at the beginning of each row are padding
    length: Tensor  # (M,) tokens of the answers, with the one that ends them
    ended: Tensor  # (M,) bool; false: cut at ``limit`` tokens
    limit: int

    @property
    def last(self) -> Tensor:
        """(M,): the place of the last token of each answer in its row."""
        prompts = self.sequences.shape[1] - self.most
        return prompts + self.length - 1

    @property
    def most(self) -> int:
        """L."""
        return int(self.length.max())
