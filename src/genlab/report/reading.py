"""Reads untrusted YAML and JSON: bounded size, depth and numbers, plain values only."""

import json
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from genlab.errors import ConfigError
from genlab.files import regular_file
from genlab.files.plain_yaml import parse_yaml

LARGEST = 1 << 20  # bytes of a config or a summary; those of runs have some thousands
LARGEST_LEDGER = 64 << 20  # of a sweep's, which grows with its trials
MOST_VALUES = 50_000  # in a file, those that YAML's aliases repeat counted each time
MOST_NAMES = 5_000  # of settings in all mappings of a file
MOST_VALUES_OF_A_LEDGER = 5_000_000
DEEPEST = 64
LONGEST_TEXT = 20_000  # characters of a name or a value


def read_yaml(path: Path) -> dict[str, Any]:
    """Names and plain values. Raises ConfigError for another kind of file, or one larger than a run writes."""
    return _read(path, parse_yaml, LARGEST, MOST_VALUES, MOST_NAMES)


def read_json(path: Path) -> dict[str, Any]:
    """As :func:`read_yaml`."""
    return _read(path, json.loads, LARGEST, MOST_VALUES, MOST_NAMES)


def read_ledger(path: Path) -> dict[str, Any]:
    """As :func:`read_json`, of a file that grows with the trials of a sweep."""
    return _read(path, json.loads, LARGEST_LEDGER, MOST_VALUES_OF_A_LEDGER, MOST_VALUES_OF_A_LEDGER)


def read_texts(path: Path) -> list[str]:
    """As :func:`read_yaml`, of a list of texts."""
    content = _parsed(path, parse_yaml, LARGEST, MOST_VALUES, MOST_NAMES)
    if not isinstance(content, list) or not all(isinstance(text, str) for text in content):
        raise ConfigError(f"cannot read {path} (it is no list of texts).")
    return content


def _read(path: Path, parse: Callable[[str], Any], largest: int, values: int, names: int) -> dict[str, Any]:
    content = _parsed(path, parse, largest, values, names)
    if not isinstance(content, dict):
        raise ConfigError(f"cannot read {path} (it holds no names and values).")
    return content


def _parsed(path: Path, parse: Callable[[str], Any], largest: int, values: int, names: int) -> Any:
    try:
        return _Plain(values, names).of(parse(regular_file.read_text(path, largest=largest)))
    except (OSError, ValueError, ArithmeticError, TypeError, yaml.YAMLError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise ConfigError(f"cannot read {path} ({reason[:200]}).") from error


class _Plain:
    """A copy of what was parsed, in which names are strings and values are what JSON knows."""

    def __init__(self, values: int, names: int):
        self.values, self.names = values, names  # that may still come

    def of(self, node: Any, depth: int = 0) -> Any:
        """Raises ValueError if it is larger or deeper than allowed, or holds something else."""
        self.values -= 1
        if self.values < 0 or self.names < 0 or depth > DEEPEST:
            raise ValueError("it holds more, or deeper, than a run writes")
        if isinstance(node, dict):
            self.names -= len(node)
            return {self._name(name): self.of(value, depth + 1) for name, value in node.items()}
        if isinstance(node, list):
            return [self.of(value, depth + 1) for value in node]
        if isinstance(node, int) and not isinstance(node, bool):
            if abs(node) > sys.float_info.max:
                raise ValueError("it holds a number beyond 1e308")
            return node
        if isinstance(node, str):
            return self._text(node)
        if node is None or isinstance(node, bool | float):
            return node
        if isinstance(node, date):
            return str(node)
        raise ValueError(f"it holds a {type(node).__name__}, which no run writes")

    def _name(self, name: Any) -> str:
        if name is None or isinstance(name, str | int | float | bool | date):
            return self._text(str(name))
        raise ValueError(f"it has a {type(name).__name__} for a name, which no run writes")

    def _text(self, text: str) -> str:
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"it holds a text of {len(text):,} characters")
        return text
