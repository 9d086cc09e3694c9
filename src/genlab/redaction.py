"""Removes secrets, and characters that act on a terminal, from what a run prints and writes.

A secret is recognized by its name: of an environment variable (``WANDB_API_KEY``), an option (``logger.x.password``) or
a header; or by its place, before the ``@`` of an address. How much is hidden depends on who reads it. Texts for people
lose every secret. Files that a run is continued from lose secrets only where one can be: under the name of a
secret, in an address, and in the settings of services (``logger``, ``callbacks``); elsewhere a value that could be a
word is a setting (``KEY=diffusion`` is no reason to hide a model), and :func:`check_can_be_kept` refuses one that
could not.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from genlab.errors import ConfigError

HIDDEN = "***"  # Hydra's grammar takes it, so a run whose secrets are hidden can be continued

_NAME = (
    r"(?:[a-z0-9]+[_-])*(?:(?:api|private|secret)[_-]?key|access[_-]?key(?:[_-]id)?|secret|passw(?:or)?d|"
    r"passphrase|credentials?|authorization|(?:api|auth|access|bearer|hf|hub|session|refresh|wandb)[_-]?token)"
    r"|token"
)
_OF_OPTION = re.compile(_NAME, re.IGNORECASE)
_OF_VARIABLE = re.compile(r"(?i).*(KEY(_ID)?|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH|AUTHORIZATION)")
_FROM_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:\s*([^,}\s]+)")
_SHORTEST = 6  # characters; hiding less would hide half of a text
_UNMISTAKABLE = 12  # characters
_PLAIN = re.compile(r"[A-Za-z_]+|[/~.].*")  # a word, or a path
_WORD = r"(?:[A-Za-z]+\d{0,3}|\d{1,4})"
_WORDS = re.compile(rf"{_WORD}(?:[\s_.,:/~-]+{_WORD})*")  # vae_mnist_small2
SERVICES = ("logger", "callbacks")  # parts of a config that may hold secrets of services

_PASSWORD = re.compile(r"(?<=://)([^\s/:@'\"]*):([^\s/'\"]+)@")
_USER = re.compile(r"(?<=://)([^\s/:@'\"]{16,})@")  # a token instead of user and password
_PAIR = re.compile(
    rf"(?i)(?<![a-z0-9_])(?!authorization)({_NAME})(=|:\s+)(?!\$\{{|\*\*\*|null\b)('[^']*'|\"[^\"]*\"|[^\s,'\"}}\]&]+)"
)
_QUOTED_PAIR = re.compile(rf"(?i)(['\"])({_NAME})\1(\s*:\s*)(['\"])(?!\$\{{)[^'\"]+\4")
_HEADER = re.compile(r"(?i)\b(authorization['\"]?[:=]\s*['\"]?(?:\w+\s+)?|bearer\s+)[\w.~+/=-]{6,}")
_FORM = re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|(?:AKIA|ASIA)[A-Z0-9]{16})\b")

# Control characters but for the ends of lines and tabs, what turns the direction of text, and halves of characters.
_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_seen: set[str] = set()  # what has stood under the name of a secret


def remember(node: Any, name: str = "") -> None:
    """Note the secrets of a config, also those that it takes from the environment: they are hidden from now on."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            remember(value, str(key))
    elif isinstance(node, list | tuple):
        for value in node:
            remember(value, name)
    elif isinstance(node, str):
        found = [os.environ.get(variable, "") for variable in _secret_variables(node)]
        found += [node] * _is_secret(name, node)
        _seen.update(value for value in found if len(value) >= _SHORTEST)


def _is_secret(name: str, value: str) -> bool:
    return bool(_OF_OPTION.fullmatch(name)) and value != "???" and "${" not in value


def _secret_variables(text: str) -> list[str]:
    """The environment variables with a secret's name that a value is interpolated from."""
    return [name for name in _FROM_ENVIRONMENT.findall(text) if _OF_VARIABLE.fullmatch(name)]


def known_secrets() -> frozenset[str]:
    """All secrets known so far. What was written before one became known has to be rewritten."""
    return frozenset({*_seen, *_of_variables().values(), *_of_addresses()})


def redact(text: str) -> str:
    """``text``, which people read, without secrets."""
    variables = {value for value in _of_variables().values() if not _PLAIN.fullmatch(value)}
    return _without(text, {*_seen, *_of_addresses(), *variables})


