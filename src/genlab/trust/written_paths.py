"""Checks the output paths in a run's config: below the run, the output root or the cache, unless typed now.

The config of a run may be untrusted. Its loggers, callbacks, profilers and plugins take folders and files to write
to, and its data a cache. A path elsewhere, or an address, is used only if it is typed in this command, or
if the run was made by a command of this user (:mod:`genlab.trust.own_runs`).
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genlab.config.build import parameters, resolve
from genlab.config.overrides import name_of, parse
from genlab.errors import ConfigError
from genlab.files.paths import read_path
from genlab.redaction import one_line
from genlab.trust.strangers import is_typed

SERVICES = ("logger", "callbacks", "trainer")  # whose classes may write wherever an argument says
OUTPUTS = "outputs"  # where runs are made by default
DATA = "data"  # where data sets are downloaded to by default
_IS_PATH = re.compile(r"(?:.*_)?(?:dir|dirs|dirpath|logdir|folder|root|path|paths|file|uri|url|config)")
_FREE_TEXT = ("_target_", "notes", "tags", "project", "entity", "group", "job_type", "recorded", "published")
_IS_CACHE = re.compile(r"(?:.*_)?cache(?:_dir)?")
_OF_A_SWEEP = "ledger.db"
_BELOW = ("name", "version", "sub_dir")  # of a logger: its files lie in save_dir/name/version/sub_dir


def check_written_paths(config: DictConfig, run: Path, typed: Sequence[str], *, services: bool) -> None:
    """Raises ConfigError, naming the option, for a path in a saved run's config outside of the places where runs may
    write.

    Args:
        run: its folder
        typed: the overrides of this command, whose paths are the user's own
        services: whether loggers, callbacks and the trainer will be made
    """
    outputs = next((o.value() for o in reversed(parse(typed)) if name_of(o) == "outputs"), None)
    roots = _Roots(run, str(outputs or OUTPUTS))
    nodes: Any = OmegaConf.to_container(config, resolve=False)
    filled = OmegaConf.create(nodes | {"run_dir": str(run)})
    for path, value, is_path in _strings(nodes, services):
        if is_typed(path, typed):
            continue
        problem = roots.problem(_referred(value, path, filled), path, is_path)
        if problem is not None:
            raise ConfigError(
                one_line(
                    f"{path}={value!r}: the config of {run} would have it write {problem}. "
                    f"Say where yourself: {path}=<folder>. To keep this place, type it: {path}={value}"
                )
            )
    for name, node in nodes.get("logger", {}).items() if services else ():
        where = _folder_of_logger(node, f"logger.{name}", filled)
        if where is None or any(is_typed(f"logger.{name}.{key}", typed) for key in ("save_dir", "version")):
            continue
        if node.get("version") == "" and _real(where) == _real(run):
            remedy = f"logger.{name}.version=0"
            raise ConfigError(f"logger.{name} would write among the run's own files. Give it a folder: {remedy}")
        if problem := roots.problem(str(where), "save_dir", is_path=True):
            raise ConfigError(
                one_line(
                    f"logger.{name}: the config of {run} would have it write {problem}. Say where "
                    f"yourself: logger.{name}.save_dir=<folder>"
                )
            )


def move_paths(config: DictConfig, run: Path) -> None:
    """Update the paths of loggers and callbacks in a run that was moved or copied."""
    before = OmegaConf.select(config, "run_dir", throw_on_missing=False)
    if not isinstance(before, str) or not before or Path(before) == run:
        return
    for part in ("logger", "callbacks"):
        nodes: Any = OmegaConf.to_container(config.get(part) or OmegaConf.create({}), resolve=False)
        for path, value, _ in _walk(nodes, part):
            if value == before or value.startswith(f"{before}/"):
                OmegaConf.update(config, path, f"{run}{value[len(before) :]}", merge=False)


class _Roots:
    """The folders that may be written to."""

    def __init__(self, run: Path, outputs: str):
        self.run, self.outputs = _real(run), _real(read_path(outputs))
        self.data = _real(Path(DATA))
        cache = os.environ.get("GENLAB_CACHE") or "~/.cache/genlab"
        self.cache = _real(read_path(cache))

    def problem(self, value: str, path: str, is_path: bool) -> str | None:
        """The forbidden place where a value would write; None: it is allowed."""
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", value):
            return "to an address"
        if "\0" in value:
            return "to an invalid path"
        where = _real(read_path(value) if is_path else self.run / read_path(value))
        name = path.rpartition(".")[2]
        if _within(where, self.run) or (_IS_CACHE.fullmatch(name) and _within(where, self.cache)):
            return None
        if name == "root" and _within(where, self.data):
            return None
        if not _within(where, self.outputs):
            return f"to {where}, which is neither in the run, nor in {self.outputs}, nor in the cache"
        other = next((folder for folder in (where, *where.parents) if _is_occupied(folder)), None)
        return None if other is None else f"to {where}, into another run or a sweep"


def _strings(nodes: Mapping[str, Any], services: bool) -> Iterator[tuple[str, str, bool]]:
    """Texts that are, or could be, paths to write to: where they stand, what they are, and whether relative ones begin
    at the current folder."""
    for part, node in nodes.items():
        if part in SERVICES:
            yield from _walk(node, part) if services else ()
        elif part != "spec":
            yield from _caches(node, part)


def _walk(node: Any, path: str) -> Iterator[tuple[str, str, bool]]:
    name = path.rpartition(".")[2]
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _walk(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value, path)
    elif isinstance(node, str) and name not in _FREE_TEXT and node:
        yield path, node, bool(_IS_PATH.fullmatch(name))


def _caches(node: Any, path: str) -> Iterator[tuple[str, str, bool]]:
    """Cache folders, and folders into which data are downloaded."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if not isinstance(value, str):
            yield from _caches(value, f"{path}.{key}")
        elif _IS_CACHE.fullmatch(str(key)) or (key == "root" and _downloads(node, path)):
            yield f"{path}.{key}", value, True


def _downloads(node: Mapping[str, Any], path: str) -> bool:
    """Whether what a node makes may write into its ``root``: it downloads, or unpacks what lies there, as untold as its
    class does. A class of nobody's will not be made."""
    try:
        return "download" in node or "download" in parameters(resolve(node.get("_target_"), path))
    except ConfigError:
        return True


def _referred(value: str, path: str, config: DictConfig) -> str:
    """What a value is: what was typed for the run, and is composed again, may refer to another value. Among names with
    dots in them it could be found in another place: then it is none."""
    if "${" not in value:
        return value
    nodes: Any = OmegaConf.to_container(config, resolve=False)
    if any("." in name for part, node in nodes.items() if part != "pretrained" for name in (part, *_names(node))):
        return "\0"
    try:
        return str(OmegaConf.select(config, path))
    except OmegaConfBaseException:  # it refers to nothing, which is said when it is needed
        return value


def _names(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        yield from map(str, node)
    for value in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from _names(value)


def _folder_of_logger(node: Any, path: str, config: DictConfig) -> Path | None:
    """The folder of a logger's files; None: it chooses itself."""
    if not isinstance(node, Mapping) or not isinstance(node.get("save_dir"), str):
        return None
    where = read_path(_referred(node["save_dir"], f"{path}.save_dir", config))
    for key in _BELOW:
        if isinstance(node.get(key), str):
            where = where / _referred(node[key], f"{path}.{key}", config)
    return where


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _within(path: Path, root: Path) -> bool:
    return path == root or root in path.parents


def _is_occupied(folder: Path) -> bool:
    return os.path.lexists(folder / "config.yaml") or os.path.lexists(folder / _OF_A_SWEEP)
