"""Byte-level tokenizers of the package ``tokenizers``."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from genlab.data.tokenizer.base import Special, Tokenizer, outside, utf8
from genlab.data.tokenizer.rules import are_plain, check_rules, without_panics
from genlab.errors import ConfigError, DataError

if TYPE_CHECKING:
    import tokenizers

_MOST_TOKENS = 1 << 22  # no tokenizer has more
# Long texts are cut before a space that follows another character, where no token crosses.
_PIECE = re.compile(r"(?s).{65536}.*?(?<=\S)(?= )|.+")


class ByteLevel(Tokenizer):
    """A byte-level BPE (Radford et al. 2019): any text can be encoded and decoded without loss.

    Special tokens that occur in a text are encoded as plain text.
    """

    def __init__(self, end_token: str | None):
        """Raises ConfigError, naming the extra, if the package is not installed."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads hang, or warn, in forked processes
        try:
            import tokenizers
        except ImportError as error:
            raise ConfigError("this tokenizer needs a package: pip install 'genlab[text]'") from error
        self._end_token = end_token
        self._core: tokenizers.Tokenizer | None = None
        self._bytes: list[bytes] = []  # of each token
        self._special: dict[str, Special] = {}
        self._is_plain = True  # its rules, see are_plain

    @property
    def end_token(self) -> str | None:
        """The text of the token that ends a document."""
        return self._end_token

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
        with nullcontext() if self._is_plain else without_panics():
            found = [self.core.encode(piece, add_special_tokens=False).ids for piece in pieces(text)]
        return np.concatenate([np.zeros(0, np.int64), *(np.array(ids, dtype=np.int64) for ids in found)])

    def bytes_of(self, token: int) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise outside(token, self.vocab_size)
        return self._bytes[token]

    def state(self) -> str:
        return self.core.to_str()

    def load_state(self, state: str) -> None:
        """Raises DataError also if tokens are not bytes, or the end token is not there."""
        from tokenizers import Tokenizer as Core

        try:
            content = json.loads(state)
            is_byte_level, self._is_plain = _is_byte_level(content), are_plain(content)
            if is_byte_level and not self._is_plain:
                check_rules(state, content)
            core = Core.from_str(state) if is_byte_level else None
        except DataError as error:
            raise DataError(f"this tokenizer cannot be used: {error}") from error
        except Exception as error:  # the only kind that the package has
            raise DataError(f"this is not the state of a tokenizer ({' '.join(str(error).split())}).") from error
        if core is None:
            raise DataError(
                "only byte-level tokenizers can be used, such as GPT-2's or Llama 3's; this one is of another kind."
            )
        special = {token["id"]: token["special"] for token in content["added_tokens"]}
        if self._end_token is not None and not special.get(core.token_to_id(self._end_token)):
            names = ", ".join(token["content"] for token in content["added_tokens"] if token["special"])
            raise DataError(
                f"the tokenizer has no special token {self._end_token} (it has: {names or 'none'}). "
                "Set data.tokenizer.end_token to one of them, or to null."
            )
        core.encode_special_tokens = True
        core.no_truncation()
        core.no_padding()
        vocabulary = core.get_vocab(with_added_tokens=True)
        self._bytes = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for text, token in vocabulary.items():
            if token not in special:
                self._bytes[token] = b"".join(_BYTES.get(character) or character.encode() for character in text)
            elif not special[token]:
                self._bytes[token] = text.encode()
        self._special = {
            token["content"]: Special(token["id"], bool(token.get("lstrip")), bool(token.get("rstrip")))
            for token in content["added_tokens"]
            if token["special"]
        }
        self._core = core


def pieces(text: str) -> Iterator[str]:
    """A long text in parts with the same tokens as in the whole, since the package needs much memory for long texts."""
    return (match[0] for match in _PIECE.finditer(text))


def _is_byte_level(content: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is byte-level. False for absurd numbers of tokens, which take the package minutes."""
    decoder = content["decoder"] or {}
    kinds = {part["type"] for part in decoder.get("decoders", [decoder]) if part}
    return "ByteLevel" in kinds and max(content["model"]["vocab"].values(), default=0) < _MOST_TOKENS


def characters_of_bytes() -> dict[str, bytes]:
    """GPT-2's mapping of bytes to characters: visible ones unchanged, the others from U+0100 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(b): bytes([b]) for b in visible} | {chr(256 + i): bytes([byte]) for i, byte in enumerate(others)}


_BYTES = characters_of_bytes()
