"""Byte-level tokenizers of the package ``tokenizers``."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from genlab.data.tokenizer.base import Special, Tokenizer, outside, utf8
from genlab.data.tokenizer.rules import are_plain, check_rules, without_panics
from genlab.errors import ConfigError, DataError

if TYPE_CHECKING:
    import tokenizers

_MOST_TOKENS = 1 << 22  # no tokenizer has more
# Long texts are cut before a space that follows another character, where no token crosses; U+2581 may be a space.
_PIECE = re.compile(r"(?s).{65536}.*?(?<=[^\s\u2581])(?= )|.+")


class ByteLevel(Tokenizer):
    """A byte-level BPE (Radford et al. 2019): any text can be encoded and decoded without loss.

    Special tokens that occur in a text are encoded as plain text.
    """

    def __init__(self, end_token: str | None, begin_token: str | None = None):
        """Raises ConfigError, naming the extra, if the package is not installed."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads hang, or warn, in forked processes
        try:
            import tokenizers
        except ImportError as error:
            raise ConfigError("this tokenizer needs a package: pip install 'genlab[text]'") from error
        self._end_token, self._begin_token = end_token, begin_token
        self._core: tokenizers.Tokenizer | None = None
        self._bytes: list[bytes] = []  # of each token
        self._special: dict[str, Special] = {}
        self._is_plain = True  # its rules, see are_plain

    @property
    def end_token(self) -> str | None:
        """The text of the token that ends a document."""
        return self._end_token

    @property
    def begin(self) -> int | None:
        return None if self._begin_token is None else self.core.token_to_id(self._begin_token)

    @property
    def begin_token(self) -> str | None:
        """The text of the token before a document."""
        return self._begin_token

    @property
    def core(self) -> "tokenizers.Tokenizer":
        assert self._core is not None, "not trained yet"
        return self._core

    @property
    def vocab_size(self) -> int:
        return len(self._bytes) if self.core else 0

    @property
    def end(self) -> int | None:
        return None if self._end_token is None else self.core.token_to_id(self._end_token)

    def special(self) -> Mapping[str, Special]:
        return self._special if self.core else {}

    def encode(self, text: str) -> np.ndarray:
        utf8(text)
        return self.joined((self.core, piece) for piece in pieces(text))

    def joined(self, parts: "Iterable[tuple[tokenizers.Tokenizer, str]]") -> np.ndarray:
        """(L,) int64: the tokens of the parts of a text, each by a tokenizer. Raises DataError: it fails."""
        with nullcontext() if self._is_plain else without_panics():
            found = [core.encode(part, add_special_tokens=False).ids for core, part in parts]
        return np.concatenate([np.zeros(0, np.int64), *(np.array(ids, dtype=np.int64) for ids in found)])

    def bytes_of(self, token: int) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise outside(token, self.vocab_size)
        return self._bytes[token]

    def state(self) -> str:
        return self.core.to_str()

    def load_state(self, state: str) -> None:
        """Raises DataError also if tokens are not bytes, or a token that is asked for is not there."""
        try:
            content = json.loads(state)
            _check_size(content)
            bytes_of = self.bytes_by(content)
            if not self._is_plain:
                check_rules(state, content)
            core = made_core(state)
        except DataError as error:
            raise DataError(f"this tokenizer cannot be used: {error}") from error
        except Exception as error:  # the only kind that the package has
            raise DataError(f"this is not the state of a tokenizer ({' '.join(str(error).split())}).") from error
        special = {token["id"]: token["special"] for token in content["added_tokens"]}
        names = ", ".join(token["content"] for token in content["added_tokens"] if token["special"]) or "none"
        if self._end_token is not None and not special.get(core.token_to_id(self._end_token)):
            raise DataError(
                f"the tokenizer has no special token {self._end_token} (it has: {names}). "
                "Set data.tokenizer.end_token to one of them, or to null."
            )
        if self._begin_token is not None and not special.get(core.token_to_id(self._begin_token)):
            raise DataError(
                f"the tokenizer has no special token {self._begin_token} (it has: {names}). "
                "Set data.tokenizer.begin_token to one of them, or to null."
            )
        vocabulary = core.get_vocab(with_added_tokens=True)
        self._bytes = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for text, token in vocabulary.items():
            if token not in special:
                self._bytes[token] = bytes_of(text)
            elif not special[token]:
                self._bytes[token] = text.encode()
        self._special = {
            token["content"]: Special(token["id"], bool(token.get("lstrip")), bool(token.get("rstrip")))
            for token in content["added_tokens"]
            if token["special"]
        }
        self._core = core

    def bytes_by(self, content: dict[str, Any]) -> Callable[[str], bytes]:
        """How the tokens in a tokenizer.json stand for bytes. Raises DataError: it is not byte-level."""
        if not is_byte_level(content):
            raise DataError("it is not byte-level, as GPT-2's and Llama 3's are.")
        self._is_plain = are_plain(content)
        return _bytes_of


def made_core(state: str) -> "tokenizers.Tokenizer":
    """The package's tokenizer. Raises its kind of Exception."""
    from tokenizers import Tokenizer as Core

    core = Core.from_str(state)
    core.encode_special_tokens = True
    core.no_truncation()
    core.no_padding()
    return core


def pieces(text: str) -> Iterator[str]:
    """A long text in parts with the same tokens as in the whole, since the package needs much memory for long texts."""
    return (match[0] for match in _PIECE.finditer(text))


def _check_size(content: dict[str, Any]) -> None:
    """Raises DataError for absurd numbers of tokens, which take the package minutes."""
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, dict) and max(vocabulary.values(), default=0) >= _MOST_TOKENS:
        raise DataError(f"it numbers its tokens up to more than {_MOST_TOKENS:,}.")


def is_byte_level(content: dict[str, Any]) -> bool:
    decoder = content["decoder"] or {}
    return "ByteLevel" in {part["type"] for part in decoder.get("decoders", [decoder]) if part}


def _bytes_of(token: str) -> bytes:
    return b"".join(_BYTES.get(character) or character.encode() for character in token)


def characters_of_bytes() -> dict[str, bytes]:
    """GPT-2's mapping of bytes to characters: visible ones unchanged, the others from U+0100 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(b): bytes([b]) for b in visible} | {chr(256 + i): bytes([byte]) for i, byte in enumerate(others)}


_BYTES = characters_of_bytes()
