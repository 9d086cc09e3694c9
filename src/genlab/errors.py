"""Errors for users, each with one line of text and an exit code. Only the command line prints them."""

import difflib
from collections.abc import Sequence


class GenlabError(Exception):
    """An error with a remedy in its text: what, where, what to do. ``exit_code`` is what the process ends with."""

    exit_code = 1
    prefix = "error: "


class ConfigError(GenlabError):
    exit_code = 2


class CheckpointError(GenlabError):
    exit_code = 3


class StorageError(GenlabError):
    exit_code = 4


class DataError(GenlabError):
    exit_code = 5


class NumericsError(GenlabError):
    exit_code = 6


class ResourceError(GenlabError):
    exit_code = 7


def did_you_mean(word: str, known: Sequence[str], prefix: str = "", suffix: str = "") -> str:
    """`` Did you mean 'x'?`` if something known is close to ``word``, else nothing; x between prefix and suffix."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean '{prefix}{close[0]}{suffix}'?" if close else ""
