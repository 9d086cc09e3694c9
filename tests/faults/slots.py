"""Every importable class of the packages that genlab stands on, held against every slot of a config; none is made.

    PYTHONPATH=tests python -m faults.slots          writes slots.txt beside it: which classes fit where

The list is to be read when it changes: whoever writes a config can have each of these made. ``make test`` holds 200
classes against it, this script all of them. It imports every module it finds, in an empty folder, and takes minutes.
"""

import genlab  # noqa: F401  before whatever imports torchvision  isort: skip
import contextlib
import importlib
import inspect
import io
import os
import pkgutil
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from genlab.config.build import fits, parameters
from genlab.config.slots import full_name
from genlab.metrics.base import FeatureExtractor, ModelMetric, SampleMetric
from genlab.run.assemble import SLOTS

LIST = Path(__file__).with_suffix(".txt")
PACKAGES = ("torch", "torchvision", "pytorch_lightning", "lightning_fabric", "torchmetrics", "torch_fidelity", "wandb",
            "hydra", "omegaconf", "numpy", "scipy", "sklearn", "PIL", "matplotlib", "transformers", "tokenizers",
            "safetensors", "huggingface_hub", "datasets", "pyarrow", "optuna", "tensorboard", "rich", "yaml",
            "sentencepiece", "pandas", "fsspec", "pydantic")  # fmt: skip
PARTS = ("model", "data", "metrics", "callbacks", "logger")  # of genlab, whose constructors a config can reach
NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)  # what a _target_ may look like


def modules(package: Any) -> Iterator[str]:
    """The modules that a ``_target_`` could name."""
    yield package.__name__
    for found in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{package.__name__}.", lambda name: None):
        if NAME.fullmatch(found.name) and ".__main__" not in found.name:
            yield found.name


def classes(names: Iterable[str]) -> dict[str, type]:
    """The classes that can be named in these modules, each once, by the name of where it is defined."""
    found: dict[str, type] = {}
    for name in names:
        try:
            members = vars(sys.modules.get(name) or importlib.import_module(name))
        except BaseException as error:  # a module may do anything when it is imported: exit, too
            if isinstance(error, KeyboardInterrupt):
                raise
            continue
        for attribute, value in list(members.items()):
            if inspect.isclass(value) and not attribute.startswith("_"):
                found.setdefault(full_name(value), value)
    return {name: kind for name, kind in found.items() if not name.startswith("genlab.")}


def slots() -> dict[str, Any]:
    """All annotations that could ask for an object, by their text: those of genlab's constructors, of Lightning's
    Trainer, and of a config's own parts."""
    asked: dict[str, Any] = {
        **SLOTS,
        "callbacks.*": pl.Callback,
        "callbacks.* (partial)": Callable[..., pl.Callback],
        "logger.*": Logger,
        "metrics.extractor": FeatureExtractor,
        "metrics.*": SampleMetric | ModelMetric,
    }
    found: dict[str, Any] = {}
    for annotation in asked.values():
        _collect(annotation, found)
    for kind in _own_classes():
        for annotation in parameters(kind).values():
            _collect(annotation, found)
    for annotation in parameters(pl.Trainer).values():
        _collect(annotation, found)
    return dict(sorted(found.items()))


def _collect(annotation: Any, found: dict[str, Any]) -> None:
    if get_origin(annotation) is Callable:
        found[str(annotation)] = annotation
    elif get_origin(annotation) is not None:
        for inner in get_args(annotation):
            _collect(inner, found)
    elif inspect.isclass(annotation) or annotation is Any:
        found[full_name(annotation) if annotation is not Any else "Any"] = annotation


def _own_classes() -> Iterator[type]:
    for part in PARTS:
        package = importlib.import_module(f"genlab.{part}")
        for name in modules(package):
            for value in vars(importlib.import_module(name)).values():
                if inspect.isclass(value) and value.__module__ == name and not getattr(value, "_is_protocol", False):
                    with contextlib.suppress(ValueError):  # has no signature: an exception, say
                        parameters(value)
                        yield value


def passing(kinds: dict[str, type], places: dict[str, Any]) -> list[str]:
    """``slot <- class`` for each class that fits."""
    lines = []
    for where, slot in places.items():
        for name, kind in kinds.items():
            if fits(kind, slot, partial=False) or fits(kind, slot, partial=True):
                lines.append(f"{where} <- {name}")
    return sorted(lines)


def listed() -> list[str]:
    return LIST.read_text().splitlines()


def nested(lines: Iterable[str], kinds: dict[str, type], known: dict[str, Any]) -> dict[str, Any]:
    """The slots that the constructors of the classes that fit have, in their turn."""
    found: dict[str, Any] = {}
    for name in {line.partition(" <- ")[2] for line in lines}:
        with contextlib.suppress(ValueError, TypeError):
            for annotation in parameters(kinds[name]).values():
                _collect(annotation, found)
    return {where: slot for where, slot in sorted(found.items()) if where not in known}


def main() -> None:
    warnings.simplefilter("ignore")
    os.chdir(tempfile.mkdtemp())
    kinds: dict[str, type] = {}
    for name in sys.argv[1:] or PACKAGES:
        with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):  # not installed, or broken
            package = importlib.import_module(name)
            kinds |= {k: v for k, v in classes(modules(package)).items() if k not in kinds}
        print(f"{name}: {len(kinds):,} classes so far", file=sys.stderr, flush=True)
    places, lines = slots(), list[str]()
    while places:
        new = passing(kinds, places)
        lines += new
        print(f"{len(places)} slots: {len(new)} fits", file=sys.stderr, flush=True)
        seen = {line.partition(" <- ")[0] for line in lines} | set(places)
        places = {where: slot for where, slot in nested(new, kinds, places).items() if where not in seen}
    LIST.write_text("".join(f"{line}\n" for line in sorted(set(lines))))
    print(f"{len(kinds):,} classes, {len(lines)} fits: {LIST}")


if __name__ == "__main__":
    main()
