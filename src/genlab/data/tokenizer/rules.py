"""Checks that the rules in an untrusted tokenizer.json can be applied to any text in bounded time and memory.

Normalizers can expand a letter to a gigabyte, patterns can take forever, and invalid rules make the package's Rust
code panic. So rules other than GPT-2's are first tried in a separate process with limits.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from genlab.errors import DataError

_SECONDS = 20
_MEMORY = 4 << 30  # bytes of address space
_LONGEST = 64  # characters to which normalizers may expand one
_PATIENCE = 4 * _SECONDS  # seconds of wall clock, on a busy machine
_OTHERS = "aA0 \n\t!'.é中\u0301\U0001f600"
# Reads the rules and texts from its standard input, and prints how many tokens each text has.
_TRIAL = f"""
import json, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({_SECONDS}, {_SECONDS}))
resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY}, {_MEMORY}))
from tokenizers import Tokenizer
asked = json.load(sys.stdin)
core = Tokenizer.from_str(asked["state"])
core.encode_special_tokens = True
core.no_truncation()
core.no_padding()
print(json.dumps([len(core.encode(text, add_special_tokens=False).ids) for text in asked["texts"]]))
"""


def are_plain(content: Mapping[str, Any]) -> bool:
    """Whether a tokenizer splits words like GPT-2's and has no normalizer, like genlab's own."""
    splits, after = content.get("pre_tokenizer"), content.get("post_processor")
    is_byte_level = isinstance(splits, Mapping) and splits.get("type") == "ByteLevel"
    ends = after is None or (isinstance(after, Mapping) and after.get("type") == "ByteLevel")
    return content.get("normalizer") is None and is_byte_level and ends


def check_rules(state: str, content: Mapping[str, Any]) -> None:
    """Raises DataError if the rules of a tokenizer fail on some plain texts, or take or produce too much."""
    if _growth(content.get("normalizer")) > _LONGEST:
        raise DataError(f"its normalizers expand one character to more than {_LONGEST}.")
    texts = [text for literal in dict.fromkeys([*_OTHERS, *_literals(content)]) for text in _repeated(literal)]
    asked = json.dumps({"state": state, "texts": texts})
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _TRIAL],
            input=asked,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=_PATIENCE,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError("its rules take too long on plain text.") from error
    if done.returncode < 0:
        raise DataError("its rules take too long, or too much memory, on plain text.")
    if done.returncode:
        cause = (done.stderr.strip().splitlines() or [""])[-1][:200]
        raise DataError(f"its rules fail on plain text ({cause}).")
    counts = json.loads(done.stdout)
    if any(count > _LONGEST * len(text.encode()) for count, text in zip(counts, texts, strict=True)):
        raise DataError("its rules produce too many tokens for plain text.")


@contextmanager
def without_panics() -> Iterator[None]:
    """Turns a panic of the package's Rust code, which is not an Exception, into DataError."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        cause = " ".join(str(error).split())[:200]
        raise DataError(f"the rules of the tokenizer fail on this text ({cause}).") from error
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _growth(normalizer: Any) -> float:
    """An upper bound on the characters to which normalizers expand one, as far as it is known."""
    if not isinstance(normalizer, Mapping):
        return 1.0
    growth = 1.0
    for part in normalizer.get("normalizers") or ():
        growth *= _growth(part)
    added = len(str(normalizer.get("content") or ""))
    pattern = normalizer.get("pattern")
    replaced = len(str(pattern.get("String") or "")) if isinstance(pattern, Mapping) else 0
    return growth * max(1.0, added / replaced if replaced else 1.0 + added)


def _literals(node: Any) -> Iterator[str]:
    """The patterns in the rules, and the characters in them, as texts that the rules are likely to match."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in ("String", "Regex") and isinstance(value, str):
                yield value[:100]
                yield from value[:100]
            elif key not in ("model", "added_tokens"):
                yield from _literals(value)
    elif isinstance(node, list):
        for value in node:
            yield from _literals(value)


def _repeated(literal: str) -> tuple[str, ...]:
    many = literal * max(1, 2000 // max(1, len(literal)))
    return many, f"{many}!", f" {many}\n"
