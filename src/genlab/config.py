"""From a command line to a checked config: Hydra composes, and every mistake is one line with a remedy.

Nothing here imports torch, so a misspelt word is answered at once. What only a constructor can know (the type of a value,
whether a part fits its place) is checked in :mod:`genlab.build`.
"""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import genlab.configs
from genlab.errors import ConfigError

PACKAGED = Path(next(iter(genlab.configs.__path__)))
FILLED_LATER = ("spec", "run_dir", "run_id")  # by the run itself: from the data, and when its folder is made
EXAMPLES = {"root": "/path/to/images", "path": "/path/to/text.txt"}  # what a value for a missing option looks like


class ConfigTree:
    """The config folders that a command sees: the packaged one, and the user's (``--config-dir``), which wins."""

    def __init__(self, user_dir: str | None = None):
        if user_dir is not None and not Path(user_dir).is_dir():
            raise ConfigError(f"--config-dir {user_dir}: there is no such folder.")
        self.folders = [Path(user_dir).resolve(), PACKAGED] if user_dir else [PACKAGED]

    def groups(self) -> dict[str, list[str]]:
        """Options by group, e.g. {"model/network": ["dit", "unet"]}."""
        found: dict[str, set[str]] = {}
        for folder in self.folders:
            for file in folder.rglob("*.yaml"):
                group = file.parent.relative_to(folder).as_posix()
                if group != ".":
                    found.setdefault(group, set()).add(file.stem)
        return {group: sorted(options) for group, options in sorted(found.items())}

    def targets(self, path: str) -> list[tuple[str, str]]:
        """The options that can be chosen for the node at ``path``, each with its ``_target_``."""
        group = path.replace(".", "/")
        found = ((option, self._file(group, option)) for option in self.groups().get(group, []))
        loaded = ((option, OmegaConf.load(file)) for option, file in found)
        return [(option, node["_target_"]) for option, node in loaded if "_target_" in node]  # type: ignore[index]

    def _file(self, group: str, option: str) -> Path:
        return next(f for folder in self.folders if (f := folder / group / f"{option}.yaml").exists())

    def description(self, group: str, option: str) -> str:
        """The comment that opens an option's file."""
        lines = self._file(group, option).read_text(encoding="utf-8").splitlines()
        return next((line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line), "")

    @contextmanager
    def hydra(self) -> Iterator[None]:
        """Hydra, set up on these folders."""
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(self.folders[0]), version_base="1.3", job_name="genlab"):
            yield

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a command line, interpolations left in place. Raises ConfigError."""
        searchpath = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in self.folders[1:])}]"]
        parsed = parse(overrides)
        groups = self.groups()
        choices = [o for o in parsed if _group_name(o) in groups]
        for override in choices:
            self._check_choice(override, groups)
        with self.hydra():
            base = _compose([*searchpath, *(o.input_line or "" for o in choices)])
            lines = [_line(override, base, groups) for override in parsed]
            config = _compose([*searchpath, *lines])
        known = [str(name) for name in base]
        for name in map(str, config):
            if name not in known:
                raise ConfigError(f"unknown option '{name}'.{did_you_mean(name, [*known, *groups])}")
        return config

    def change(self, saved: Mapping[str, Any], typed_then: Sequence[str], overrides: Sequence[str]) -> DictConfig:
        """A saved run's config with what is typed now. A part that is chosen anew comes as it would have come then.

        Raises ConfigError.
        """
        config = OmegaConf.create(dict(saved))
        assert isinstance(config, DictConfig)
        groups = self.groups()
        parsed = parse(overrides)
        choices = [o for o in parsed if _group_name(o) in groups]
        if choices:
            fresh = self.compose([*typed_then, *(o.input_line or "" for o in choices)])
            fresh.spec, fresh.run_dir, fresh.run_id = config.spec, config.run_dir, config.run_id
            for override in choices:
                path = _group_name(override).replace("/", ".")
                OmegaConf.update(config, path, OmegaConf.select(fresh, path), merge=False)
            config = OmegaConf.merge(config, {})
        for override in parsed:
            key = _group_name(override)
            if key in groups:
                continue
            is_new(config, key, list(groups))
            if override.is_delete():
                raise ConfigError(f"{override.input_line}: nothing can be deleted from a saved run's config.")
            OmegaConf.update(config, key, override.value(), merge=False, force_add=True)
        return config

    def _check_choice(self, override: Override, groups: Mapping[str, Sequence[str]]) -> None:
        group, value = _group_name(override), override.value()
        for option in value if isinstance(value, list) else [value]:
            if option is not None and not override.is_delete() and str(option) not in groups[group]:
                raise ConfigError(
                    f"unknown {group} '{option}'.{did_you_mean(str(option), groups[group])} "
                    f"Available: {', '.join(groups[group])}."
                )


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's grammar. Raises ConfigError for what is not ``name=value``."""
    parser = OverridesParser.create()
    parsed = []
    for override in overrides:
        try:
            parsed.append(parser.parse_override(override))
        except HydraException as error:
            if "=" not in override:
                raise ConfigError(f"'{override}' is not an option. Options look like name=value.") from error
            name, _, value = override.partition("=")
            raise ConfigError(
                f"cannot read {name}={value}. Put text with special characters into quotes: '{name}=\"{value}\"'."
            ) from error
    for override in parsed:
        if override.is_sweep_override():
            raise ConfigError(f"{override.input_line} names several values, and a run takes one. Choose one of them.")
    return parsed


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`` Did you mean 'x'?`` if something known is close to ``word``, else nothing."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def _group_name(override: Override) -> str:
    return str(override.key_or_group)


