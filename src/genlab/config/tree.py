"""Composes the config of a command line with Hydra; every mistake becomes a one-line error with a remedy.

Nothing here imports torch, so a misspelt word is reported at once. What only a constructor can know (the type of a
value, whether a part fits its place) is checked in :mod:`genlab.config.build`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from genlab import started_as
from genlab.config.files import PACKAGED, config_files
from genlab.config.overrides import line_of, name_of, parse
from genlab.config.pointers import pointer_for, pointer_for_choice
from genlab.config.quantities import read_quantities
from genlab.config.renamed_options import by_current_names, with_new_names
from genlab.errors import ConfigError, did_you_mean
from genlab.files.paths import read_path
from genlab.redaction import remember
from genlab.trust import places

FILLED_LATER = ("spec", "pretrained", "run_dir", "run_id")  # by the run: from the data, other runs, its folder
START = "start"  # as typed, a place; in a config, a node with further options
OF_SWEEPS = ("sweep", "launcher")  # options with -m, for the sweep and not for its trials
TAKES_A_RUN = ("metrics.extractor",)  # parts that may be the folder of a run instead of an option
EXAMPLES = {  # examples of values for missing options; one for a class comes before the general one
    "root": "/path/to/images",
    "path": "/path/to/images.npz",
    "TextFolder.root": "/path/to/texts",
    "TextFile.path": "/path/to/text.txt",
    "name": "owner/name",
    "autoencoder": "outputs/vae-digits/<run>",
}


class ConfigTree:
    """The config folders that a command sees: the packaged one, and the user's (``--config-dir``), which wins."""

    def __init__(self, user_dir: str | None = None, primary: str = "train"):
        """``primary``: the file that holds the defaults list, of a run or of a sweep."""
        typed = [] if user_dir is None else [read_path(user_dir).resolve()]
        for folder in typed:
            if not folder.is_dir():
                raise ConfigError(f"--config-dir {user_dir}: there is no such folder.")
            places.add(folder.parent)
        self.primary, self.folders = primary, [*typed, PACKAGED]
        self.files = config_files(tuple(self.folders), primary)

    def groups(self) -> dict[str, list[str]]:
        """Options by group, e.g. {"model/network": ["dit", "unet"]}."""
        return self.files.groups()

    def targets(self, path: str) -> list[tuple[str, str]]:
        """The options that can be chosen for the node at ``path``, each with its ``_target_``."""
        group = path.replace(".", "/")
        found = ((option, self._target(group, option)) for option in self.groups().get(group, []))
        return [(option, target) for option, target in found if target is not None]

    def _target(self, group: str, option: str) -> str | None:
        """A file's own ``_target_``, that below its group's name, or that of the file beside it in its defaults."""
        node: Any = OmegaConf.load(self._file(group, option))
        bases = [entry for entry in node.get("defaults", []) if isinstance(entry, str) and entry != "_self_"]
        inherited = next((target for base in bases if (target := self._target(group, base))), None)
        own = node.get(group) if isinstance(node.get(group), DictConfig) else node
        return own.get("_target_", inherited)

    def _file(self, group: str, option: str) -> Path:
        return next(f for folder in self.folders if (f := folder / group / f"{option}.yaml").exists())

    def _defaults(self, file: Path) -> dict[str, Any]:
        """The parts that a file chooses, by group. A list: several may be chosen together."""
        return self.files.defaults(file)

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a command line, interpolations left in place. Raises ConfigError."""
        groups = self.groups()
        parsed = parse([by_current_names(override, groups.get("metrics", ())) for override in overrides])
        choices = [o for o in parsed if name_of(o) in groups]
        for override in choices:
            self._check_choice(override, groups)
        with self._explaining():
            chosen = self.files.choose(tuple(map(line_of, choices)))
        chosen, parsed = _begun(chosen, parsed)
        base = self._fitted(chosen, choices)
        lines = []
        for override in parsed:
            self._check_is_value(override, groups)
            if name_of(override) not in groups:
                new = is_new(base, override, groups) and not override.is_delete()
                lines.append(f"+{line_of(override)}" if new else line_of(override))
        config = deepcopy(chosen)
        if lines:
            with self._explaining():  # values come after choices, whatever was typed first, as in Hydra's own composing
                ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(lines), config)
        config = self._fitted(config, choices)
        for name in map(str, base):
            if name not in list(config):
                raise ConfigError(f"~{name}: a run needs its {name}; only parts of it can be deleted.")
        with_new_names(config, base)
        read_quantities(config)
        remember(_plain(config))
        return config

    def change(self, saved: Mapping[str, Any], typed_then: Sequence[str], overrides: Sequence[str]) -> DictConfig:
        """A saved run's config with what is typed now.

        A newly chosen part gets the defaults of a new run, including the parts that it selects (data select metrics);
        options that were typed for the part it replaces are dropped. Raises ConfigError.
        """
        config = OmegaConf.create(dict(saved))
        groups = self.groups()
        parsed = parse([by_current_names(override, groups.get("metrics", ())) for override in overrides])
        choices = [o for o in parsed if name_of(o) in groups]
        if choices:
            chosen = [name_of(o) for o in choices]
            kept = [line_of(o) for o in parse(typed_then) if not self._is_replaced(o, chosen)]
            before, after = self.compose(typed_then), self.compose([*kept, *map(line_of, choices)])
            _carry_over(before, after, config)
        untouched = deepcopy(config)
        for override in parsed:
            key = name_of(override)
            if key in groups:
                continue
            self._check_is_value(override, groups)
            if key.partition(".")[0] == START:
                raise ConfigError(f"{key}: a continued run uses its own weights. Leave it out, or start a new run.")
            is_new(config, override, groups)
            if override.is_delete():
                raise ConfigError(f"{override.input_line}: nothing can be deleted from a saved run's config.")
            if key == "seed":
                raise ConfigError(
                    "seed: a run keeps its seed, which its data order and noise depend on. Start a new run."
                )
            OmegaConf.update(config, key, override.value(), merge=False, force_add=True)
        with_new_names(config, untouched)
        read_quantities(config)
        remember(_plain(config))
        return config

    def _fitted(self, config: DictConfig, choices: Sequence[Override]) -> DictConfig:
        """``config`` without a debug preset's options for callbacks that are not there."""
        for preset in (str(o.value()) for o in choices if name_of(o) == "debug" and o.value() is not None):
            for name in OmegaConf.select(OmegaConf.load(self._file("debug", preset)), "callbacks") or {}:
                if "_target_" not in config.callbacks[name]:
                    config = deepcopy(config)  # the cached one stays unchanged
                    with open_dict(config):
                        del config.callbacks[name]
        return config

    def _takes_several(self, group: str) -> bool:
        """By the primary config, or by an option of the group above."""
        above, _, name = group.rpartition("/")
        files = [self._file(above, option) for option in self.groups().get(above, ())] if above else []
        chosen = [
            self._defaults(PACKAGED / f"{self.primary}.yaml").get(group),
            *(self._defaults(f).get(name) for f in files),
        ]
        return any(isinstance(option, list) for option in chosen)

    def _is_replaced(self, override: Override, chosen: Sequence[str]) -> bool:
        """Whether an override belongs to a newly chosen part. A new choice of metrics keeps the extractor, for
        example."""
        path = name_of(override).replace("/", ".")
        owner = max((g for g in self.groups() if f"{path}.".startswith(f"{g.replace('/', '.')}.")), key=len, default="")
        return any(owner == g or (owner.startswith(f"{g}/") and not self._takes_several(g)) for g in chosen)

    def _check_choice(self, override: Override, groups: Mapping[str, Sequence[str]]) -> None:
        """Raises ConfigError if a group has no such option, or several are named where it takes one."""
        group, value = name_of(override), override.value()
        available = f"Available: {', '.join(groups[group])}."
        if override.is_delete():
            raise ConfigError(f"{override.input_line}: a run needs its {group}. {available}")
        if isinstance(value, list) and not self._takes_several(group):
            raise ConfigError(f"{group} takes one option, got {override.input_line}. {available}")
        for option in value if isinstance(value, list) else [value]:
            if option is None or str(option) not in groups[group]:
                name = "null" if option is None else str(option)
                if pointer := pointer_for_choice(group, name):
                    raise ConfigError(f"unknown {group} '{name}'. {pointer}")
                raise ConfigError(f"unknown {group} '{name}'.{did_you_mean(name, groups[group])} {available}")

    def _check_is_value(self, override: Override, groups: Mapping[str, Sequence[str]]) -> None:
        """Raises ConfigError for the name of a part after a dot: model.sampler=euler."""
        name, value = name_of(override), override.value()
        group = name.replace(".", "/")
        if name in TAKES_A_RUN and value not in groups[group]:
            return
        if name != group and group in groups and isinstance(value, str):
            raise ConfigError(f"{name} is a part of the {name.partition('.')[0]}, chosen with slashes: {group}={value}")

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Turns Hydra's errors into ConfigError."""
        try:
            yield
        except (HydraException, OmegaConfBaseException) as error:
            text = " ".join(str(error).split())
            if (found := re.match(r"Could not override '([^']+)'\.", text)) and found[1] in self.groups():
                text = self._no_place_for(found[1])
            elif found := re.search(r"is not in struct full_key: (\S+)", text):
                text = f"unknown option '{found[1]}'."
            raise ConfigError(text) from error

    def _no_place_for(self, group: str) -> str:
        """The message for a part that the chosen part above it does not have."""
        above, _, name = group.rpartition("/")
        having = [o for o in self.groups().get(above, []) if name in self._defaults(self._file(above, o))]
        remedy = f" Choose one that has: {above}={' or '.join(having)}." if having else ""
        return f"{group} cannot be chosen: the {above or 'run'} has no {name}.{remedy}"


