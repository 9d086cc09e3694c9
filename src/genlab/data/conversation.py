"""Conversations: their messages, and how they are read from rows of a data set."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genlab.data.held_out import held_out_names
from genlab.errors import DataError

Message = dict[str, str]  # role and content
ROLES = ("system", "user", "assistant", "tool")
ANSWERS = "assistant"
# Words that data sets have for roles, ShareGPT's among them.
_ROLE_OF = {**{role: role for role in ROLES}, "human": "user", "gpt": ANSWERS, "model": ANSWERS}
_KEYS = (("messages", "role", "content"), ("conversations", "from", "value"))


@dataclass(frozen=True)
class Conversation:
    """Messages in order, the last of them an answer."""

    messages: tuple[Message, ...]
    where: str  # where it was read, for messages
    facts: str = ""  # what its source knows about it, for a checker of answers

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All messages but the last answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The last one."""
        return self.messages[-1]["content"]

    @property
    def question(self) -> str:
        """What precedes the first answer, by which conversations are held out: the same words are on one side."""
        first = next(i for i, message in enumerate(self.messages) if message["role"] == ANSWERS)
        return json.dumps(self.messages[:first])

    def row(self) -> bytes:
        """All that training and evaluation know of it."""
        return json.dumps([self.messages, self.facts]).encode()


@dataclass(frozen=True)
class Columns:
    """The columns of a question and its answer, for rows without messages."""

    prompt: str | None = None
    answer: str | None = None
    system: str | None = None

    def read(self, row: Mapping[str, Any], where: str) -> Conversation:
        """Raises DataError: the row is no conversation; ``where`` it stands."""
        if self.prompt is None or self.answer is None:
            messages = _messages(row, where)
        else:
            named = (("system", self.system), ("user", self.prompt), (ANSWERS, self.answer))
            messages = [{"role": role, "content": text_of(row, column, where)} for role, column in named if column]
            if self.system and not messages[0]["content"]:
                del messages[0]
        return Conversation(checked(messages, where), where)


def read_lines(lines: Iterable[str], path: str, columns: Columns) -> Iterator[Conversation]:
    """The conversations of lines of JSON. Raises DataError, naming the line."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error}). A line is one conversation.") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: a conversation is a JSON object, with messages or columns.")
        yield columns.read(row, where)


def checked(messages: Sequence[Message], where: str) -> tuple[Message, ...]:
    """The messages up to the last answer. Raises DataError: there is none, or an empty one."""
    last = max((i for i, message in enumerate(messages) if message["role"] == ANSWERS), default=-1)
    if last < 0:
        raise DataError(f"{where}: the conversation has no answer, which is a message of the role {ANSWERS}.")
    if messages[0]["role"] == ANSWERS:
        raise DataError(f"{where}: the conversation begins with an answer. Begin it with a message of the role user.")
    for number, message in enumerate(messages[: last + 1], start=1):
        if message["role"] == ANSWERS and not message["content"].strip():
            raise DataError(f"{where}: the answer (message {number}) is empty. Leave the line out.")
    return tuple(messages[: last + 1])


def part_of(conversations: Sequence[Conversation], held_out: bool, val_fraction: float) -> list[Conversation]:
    """Those that are held out by the hash of their question, or the others. Raises DataError: there are fewer than two
    different questions."""
    questions = {conversation.question for conversation in conversations}
    if len(questions) < 2:
        raise DataError(
            "the conversations have one question in all; at least one to train and one to hold out are needed. Name "
            "held-out ones: data.val_path=..."
        )
    chosen = held_out_names(questions, val_fraction)
    return [conversation for conversation in conversations if (conversation.question in chosen) == held_out]


def _messages(row: Mapping[str, Any], where: str) -> list[Message]:
    for name, role, content in _KEYS:
        if name in row:
            return read_messages(row[name], where, name, role, content)
    raise DataError(
        f"{where}: there are no messages (it has: {', '.join(map(str, row)) or 'nothing'}). For a question and its "
        "answer, name their columns: data.prompt=... data.answer=..."
    )


def read_messages(
    rows: Any, where: str, name: str = "messages", role: str = "role", content: str = "content"
) -> list[Message]:
    """Those of a column ``name``. Raises DataError: they are none; ``where`` they stand."""
    if not isinstance(rows, list) or not rows or not all(isinstance(one, Mapping) for one in rows):
        raise DataError(f"{where}: {name} is not a list of messages, each with {role} and {content}.")
    return [_message(one, role, content, f"{where}: message {i}") for i, one in enumerate(rows, start=1)]


def _message(message: Mapping[str, Any], role: str, content: str, where: str) -> Message:
    word = message.get(role)
    if word not in _ROLE_OF:
        raise DataError(f"{where} has the role {word!r}. The roles are {', '.join(ROLES)}.")
    return {"role": _ROLE_OF[word], "content": text_of(message, content, where)}


def text_of(row: Mapping[str, Any], column: str, where: str) -> str:
    """What stands in a column. Raises DataError: no text."""
    text = row.get(column)
    if not isinstance(text, str):
        raise DataError(f"{where}: there is no text in {column} (it has: {', '.join(map(str, row))}).")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {column} is not Unicode ({text[error.start]!r}).") from error
    return text
