"""The config folders, composed by Hydra and cached until a file changes.

A sweep's trials ask for the same choices again and again, and composing them takes a third of a second.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

import genlab.configs
from genlab import former_names

PACKAGED = Path(next(iter(genlab.configs.__path__)))
_MOST_KEPT = 200

for _then, _now in former_names.OPTIONS.items():  # which a user's own files may still choose
    ConfigStore.instance().store(group="metrics", name=_then, node={"defaults": [_now]}, provider="former names")


@cache
def config_files(folders: tuple[Path, ...], primary: str) -> "ConfigFiles":
    """The cached object for these folders in this process."""
    return ConfigFiles(folders, primary)


class ConfigFiles:
    """The folders, those of the user before the packaged one. Returned values are cached: do not change them."""

    def __init__(self, folders: Sequence[Path], primary: str):
        """``primary``: the file that holds the defaults list, of a run or of a sweep."""
        self.folders, self.primary = folders, primary
        self._state: object = None
        self._known: dict[object, Any] = {}

    def groups(self) -> dict[str, list[str]]:
        """Options by group."""
        return self._once("groups", self._find_groups)

    def defaults(self, file: Path) -> dict[str, Any]:
        """The parts that a file chooses, by group. A list: several may be chosen together."""
        return self._once(file, partial(_defaults, file))

    def choose(self, lines: tuple[str, ...]) -> DictConfig:
        """The config that results from these choices. Raises what Hydra raises."""
        return self._once(lines, partial(self._compose, lines))

    def _once(self, key: object, find: Any) -> Any:
        state = [(file.path, file.stat().st_mtime_ns) for folder in self.folders for file in _files(os.fspath(folder))]
        if state != self._state or len(self._known) > _MOST_KEPT:
            self._state, self._known = state, {}
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]

    def _find_groups(self) -> dict[str, list[str]]:
        found: dict[str, set[str]] = {}
        of_others = {
            group.partition("/")[0]
            for file in PACKAGED.glob("*.yaml")
            if file.stem != self.primary
            for group in _defaults(file)
        }
        for folder in self.folders:
            for file in folder.rglob("*.yaml"):
                group = file.parent.relative_to(folder).as_posix()
                if group != "." and group.partition("/")[0] not in of_others:
                    found.setdefault(group, set()).add(file.stem)
        return {group: sorted(options) for group, options in sorted(found.items())}

    def _compose(self, lines: Sequence[str]) -> DictConfig:
        with self.hydra():
            return compose(self.primary, overrides=list(lines))

    @contextmanager
    def hydra(self) -> Iterator[None]:
        """Hydra, set up on these folders."""
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(PACKAGED), version_base="1.3", job_name="genlab"):
            loader: Any = GlobalHydra.instance().config_loader()
            search_path = loader.get_search_path()
            for folder in self.folders[:-1]:
                search_path.prepend(provider="--config-dir", path=str(folder), anchor="main")
            loader.repository.initialize_sources(search_path)
            yield


def _defaults(file: Path) -> dict[str, Any]:
    entries = OmegaConf.to_container(OmegaConf.load(file)).get("defaults", [])  # type: ignore[union-attr]
    chosen = {group: option for entry in entries if isinstance(entry, dict) for group, option in entry.items()}
    return {group.partition("@")[0]: option for group, option in chosen.items()}


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(folder):
        if entry.is_dir():
            yield from _files(entry.path)
        elif entry.name.endswith(".yaml"):
            yield entry