def _begun(config: DictConfig, parsed: Sequence[Override]) -> tuple[DictConfig, list[Override]]:
    """``config`` with ``start=<place>`` applied, and the overrides without it. Raises ConfigError for
    ``start.only`` and others below it without a place."""
    typed = [override for override in parsed if name_of(override) == START and isinstance(override.value(), str)]
    if typed:
        config = deepcopy(config)
        with open_dict(config):
            config[START] = {"where": typed[-1].value(), "only": None, "freeze": [], "adapter": None, "sha256": None}
    further = [override for override in parsed if name_of(override).startswith(f"{START}.")]
    if further and START in config and config[START] is None:
        raise ConfigError(f"{further[0].input_line} needs {START}=outputs/..., the run to start from.")
    return config, [override for override in parsed if override not in typed]


def _carry_over(before: DictConfig, after: DictConfig, config: DictConfig) -> None:
    """Make the changes from ``before`` to ``after`` in ``config`` too. A part of another class is replaced whole."""
    for key in {*before, *after} - set(FILLED_LATER):
        if key not in list(after):
            config.pop(key, None)
            continue
        new, old = after._get_node(key), before._get_node(key) if key in list(before) else None
        if old is not None and _plain(old) == _plain(new):
            continue
        same_class = (
            isinstance(old, DictConfig) and isinstance(new, DictConfig) and (old.get("_target_") == new.get("_target_"))
        )
        if same_class and isinstance(config._get_node(key), DictConfig):
            _carry_over(old, new, config[key])  # type: ignore[arg-type]
        else:
            config[key] = _plain(new)


