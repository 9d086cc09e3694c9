"""Peers: those that a package provides, and those whose code is in a folder that is named."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.options import Options

WHERE = {
    "nanogpt": "https://github.com/karpathy/nanoGPT",
    "dit": "https://github.com/facebookresearch/DiT",
    "edm": "https://github.com/NVlabs/edm",
}


class Missing(Exception):
    """A peer is not there; says in a sentence what to do about it."""


def package(name: str) -> Any:
    """An installed peer. Raises Missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != name.partition(".")[0]:
            raise Missing(f"{name} needs {error.name}, which is not installed: pip install {error.name}") from error
        raise Missing(f"{name} is not installed: pip install 'genlab[peers]'") from error


def folder(options: Options, name: str) -> Path:
    """Where a peer's code is. Raises Missing."""
    if name not in options.peers:
        raise Missing(f"no path of {name} is given: git clone {WHERE[name]}, then --peer {name}=PATH")
    return options.peers[name]


def module(options: Options, peer: str, name: str) -> Any:
    """A module of a peer's code. Raises Missing."""
    place = folder(options, peer)
    with _importable(place):
        sys.modules.pop(name, None)  # two peers may name theirs alike
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise Missing(f"{peer} in {place} needs {error.name}: pip install {error.name}") from error


@contextmanager
def _importable(place: Path) -> Iterator[None]:
    sys.path.insert(0, str(place))
    try:
        yield
    finally:
        sys.path.remove(str(place))
