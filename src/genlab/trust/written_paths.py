"""Where a run's config may have things written: below the run, the output root or the cache, unless typed now.

The config of a run may be a stranger's. Its loggers, callbacks, profilers and plugins take folders and files to write
to, and its data a cache. A path that leads elsewhere, or an address, counts only when it is typed in this command, or
when the run was made by a command of this user (:mod:`genlab.trust.own_runs`).
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

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
_OF_A_SWEEP = "ledger.db"


def check_written_paths(config: DictConfig, run: Path, typed: Sequence[str], *, services: bool) -> None:
    """Raises ConfigError, naming the option, for a path of a saved run's config that leads out of where runs may write.

    Args:
        run: its folder
        typed: the overrides of this command, whose paths are the user's own
        services: whether loggers, callbacks and the trainer will be made
    """
    outputs = next((o.value() for o in reversed(parse(typed)) if name_of(o) == "outputs"), None)
    roots = _Roots(run, str(outputs or OUTPUTS))
    nodes: Any = OmegaConf.to_container(config, resolve=False)
    for path, value, is_path in _strings(nodes, services):
        if "${" in value or is_typed(path, typed):
            continue  # no run writes interpolations: a part that is chosen now has them
        problem = roots.problem(value, path, is_path)
        if problem is not None:
            raise ConfigError(
                one_line(
                    f"{path}={value!r}: the config of {run} would have it write {problem}. "
                    f"Say where yourself: {path}=<folder>. To keep this place, type it: {path}={value}"
                )
            )
    for path, node in nodes.get("logger", {}).items() if services else ():
        if _is_the_run_itself(node, run) and not is_typed(f"logger.{path}.version", typed):
            remedy = f"logger.{path}.version=0"
            raise ConfigError(f"logger.{path} would write among the run's own files. Give it a folder: {remedy}")


def move_paths(config: DictConfig, run: Path) -> None:
    """Lead the loggers and callbacks of a run that was moved, or copied, to where it is now."""
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
        """Where a value would have things written that is no place for it; None: nothing is wrong with it."""
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", value):
            return "to an address"
        if "\0" in value:
            return "to no path"
        where = _real(read_path(value) if is_path else self.run / read_path(value))
        name = path.rpartition(".")[2]
        if _within(where, self.run) or (name == "cache_dir" and _within(where, self.cache)):
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
    """The caches, and the folders into which data are downloaded."""
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if isinstance(value, str) and (key == "cache_dir" or (key == "root" and node.get("download"))):
            yield f"{path}.{key}", value, True
        else:
            yield from _caches(value, f"{path}.{key}")


def _is_the_run_itself(node: Any, run: Path) -> bool:
    """Whether a logger's files, which lie in ``save_dir/name/version``, would lie in the run folder, beside its own."""
    if not isinstance(node, Mapping) or not isinstance(node.get("save_dir"), str) or "${" in node["save_dir"]:
        return False
    if node.get("version") != "":
        return False
    return _real(Path(node["save_dir"]) / str(node.get("name") or "")) == _real(run)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _within(path: Path, root: Path) -> bool:
    return path == root or root in path.parents


def _is_occupied(folder: Path) -> bool:
    return os.path.lexists(folder / "config.yaml") or os.path.lexists(folder / _OF_A_SWEEP)