def _compose(lines: Sequence[str]) -> DictConfig:
    try:
        return compose("train", overrides=list(lines))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from error


def _line(override: Override, base: DictConfig, groups: Mapping[str, Sequence[str]]) -> str:
    """The override as Hydra should see it: an argument that the YAML leaves out is added, an unknown one refused."""
    line, key = override.input_line or "", _group_name(override)
    if key in groups or key.startswith("hydra.") or override.is_add() or override.is_force_add():
        return line
    return f"+{line}" if is_new(base, key, list(groups)) else line


def is_new(config: DictConfig, key: str, others: Sequence[str] = ()) -> bool:
    """Whether ``key`` is missing from ``config`` and yet may be set: it would be an argument of the target above it.

    Raises ConfigError for a name that leads nowhere. The target's constructor has the last word, in genlab.build.
    """
    node: Any = config
    names = key.split(".")
    for depth, name in enumerate(names):
        if not isinstance(node, DictConfig):
            raise ConfigError(f"unknown option '{key}': {'.'.join(names[:depth])} is a single value.")
        if name not in node:
            if "_target_" in node and depth == len(names) - 1:
                return True
            known = [str(k) for k in node if not str(k).startswith("_")] + (list(others) if depth == 0 else [])
            prefix = ".".join(names[:depth])
            guess = did_you_mean(name, known)
            has = f" {prefix or 'A run'} has: {', '.join(sorted(known))}." if not guess else ""
            raise ConfigError(f"unknown option '{key}'.{guess}{has}")
        node = node._get_node(name) if OmegaConf.is_missing(node, name) else node[name]
    return False


def check_complete(config: DictConfig) -> None:
    """Raises ConfigError for the first option without a value (``???``)."""
    for key in _missing(OmegaConf.to_container(config, resolve=False), ""):
        if key.split(".")[0] not in FILLED_LATER:
            raise ConfigError(f"{key} has no value. Set it: {key}={EXAMPLES.get(key.rpartition('.')[2], '...')}")


def _missing(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _missing(value, f"{path}.{key}" if path else str(key))
    elif node == "???":
        yield path


def resolved(config: DictConfig) -> dict[str, Any]:
    """Plain nested values, interpolations resolved. Raises ConfigError."""
    try:
        return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error


def redact(text: str) -> str:
    """``text`` without the values of environment variables that hold secrets."""
    for name, value in os.environ.items():
        if len(value) >= 8 and name.upper().endswith(("KEY", "TOKEN", "SECRET", "PASSWORD")):
            text = text.replace(value, f"<{name}>")
    return text
