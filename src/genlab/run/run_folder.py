"""The folder of a run: its config, code and machine, and its results.

``outputs/<model>-<data>/<time>-<id>/`` (a trial of a sweep: ``outputs/<sweep>/<id>/``) holds

    config.yaml     the resolved config: rebuilds the run without its data
    command.txt     every command that trained it, in order
    versions.json   code revision, package versions, hardware
    overrides.yaml  the choices and values typed, for continuing with another part
    tokenizer.json  of text: what the tokenizer has learned
    chat_template.json  of conversations: how their messages become a text
    parts/          the weights of what was trained elsewhere, each named by its SHA-256
    metrics.csv, samples/, checkpoints/, summary.json
    .seal           that a command of this user wrote the config (see genlab.trust.own_runs)
"""

import datetime
import json
import os
import platform
import re
import secrets
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, islice
from pathlib import Path
from typing import Any

import yaml

from genlab.config.renamed import with_current_names
from genlab.config.renamed_options import modern
from genlab.errors import CheckpointError, ConfigError, StorageError
from genlab.files.atomic import remove_partial_files, write_atomically
from genlab.files.lock import LOCK
from genlab.files.paths import read_path
from genlab.files.plain_yaml import parse_yaml
from genlab.files.regular_file import is_folder, is_regular, kind_of, read_text
from genlab.redaction import redacted
from genlab.run.revision import revision
from genlab.trust.own_runs import seal

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "torchmetrics", "torch-fidelity",
            "wandb", "numpy", "scikit-learn", "pillow", "safetensors")  # fmt: skip
_PARTS = ("model", "data", "trainer", "budget", "evaluation", "metrics", "spec", "pretrained")  # of every config
_NAMES = (str, int, float)  # what a file of a run has for names, and values
_PLAIN = (*_NAMES, dict, list, type(None))
_MOST_RUNS = 10_000  # looked at for a hint
_MOST_NODES = 100_000  # in a file of a run; a config has some hundreds

TOKENIZER = "tokenizer.json"
TEMPLATE = "chat_template.json"
SUMMARY = "summary.json"  # written last: only finished runs have it
FILES = ("config.yaml", "overrides.yaml", "versions.json", "command.txt", TOKENIZER, TEMPLATE, SUMMARY, "metrics.csv")
PARTS = "parts"  # pretrained parts
FOLDERS = ("checkpoints", "samples", PARTS, "wandb", "tensorboard")  # that are written into


def create(outputs: str, name: str) -> Path:
    """Make a new folder ``outputs/name/<time>-<id>``. Never one that exists. Raises StorageError."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    while True:
        folder = read_path(outputs) / name / f"{stamp}-{secrets.token_hex(3)}"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(exist_ok=False)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"cannot write to {outputs} ({(error.strerror or str(error)).lower()}).") from error


def begin(folder: Path) -> Path:
    """Make ``folder`` a run's, unless it is one. Raises ConfigError and StorageError."""
    if (folder / "config.yaml").exists():
        raise ConfigError(f"folder={folder} already holds a run. Continue it with run={folder}, or choose another.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write to {folder} ({(error.strerror or str(error)).lower()}).") from error
    return folder


def name_of(config: Mapping[str, Any]) -> str:
    """``<model>-<data>``, from the classes that are built."""
    model, data = (str(config[part]["_target_"]).rpartition(".")[2] for part in ("model", "data"))
    return f"{_snake(model)}-{_snake(data)}"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def find(run: str, option: str = "run") -> Path:
    """The folder of a finished or unfinished run that ``option`` names. Raises ConfigError."""
    folder = read_path(run)
    if not os.path.lexists(folder / "config.yaml"):  # which says no where pathlib raises: a name that cannot be one
        newest = _newest_below(folder)
        hint = f" Its newest is {option}={newest}." if newest else " Runs are in outputs/<model>-<data>/."
        raise ConfigError(f"{option}={run}: there is no run here (no config.yaml).{hint}")
    check_plain(folder)
    return folder


def is_run_or_holds_runs(path: str) -> bool:
    """Whether there is a run at ``path``, or below it."""
    folder = read_path(path)
    return os.path.lexists(folder / "config.yaml") or _newest_below(folder) is not None


def _newest_below(folder: Path) -> Path | None:
    """The run that was begun last in a folder of runs; its name begins with the time."""
    try:
        return max((path.parent for path in islice(folder.glob("*/config.yaml"), _MOST_RUNS)), default=None)
    except OSError:
        return None


def check_plain(folder: Path) -> None:
    """Raises StorageError if one of a run's files or folders is a link, a FIFO or the like: it could lead anywhere."""
    odd = [(name, kind_of(folder / name), "file") for name in (*FILES, LOCK)]
    odd += [
        (name, kind_of(folder / name) or "a file", "folder")
        for name in FOLDERS
        if os.path.lexists(folder / name) and not is_folder(folder / name)
    ]
    for name, kind, meant in odd:
        if kind is not None:
            raise StorageError(
                f"{folder / name} is {kind}, and no link or special file is followed in a run folder. "
                f"Remove it, or put the {meant} itself there."
            )