def _plain(node: Any) -> Any:
    """A node as plain values, interpolations and ``???`` as they are written."""
    return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node._value()


def is_new(config: DictConfig, override: Override, groups: Iterable[str]) -> bool:
    """Whether an option is missing from ``config`` but may still be set.

    It may be as an argument of the target above it, or as a further part (``+callbacks.x={_target_: ...}``). The
    constructor is checked later, in genlab.config.build. Raises ConfigError for a name that cannot be set.
    """
    key = name_of(override)
    node: Any = config
    names = key.split(".")
    if names[0] in FILLED_LATER:
        raise ConfigError(f"{key} cannot be set: the run fills it in.")
    if (top := names[0].partition("/")[0]) in OF_SWEEPS and top not in list(config):
        raise ConfigError(
            f"unknown option '{key}'. It goes with -m: {started_as.command('train -m')} {override.input_line} ..."
        )
    if names[0] not in list(config) and names[0] not in groups and (pointer := pointer_for(key)):
        raise ConfigError(pointer)
    is_part = override.is_add() or override.is_force_add() or isinstance(override.value(), dict)
    for depth, name in enumerate(names):
        above = ".".join(names[:depth])
        if not isinstance(node, DictConfig) or node._is_interpolation():
            raise ConfigError(f"unknown option '{key}': {above} is a single value.")
        if name not in list(node):
            if depth == len(names) - 1 and above and ("_target_" in node or is_part):
                return True
            known = sorted({str(k) for k in node if not str(k).startswith("_")} | set(() if above else groups))
            below = "".join(f".{rest}" for rest in names[depth + 1 :])
            guess = did_you_mean(name, known, prefix=f"{above}." if above else "", suffix=below)
            has = f" {above or 'A run'} has: {', '.join(known)}." if not guess else ""
            raise ConfigError(f"unknown option '{key}'.{guess}{has}")
        node = node._get_node(name)
    return False


def check_complete(config: DictConfig) -> None:
    """Raises ConfigError for the first option without a value (``???``)."""
    for key in missing(config):
        path, _, name = key.rpartition(".")
        target = str(OmegaConf.select(config, f"{path}._target_")).rpartition(".")[2]
        example = EXAMPLES.get(f"{target}.{name}", EXAMPLES.get(name, "..."))
        raise ConfigError(f"{key} has no value. Set it: {key}={example}")


def missing(config: DictConfig) -> list[str]:
    """The options without a value (``???``) that the user has to give."""
    keys = _missing(OmegaConf.to_container(config, resolve=False), "")
    return [key for key in keys if key.split(".")[0] not in FILLED_LATER]


def _missing(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _missing(value, f"{path}.{key}" if path else str(key))
    elif node == "???":
        yield path


def resolved(config: DictConfig) -> dict[str, Any]:
    """Plain nested values, interpolations resolved. Raises ConfigError."""
    try:
        values: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    remember(values)
    return values
