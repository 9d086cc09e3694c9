"""Tokenizers of SentencePiece's kind in tokenizer.json, such as Llama 2's: BPE of characters, whose spaces are written
U+2581, and bytes in place of characters without a token (Kudo and Richardson 2018)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from genlab.errors import DataError

Added = Literal["never", "first", "always"]  # a space before a text; always: also after each special token in it
_SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_ALL_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_TO_SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_PREPEND = {"type": "Prepend", "prepend": _SPACE}


def added_space(content: Mapping[str, Any]) -> Added:
    """Where a tokenizer adds a space that no text has.

    Only rules are let through that need a time proportional to the text, and keep it whole. Raises DataError, saying
    which is another.
    """
    model = content["model"]
    if not model.get("byte_fallback") or model.get("type", "BPE") != "BPE":
        raise DataError(f"its model is {model.get('type', 'another')}, without bytes for characters that have no token")
    if not model["vocab"].keys() >= _ALL_BYTES:
        raise DataError("it has no tokens for some bytes")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise DataError("its tokens mark where words begin or end")
    if "ByteFallback" not in {part.get("type") for part in _parts(content.get("decoder"), "decoders")}:
        raise DataError("its decoder knows no bytes")
    added: Added = "never"
    for part in _parts(content.get("normalizer"), "normalizers"):
        if part == _PREPEND:
            added = "always"
        elif part != _TO_SPACE:
            raise DataError(f"its normalizer {part.get('type')} is not supported")
    for part in _parts(content.get("pre_tokenizer"), "pretokenizers"):
        if part.get("type") == "Metaspace" and part.get("replacement") == _SPACE:
            scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
            added = scheme if added == "never" else added
        elif part.get("type") != "Split" or part.get("pattern") != {"String": " "}:
            raise DataError(f"its pre_tokenizer {part.get('type')} is not supported")
    return added


def without_added_space(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same tokenizer for texts that go on from others."""
    kept = [part for part in _parts(content.get("normalizer"), "normalizers") if part != _PREPEND]
    before = [
        {**part, "prepend_scheme": "never"} if part.get("type") == "Metaspace" else part
        for part in _parts(content.get("pre_tokenizer"), "pretokenizers")
    ]
    return {
        **content,
        "normalizer": {"type": "Sequence", "normalizers": kept} if kept else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": before} if before else None,
    }


def bytes_of(token: str) -> bytes:
    """What a token of the model stands for."""
    found = _BYTE.fullmatch(token)
    return bytes([int(found[1], 16)]) if found else token.replace(_SPACE, " ").encode()


def stays_before_spaces(content: Mapping[str, Any]) -> bool:
    """Whether texts have the same tokens where they are cut before a space that follows another character."""
    has_others = any(not token["special"] for token in content["added_tokens"])
    inside = re.compile(f"[^{_SPACE}]{_SPACE}")
    return not has_others and not any(inside.search(token) for token in content["model"]["vocab"])


def _parts(node: Mapping[str, Any] | None, name: str) -> Iterator[Mapping[str, Any]]:
    """A rule, or those of a sequence."""
    if not node:
        return
    if node.get("type") != "Sequence":
        yield node
        return
    for part in node[name]:
        yield from _parts(part, name)