def redacted(node: Any, name: str = "", service: bool = False) -> Any:
    """Nested plain values without secrets, as they are saved; settings that a run is continued with are kept.

    ``service``: the values are passed to a service, so any text may be a secret.
    """
    if isinstance(node, Mapping):
        return {key: redacted(value, str(key), service or key in SERVICES) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [redacted(value, name, service) for value in node]
    if not isinstance(node, str) or name == "_target_":
        return node
    if _is_secret(name, node):
        return HIDDEN
    option = re.match(r"[+~]*([\w/]+)(\.?)[^=]*=", node)  # as it is typed: the name of a choice or a path has no dot
    if service or (option is not None and option[1] in SERVICES):
        return _without(node, {*_seen, *_of_addresses()})
    if option is not None and not option[2]:
        value = node[option.end() :]
        return option[0] + HIDDEN if value in _unmistakable() else _without_forms(node)
    return _without_forms(_without_unmistakable(node))


def _without(text: str, others: set[str]) -> str:
    """Also without ``others``, where they are not part of a longer word or path."""
    text = _without_unmistakable(text)
    for value in sorted({way for secret in others for way in _ways_to_write(secret)}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./-]){re.escape(value)}(?![\w/-])", HIDDEN, text)
    return _without_forms(text)


def _without_unmistakable(text: str) -> str:
    """Without values that can only be secrets. A path that exists on the disk is not a secret."""
    found = {way for secret in _unmistakable() for way in _ways_to_write(secret) if way in text}
    if not found or os.path.lexists(text):
        return text
    for value in sorted(found, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def _unmistakable() -> set[str]:
    return {value for value in {*_seen, *_of_variables().values()} if _is_unmistakable(value)}


def _is_unmistakable(value: str) -> bool:
    """Long, of letters and digits, and neither words nor a path."""
    mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
    return (
        len(value) >= _UNMISTAKABLE and mixed and not value.startswith(("/", "~", ".")) and not _WORDS.fullmatch(value)
    )


def _without_forms(text: str) -> str:
    """Without secrets recognized by their form, their place or their name."""
    text = _HEADER.sub(rf"\1{HIDDEN}", _FORM.sub(HIDDEN, text))
    text = _PASSWORD.sub(rf"\1:{HIDDEN}@", _USER.sub(f"{HIDDEN}@", text))
    return _QUOTED_PAIR.sub(rf"\1\2\1\3\4{HIDDEN}\4", _PAIR.sub(rf"\1\2{HIDDEN}", text))


def check_can_be_kept(node: Any, path: str = "") -> None:
    """Raises ConfigError for a setting that :func:`redacted` would hide, since the run could not be continued then.

    ``node``: the config, interpolations as they are written.
    """
    name = path.rpartition(".")[2]
    if isinstance(node, Mapping):
        for key, value in node.items():
            if path or key not in SERVICES:
                check_can_be_kept(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list | tuple):
        for value in node:
            check_can_be_kept(value, path)
    elif isinstance(node, str) and name != "_target_" and not _OF_OPTION.fullmatch(name):
        variables = _secret_variables(node)
        if variables or _without_unmistakable(node) != node:
            held = (name for name, value in _of_variables().items() if value in node)
            whose = next(iter(variables), None) or next(held, None)
            said = "another option's secret" if whose is None else f"the environment variable {whose}"
            raise ConfigError(
                f"{path} holds the value of {said}. Secrets are not saved, so the run could not be continued. "
                "Let the class read the variable itself, or, if it is not a secret, give the variable another name."
            )


def _ways_to_write(value: str) -> set[str]:
    """As it is, in Python, in JSON, and in an address."""
    return {value, repr(value)[1:-1], json.dumps(value)[1:-1], quote(value), quote(value, safe="")}


def _of_variables() -> dict[str, str]:
    """Environment variables with a secret's name."""
    return {name: value for name, value in os.environ.items() if len(value) >= 8 and _OF_VARIABLE.fullmatch(name)}


def _of_addresses() -> Iterator[str]:
    """Passwords in addresses that the environment holds, of a proxy, say."""
    for value in os.environ.values():
        if (found := _PASSWORD.search(value)) and len(found[2]) >= _SHORTEST:
            yield found[2]


def one_line(text: object) -> str:
    """``text`` on one line, without secrets, and :func:`printable`."""
    return printable(" ".join(redact(str(text)).split()))


def for_terminal(text: str) -> str:
    """Text of several lines without control characters: a name or a sample cannot move the cursor or overwrite another
    line."""
    return _ACTS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable(text: str) -> str:
    """``text`` with what would act on a terminal written as ``\\x1b``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
