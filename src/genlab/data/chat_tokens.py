"""Conversations as tokens, and which of them are answers."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from genlab.data.chat_template import ChatTemplate
from genlab.data.conversation import ANSWERS, Message
from genlab.data.tokenizer.base import Special, Tokenizer
from genlab.errors import ConfigError, DataError

_TEXT = Special(-1)  # what is text, where a special token could be
_SHOWN = 20  # characters of a difference
_PRIVATE = range(0xF0000, 0xFFFFE)  # code points that stand for others for a while


class ChatTokens:
    """Tokens of conversations by a template and a tokenizer that has been trained.

    Special tokens come from the template alone: where a message spells one, it stays text. An answer reaches from where
    the template asks for it to its last special token, which ends it. Tokens never cross the beginning of an answer, so
    that a question has the same tokens in training as when an answer is asked for.
    """

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer):
        """Raises ConfigError: the tokenizer lacks a special token of the template."""
        self.template, self.tokenizer = template, tokenizer
        self.special = {text: token for text, token in tokenizer.special().items() if text}
        lacking = [marker for marker in template.markers if marker not in self.special]
        if lacking:
            raise ConfigError(
                f"data.template={template.name}: the tokenizer has no special token {', '.join(lacking)}. Use "
                "data.template=plain."
            )
        texts = "|".join(map(re.escape, sorted(self.special, key=len, reverse=True)))
        self._special = re.compile(texts) if texts else None
        self._beginnings = re.compile(f"(?=(?:{texts}))") if texts else None

    @cached_property
    def end(self) -> int:
        """The token that ends an answer. Raises DataError: the template ends it with none."""
        messages = [{"role": "user", "content": "a"}, {"role": ANSWERS, "content": "b"}]
        text, ((start, stop),), _ = self._laid_out(messages, "a trial")
        found = [self.special[match[0]].token for match in self._found(text[start:stop])]
        return found[-1]

    def conversation(self, messages: Sequence[Message], where: str) -> tuple[np.ndarray, np.ndarray]:
        """(L,) int64 tokens, and (L,) bool: which belong to an answer.

        Raises:
            DataError: the template fails, is not prefix-preserving, or ends answers with no special token;
                ``where`` the conversation stands.
            UnknownCharacterError: the tokenizer has no token for a character.
        """
        text, answers, back = self._laid_out(messages, where)
        pieces = list(self._pieces(text, answers, back))
        tokens = np.concatenate([ids for ids, _ in pieces])
        return tokens, np.concatenate([np.full(len(ids), is_answer) for ids, is_answer in pieces])

    def prompt(self, messages: Sequence[Message], where: str) -> np.ndarray:
        """(L,) int64: the tokens that an answer follows."""
        text, answers, back = self._laid_out(messages, where, asked=True)
        return np.concatenate([ids for ids, _ in self._pieces(text, answers, back)])

    @cached_property
    def asks(self) -> int:
        """The token that answers follow."""
        return int(self.prompt([{"role": "user", "content": "a"}], "a trial")[-1])

    def answer(self, tokens: Sequence[int]) -> str:
        """The text of an answer."""
        return self.tokenizer.decode(tokens, self.asks)

    def plain(self, messages: Sequence[Message], where: str) -> str:
        """The text of a conversation without its special tokens, which a tokenizer is learned from."""
        text, _, back = self._laid_out(messages, where)
        text = self._special.sub("", text) if self._special else text
        return text.translate(back)

    def _laid_out(
        self, messages: Sequence[Message], where: str, asked: bool = False
    ) -> tuple[str, list[tuple[int, int]], dict[int, int]]:
        """The text, where its answers begin and end, and which characters stand for others in it."""
        guarded, back = self._guarded(messages)
        places = [i for i, message in enumerate(messages) if message["role"] == ANSWERS]
        whole = (len(messages), asked)
        wanted = [whole, *(pair for i in places for pair in ((i, True), (i + 1, False)))]
        text, *parts = self.template.rendered(guarded, wanted)
        answers = []
        for before, through in zip(parts[::2], parts[1::2], strict=True):
            for longer, shorter in ((through, before), (text, through)):
                self._check_prefix(longer, shorter, where)
            ends = [match.end() for match in self._found(through[len(before) :])]
            if not ends:
                raise DataError(
                    f"the chat template of {self.template.name} ends no answer with a special token of the tokenizer, "
                    "so a model would not learn to end one. Use data.template=chatml."
                )
            answers.append((len(before), len(before) + ends[-1]))
        return text, answers, back

    def _check_prefix(self, longer: str, shorter: str, where: str) -> None:
        if longer.startswith(shorter):
            return
        place = next(i for i, c in enumerate(shorter) if i >= len(longer) or longer[i] != c)
        first, then = (repr(text[place : place + _SHOWN]) for text in (shorter, longer))
        raise DataError(
            f"the chat template of {self.template.name} is not prefix-preserving: it changes what precedes a message "
            f"({where}, character {place}: {first} becomes {then}). Use data.template=chatml."
        )

    def _guarded(self, messages: Sequence[Message]) -> tuple[list[Message], dict[int, int]]:
        """Messages in which no special token can be found: the first character of each is another one for a while."""
        found = {message["content"][match.start()] for message in messages for match in self._spelled(message)}
        if not found:
            return [dict(message) for message in messages], {}
        there = {ord(c) for message in messages for c in message["content"]}
        free = iter([code for code in _PRIVATE if code not in there][: len(found)])
        of = {c: chr(next(free)) for c in sorted(found)}
        guarded = []
        for message in messages:
            content = list(message["content"])
            for match in self._spelled(message):
                content[match.start()] = of[content[match.start()]]
            guarded.append({**message, "content": "".join(content)})
        return guarded, {ord(stands): ord(c) for c, stands in of.items()}

    def _spelled(self, message: Message) -> Iterator[re.Match[str]]:
        return iter(()) if self._beginnings is None else self._beginnings.finditer(message["content"])

    def _found(self, text: str) -> Iterator[re.Match[str]]:
        return iter(()) if self._special is None else self._special.finditer(text)

    def _pieces(
        self, text: str, answers: Sequence[tuple[int, int]], back: dict[int, int]
    ) -> Iterator[tuple[np.ndarray, bool]]:
        """Tokens piece by piece, and whether it belongs to an answer."""
        begin = self.tokenizer.begin
        adds = begin is not None and self.template.is_built_in  # others write it themselves
        yield np.array([begin] if adds else [], dtype=np.int64), False
        places = [0, *(place for answer in answers for place in answer), len(text)]
        before: Special | None = None
        for number, (start, stop) in enumerate(pairwise(places)):
            place = start
            for match in self._found(text[start:stop]):
                found = self.special[match[0]]
                plain = text[place : start + match.start()]
                yield self._plain(plain, before, found, back), number % 2 == 1
                yield np.array([found.token]), number % 2 == 1
                place, before = start + match.end(), found
            yield self._plain(text[place:stop], before, _TEXT, back), number % 2 == 1
            before = _TEXT if place < stop else before

    def _plain(self, text: str, before: Special | None, after: Special, back: dict[int, int]) -> np.ndarray:
        """The tokens of text between others; ``before`` is None where it begins the whole."""
        text = text.lstrip() if before is not None and before.takes_space_after else text
        text = (text.rstrip() if after.takes_space_before else text).translate(back)
        if not text:
            return np.zeros(0, np.int64)
        if before is None:
            return self.tokenizer.encode(text)
        return self.tokenizer.encode_within(text, after_special=before is not _TEXT)
