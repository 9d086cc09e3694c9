"""What a run prints and writes, without secrets, and without characters that act on a terminal.

A secret is known by its name: of an environment variable (``WANDB_API_KEY``), an option (``logger.x.password``) or a
header; or by its place, before the ``@`` of an address. What was once seen under such a name is hidden wherever it
turns up afterwards.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

HIDDEN = "***"  # Hydra's grammar takes it, so a run whose secrets are hidden can be continued

_NAME = (r"(?:[a-z0-9]+[_-])*(?:(?:api|private|secret)[_-]?key|access[_-]?key(?:[_-]id)?|secret|passw(?:or)?d|"
         r"passphrase|credentials?|authorization|(?:api|auth|access|bearer|hf|hub|session|refresh|wandb)[_-]?token)"
         r"|token")  # fmt: skip
_OF_OPTION = re.compile(_NAME, re.IGNORECASE)
_OF_VARIABLE = re.compile(r"(?i).*(KEY(_ID)?|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH|AUTHORIZATION)")
_SHORTEST = 6  # characters; hiding less would hide half of a text

_PASSWORD = re.compile(r"(?<=://)([^\s/:@'\"]*):([^\s/'\"]+)@")
_USER = re.compile(r"(?<=://)([^\s/:@'\"]{16,})@")  # a token instead of user and password
_PAIR = re.compile(
    rf"(?i)(?<![a-z0-9_])(?!authorization)({_NAME})(=|:\s+)(?!\$\{{|\*\*\*|null\b)('[^']*'|\"[^\"]*\"|[^\s,'\"}}\]&]+)"
)
_QUOTED_PAIR = re.compile(rf"(?i)(['\"])({_NAME})\1(\s*:\s*)(['\"])(?!\$\{{)[^'\"]+\4")
_HEADER = re.compile(r"(?i)\b(authorization['\"]?[:=]\s*['\"]?(?:\w+\s+)?|bearer\s+)[\w.~+/=-]{6,}")
_FORM = re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|(?:AKIA|ASIA)[A-Z0-9]{16})\b")

_seen: set[str] = set()  # what has stood under the name of a secret


def remember(node: Any, name: str = "") -> None:
    """Note the secrets of a config: they are hidden from now on."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            remember(value, str(key))
    elif isinstance(node, list | tuple):
        for value in node:
            remember(value, name)
    elif isinstance(node, str) and len(node) >= _SHORTEST and _is_secret(name, node):
        _seen.add(node)


def _is_secret(name: str, value: str) -> bool:
    return bool(_OF_OPTION.fullmatch(name)) and value != "???" and "${" not in value


def redact(text: str) -> str:
    """``text`` without secrets."""
    secrets = {*_seen, *_of_environment()}
    for value in sorted({way for secret in secrets for way in _ways_to_write(secret)}, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = _HEADER.sub(rf"\1{HIDDEN}", _FORM.sub(HIDDEN, text))
    text = _PASSWORD.sub(rf"\1:{HIDDEN}@", _USER.sub(f"{HIDDEN}@", text))
    return _QUOTED_PAIR.sub(rf"\1\2\1\3\4{HIDDEN}\4", _PAIR.sub(rf"\1\2{HIDDEN}", text))


def redacted(node: Any, name: str = "") -> Any:
    """Nested plain values, their texts without secrets."""
    if isinstance(node, Mapping):
        return {key: redacted(value, str(key)) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [redacted(value, name) for value in node]
    if not isinstance(node, str):
        return node
    return HIDDEN if _is_secret(name, node) else redact(node)


def _ways_to_write(value: str) -> set[str]:
    """As it is, in Python, in JSON, and in an address."""
    return {value, repr(value)[1:-1], json.dumps(value)[1:-1], quote(value), quote(value, safe="")}


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if len(value) >= 8 and _OF_VARIABLE.fullmatch(name):
            yield value
        elif (found := _PASSWORD.search(value)) and len(found[2]) >= _SHORTEST:  # of a proxy, say
            yield found[2]


def one_line(text: object) -> str:
    """``text`` on one line, without secrets, and :func:`printable`."""
    return printable(" ".join(redact(str(text)).split()))


def printable(text: str) -> str:
    """``text`` with what would act on a terminal written as ``\\x1b``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
