"""Tokenizers of genlab as tokenizer.json, the format of the package ``tokenizers``."""

import json
from collections.abc import Mapping
from typing import Any

from genlab.data.tokenizer.base import END, CaptionTokenizer, Special
from genlab.data.tokenizer.byte_level import ByteLevel, characters_of_bytes
from genlab.data.tokenizer.bytes import Bytes
from genlab.data.tokenizer.characters import Characters
from genlab.data.tokenizer.pretrained import token_before

_UNKNOWN = "\ufffd"


def as_json(tokenizer: CaptionTokenizer) -> tuple[dict[str, Any], str | None]:
    """The content of a tokenizer.json that gives the same tokens, and the end token, if there is one.

    Raises ValueError, with the reason: it cannot be said in that format.
    """
    if isinstance(tokenizer, ByteLevel):
        return _with_begin(json.loads(tokenizer.state()), tokenizer), tokenizer.end_token
    if isinstance(tokenizer, Bytes):
        return _of_bytes(tokenizer), END
    if isinstance(tokenizer, Characters):
        return _of_characters(tokenizer), END if tokenizer.end is not None else None
    raise ValueError(f"a tokenizer of the class {type(tokenizer).__name__} has no equivalent there")


def _with_begin(content: dict[str, Any], tokenizer: ByteLevel) -> dict[str, Any]:
    """The rules of a tokenizer, which put there before a text what is put here."""
    token = tokenizer.begin_token
    if token_before(content) == token:
        return content
    begin = {"SpecialToken": {"id": token, "type_id": 0}}
    one, two = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    ends = {
        "type": "TemplateProcessing",
        "single": [begin, one],
        "pair": [begin, one, two],
        "special_tokens": {token: {"id": token, "ids": [tokenizer.begin], "tokens": [token]}},
    }
    return {**content, "post_processor": None if token is None else ends}


def _whole(model: dict[str, Any], splits: Any, decoder: Any, special: Mapping[str, Special]) -> dict[str, Any]:
    kind = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": found.token, "content": text, **kind} for text, found in special.items()],
        "normalizer": None,
        "pre_tokenizer": splits,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def _of_bytes(tokenizer: Bytes) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    vocabulary = {character: content[0] for character, content in characters_of_bytes().items()}
    model: dict[str, Any] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary | {text: found.token for text, found in tokenizer.special().items()},
        "merges": [],
    }
    return _whole(model, byte_level, byte_level, tokenizer.special())


def _of_characters(tokenizer: Characters) -> dict[str, Any]:
    vocabulary = {character: number for number, character in enumerate(tokenizer.characters)}
    if tokenizer.unknown is not None and _UNKNOWN in vocabulary:
        raise ValueError("its characters contain U+FFFD, which stands for unknown ones")
    vocabulary |= {text: found.token for text, found in tokenizer.special().items()}
    if tokenizer.unknown is not None:
        vocabulary[_UNKNOWN] = tokenizer.unknown
    splits = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
    model: dict[str, Any] = {"type": "WordLevel", "vocab": vocabulary, "unk_token": _UNKNOWN}
    return _whole(model, splits, {"type": "Fuse"}, tokenizer.special())
