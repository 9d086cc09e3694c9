"""Pairs of answers to one prompt, of which one was preferred, and how they are read from rows of a data set."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genlab.data.conversation import ANSWERS, Columns, Conversation, Message, checked, read_messages
from genlab.errors import DataError

_SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Pair(Conversation):
    """A conversation that ends with the chosen answer, and the same one with the rejected answer."""

    rejected: tuple[Message, ...] = ()
    asked: int = 0  # messages of the prompt, with which both begin
    tie: bool = False  # neither is better
    margin: float = 0.0  # by how much the chosen one is better, for reward models

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.messages[: self.asked]

    @property
    def answers(self) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        """What follows the prompt: chosen, rejected."""
        return self.messages[self.asked :], self.rejected[self.asked :]

    def row(self) -> bytes:
        known = [self.messages, self.rejected, self.asked, self.tie]
        return json.dumps([*known, self.margin] if self.margin else known).encode()


class PairColumns(Columns):
    """Rows as TRL has them: ``prompt``, ``chosen`` and ``rejected``, each a text or a list of messages. Without a
    prompt, or with a text as prompt beside whole conversations, it is the messages with which both begin. ``tie``,
    where there is one, says that neither is better, and ``margin`` by how much the chosen one is, for reward models."""

    def read(self, row: Mapping[str, Any], where: str) -> Pair:
        """Raises DataError: the row is no pair; ``where`` it stands."""
        lacking = [side for side in _SIDES if side not in row]
        if lacking:
            raise DataError(
                f"{where}: there is no {lacking[0]} answer (it has: {', '.join(map(str, row)) or 'nothing'}). A line "
                "of preferences has prompt, chosen and rejected."
            )
        tie = row.get("tie", False)
        if not isinstance(tie, bool):
            raise DataError(f"{where}: tie is {tie!r}, and not true or false.")
        margin = 0.0 if row.get("margin") is None else row["margin"]
        if type(margin) not in (int, float) or not 0 <= margin < math.inf:
            raise DataError(f"{where}: margin is {str(margin)[:50]!r}, and not a number of 0 or more.")
        chosen, rejected = (_messages(row, side, where) for side in _SIDES)
        if chosen[0]["role"] == ANSWERS:
            prompt = _prompt(row, where)
            chosen, rejected = [*prompt, *chosen], [*prompt, *rejected]
        return Pair(
            checked(chosen, f"{where}: chosen"),
            where,
            rejected=checked(rejected, f"{where}: rejected"),
            asked=_in_common(chosen, rejected, where),
            tie=tie,
            margin=float(margin),
        )


def _messages(row: Mapping[str, Any], column: str, where: str, role: str = ANSWERS) -> list[Message]:
    """A text is what ``role`` says."""
    value = row.get(column)
    if isinstance(value, str):
        value = [{"role": role, "content": value}]
    return read_messages(value, where, column)


def _prompt(row: Mapping[str, Any], where: str) -> list[Message]:
    if not row.get("prompt"):
        raise DataError(f"{where}: there is no prompt that chosen and rejected answer.")
    return _messages(row, "prompt", where, "user")


def _in_common(chosen: list[Message], rejected: list[Message], where: str) -> int:
    """Messages with which both begin; the next one of each is an answer. Raises DataError: it is not."""
    most = min(len(chosen), len(rejected)) - 1
    found = next((i for i in range(most) if chosen[i] != rejected[i]), most)
    if not chosen[found]["role"] == rejected[found]["role"] == ANSWERS:
        raise DataError(f"{where}: chosen and rejected do not answer the same prompt (message {found + 1} differs).")
    return found