def check_there(folder: Path) -> None:
    """Raises StorageError if the folder of a run that goes on has been deleted, moved or emptied."""
    if not os.path.lexists(folder / "config.yaml"):
        raise StorageError(
            f"{folder} was deleted, moved or emptied while its run went on: what it held is lost. "
            "Start a new run, or put the folder back and continue it."
        )


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_start(
    folder: Path,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    tokenizer: str | None = None,
    template: str | None = None,
) -> dict[str, Any]:
    """What stands in the folder before the first step; what an earlier end of the run had left is no longer true.

    Returns:
        what was written, for services that show it: the config, with ``overrides``, ``revision`` and ``versions``
    """
    check_plain(folder)
    remove_partial_files(folder)
    (folder / SUMMARY).unlink(missing_ok=True)
    shown, typed, known = redacted(config), redacted(overrides), redacted(versions())
    write_text(folder / "config.yaml", yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))
    write_text(folder / "overrides.yaml", yaml.safe_dump(typed, allow_unicode=True))
    write_text(folder / "versions.json", json.dumps(known, indent=2))
    if tokenizer is not None:
        write_text(folder / TOKENIZER, tokenizer)
    if template is not None:
        write_text(folder / TEMPLATE, template)
    commands = folder / "command.txt"
    before = read_text(commands, errors="replace") if commands.exists() else ""
    write_text(commands, before + shlex.join(["python", *redacted(sys.argv)]) + "\n")
    seal(folder)
    return {**shown, "overrides": typed, "revision": known["revision"], "versions": known}


def files(folder: Path, checkpoints: Sequence[Path]) -> dict[str, Path]:
    """What another machine needs of a run to sample from it or to go on, by the path in its folder."""
    found = [path for name in FILES if is_regular(path := folder / name)]
    found += sorted(path for path in (folder / PARTS).glob("*.safetensors") if is_regular(path))
    return {str(path.relative_to(folder)): path for path in [*found, *checkpoints]}


def read_config(folder: Path) -> dict[str, Any]:
    """What :func:`write_start` wrote: plain values, in which nothing is left to fill in.

    Raises:
        CheckpointError: the file is damaged, or somebody has put an interpolation into it: it could read the
            environment.
    """
    path = folder / "config.yaml"
    config = _read_yaml(path)
    missing = [part for part in _PARTS if not isinstance(config, dict) or not isinstance(config.get(part), dict)]
    if missing:
        raise CheckpointError(f"{path} is damaged (it has no {missing[0]}). Restore it, or start a new run.")
    condition = config["spec"].get("condition", {})
    if not isinstance(condition, dict) or not all(isinstance(told, dict) for told in condition.values()):
        raise CheckpointError(f"{path} is damaged (spec.condition is not a mapping). Restore it, or start a new run.")
    check_plain_values(config, path)
    return modern(with_current_names(config))


def check_plain_values(node: Any, path: Path) -> None:
    """Raises CheckpointError for an interpolation, which could read the environment, in what was read from ``path``."""
    if found := next((text for text in _nodes(node) if isinstance(text, str) and "${" in text), None):
        raise CheckpointError(f"{path} holds the interpolation '{found}', which runs never write. Put its value there.")


def read_overrides(folder: Path) -> list[str]:
    """Raises CheckpointError if the file is missing or damaged."""
    overrides = _read_yaml(folder / "overrides.yaml")
    if not isinstance(overrides, list) or not all(isinstance(override, str) for override in overrides):
        raise CheckpointError(f"{folder / 'overrides.yaml'} is damaged. Write [] into it to go on without it.")
    return overrides


def _read_yaml(path: Path) -> Any:
    try:
        content = parse_yaml(read_text(path))
        nodes = list(islice(_nodes(content), _MOST_NODES))
        if len(nodes) == _MOST_NODES:  # a few aliases of aliases make billions
            raise ValueError("it holds too much")
        odd = [node for node in nodes if not isinstance(node, _PLAIN)]
        odd += [name for node in nodes if isinstance(node, dict) for name in node if not isinstance(name, _NAMES)]
        if odd:
            raise ValueError(f"it holds a {type(odd[0]).__name__} where runs never write one")
        return content
    except (OSError, ValueError, ArithmeticError, TypeError, yaml.YAMLError, RecursionError) as error:
        told = (error.strerror if isinstance(error, OSError) else None) or str(error)
        cause = told.splitlines()[0] if told else type(error).__name__
        raise CheckpointError(f"cannot read {path} ({cause}). Restore it, or start a new run.") from error


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in chain(node, node.values()) if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(child)


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    check_there(folder)
    write_text(folder / SUMMARY, json.dumps(redacted(summary), indent=2))


def versions() -> dict[str, Any]:
    """Code revision, package versions and hardware of this process."""
    import torch

    installed = {name: _version(name) for name in ("genlab", *PACKAGES)}
    return {
        "genlab": installed["genlab"],
        "revision": revision(),
        "python": platform.python_version(),
        "packages": {name: installed[name] for name in PACKAGES},
        "hardware": {
            "host": platform.node(),
            "platform": platform.platform(),
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "float32_matmul": torch.get_float32_matmul_precision(),  # medium: oneDNN's, found to be exact
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    }


def _version(package: str) -> str | None:
    """Of an installed package; None: it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
