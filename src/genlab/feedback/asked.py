"""What was asked for on the command line: options that go together, and files of prompts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genlab.errors import ConfigError, DataError
from genlab.files.regular_file import LARGEST_TEXT

_OF_RUNS = {"prompts": None, "n": None, "seed": 0, "rate": False}


def check_options(options: Mapping[str, Any]) -> None:
    """Raises ConfigError for options that do not go together."""
    runs, samples = options["run"] or [], options["samples"] or []
    if options["report"] is not None:
        other = [name for name in ("run", "samples", "import", "out") if options[name]]
        if other:
            raise ConfigError(f"report={options['report']} prints what is judged: leave {other[0]}= out.")
    elif options["export"] is not None:
        raise ConfigError(f"export={options['export']} goes with report=<folder>.")
    elif options["out"] is None:
        raise ConfigError("out has no value. Set it: out=feedback/first, a folder for samples and judgments.")
    sources = [name for name in ("run", "samples", "import") if options[name]]
    if len(sources) > 1:
        raise ConfigError(f"{sources[0]}= and {sources[1]}= are two sources of what is judged: leave one out.")
    if len(runs) > 2:
        raise ConfigError(f"{len(runs)} runs: at most two are compared. Leave out run={runs[2]}.")
    if len(samples) > 2:
        raise ConfigError(f"{len(samples)} folders: at most two are compared. Leave out samples={samples[2]}.")
    if len(samples) == 1 and not options["rate"]:
        raise ConfigError(
            f"samples={samples[0]} is one folder: name a second one, samples=..., or rate it by rate=true."
        )
    if not runs and not samples:
        typed = [name for name, default in _OF_RUNS.items() if options[name] != default]
        if typed:
            raise ConfigError(f"{typed[0]}={options[typed[0]]} goes with run=outputs/<model>-<data>/<run>.")


def read_prompts(path: Path) -> list[str]:
    """A prompt a line of a .txt file; of a .jsonl file, the column ``prompt``. Empty lines are no prompts.

    Raises DataError: it cannot be read, or has none.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_TEXT + 1)
        if len(content) > LARGEST_TEXT:
            raise DataError(f"prompts={path} has more than {LARGEST_TEXT >> 20} MiB. Name a smaller file.")
        lines = content.decode("utf-8-sig").splitlines() if path.suffix != ".jsonl" else content.decode().split("\n")
    except OSError as error:
        raise DataError(f"prompts={path} cannot be read ({(error.strerror or str(error)).lower()}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"prompts={path} is not UTF-8 text. Save it as UTF-8.") from error
    prompts = [
        _prompt(line, path, i) if path.suffix == ".jsonl" else line for i, line in enumerate(lines, 1) if line.strip()
    ]
    if not prompts:
        raise DataError(f"prompts={path} is empty. Write a prompt a line.")
    return prompts


def _prompt(line: str, path: Path, number: int) -> str:
    try:
        found = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if not isinstance(found, str) or not found.strip():
        raise DataError(f'prompts={path}, line {number}: not a row like {{"prompt": "..."}}. Correct or remove it.')
    return found
