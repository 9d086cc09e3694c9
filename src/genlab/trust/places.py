"""Trusted places for modules with classes named in a config, checked before their code runs.

A module is imported only if it is a part of genlab, or of an installed package, or lies directly in a *place*: the
folder above the ``--config-dir`` that was typed, or one that the user confirmed in ``$XDG_CONFIG_HOME/genlab/trusted``
(``~/.config/genlab/trusted``), which has one absolute path a line. Nothing in a run or a config can add a place: a
config holds the name of a class only. That a folder is on ``sys.path`` makes it no place, be it the current one or a
clone's, where a stranger's run may lie; nor do packages without an ``__init__.py`` count, which any folder is.
"""

import json
import os
import re
import shlex
import site
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import genlab
from genlab.errors import ConfigError
from genlab.files.paths import read_path
from genlab.redaction import redact
from genlab.trust.strangers import grants

_CONFIG, _BESIDE = "config.yaml", ("overrides.yaml", "command.txt")  # of a run's folder
_PACKAGES = ("site-packages", "dist-packages")
_typed: list[Path] = []


def add(place: Path) -> None:
    """Trust a folder, which the user has typed, in this process."""
    if place not in _typed:
        _typed.append(place)


def typed() -> list[Path]:
    return list(_typed)


def work_in(places: Sequence[Path], work: Callable[..., None], *arguments: Any) -> None:
    """``work(*arguments)``, in a process that was started for it and so knows none of its parent's places."""
    for place in places:
        add(place)
    work(*arguments)


def typed_flags() -> str:
    """The flags that a further command needs to find the same classes, with the same consent: `` --config-dir ...``,
    consent that no run keeps, or nothing."""
    folder = typed_config_dir()
    kept = "" if folder is None else redact(f" --config-dir {shlex.quote(folder)}")
    return kept + "".join(f" {shlex.quote(word)}" for word in sys.argv[1:] if grants(word))


def typed_config_dir() -> str | None:
    """What was typed after ``--config-dir``; None: nothing."""
    words = sys.argv[1:]
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in ("--config-dir", "-cd") and (equals or words[i + 1 :]):
            return value if equals else words[i + 1]
    return None


def trusted_file() -> Path:
    """The file in which the user confirms places. Raises ConfigError if there is no home folder."""
    return read_path(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / "genlab" / "trusted"


def confirmed() -> list[Path]:
    """The places in the user's file.

    Raises:
        ConfigError: others may write the file, or a line is not an absolute path.
    """
    try:
        path = trusted_file()
        status, lines = path.stat(), path.read_text(encoding="utf-8").splitlines()
    except (OSError, ConfigError):  # there is none
        return []
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise ConfigError(f"{path} can be written by others, so it is ignored. Protect it: chmod go-w {path}")
    named = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip() and line.strip()[0] != "#"}
    for number, line in named.items():
        if not os.path.isabs(line) and not line.startswith("~"):
            raise ConfigError(f"line {number} of {path} must be an absolute path, got '{line}'.")
    return [read_path(line).resolve() for line in named.values()]


def check_origin(module: str, name: str) -> None:
    """Raises ConfigError, which begins with ``name``, if ``module`` exists outside of all places. Imports at most the
    packages above it, each checked before."""
    top = module.partition(".")[0]
    spec = _find(top)
    if spec is None:
        spec = _find_in_places(top)
    if spec is None or _is_in_site_packages(spec):
        return
    known = _is_installed(spec)
    for depth in range(1, module.count(".") + 2):
        part = ".".join(module.split(".")[:depth])
        found = spec if depth == 1 else _find(part)
        if found is None:
            return
        if found.origin is None or not found.has_location:
            where = next(iter(found.submodule_search_locations or ()), "no folder")
            raise ConfigError(f"{name}: '{part}' is a folder without an __init__.py ({where}), so it is not a package.")
        if depth == 1 and not known and not _lies_in_a_place(found):
            raise ConfigError(
                f"{name}: '{top}' is {found.origin}, which is not in a place that classes may come from. {how_to_add()}"
            )
        _refuse_run(Path(found.origin), name)


def is_users(module: str) -> bool:
    """Whether an imported module is the user's own: it lies in a place, or in a project that is installed as a link to
    its source, or in an installed package that was made for genlab, which it depends on."""
    top = module.partition(".")[0]
    spec = getattr(sys.modules.get(top), "__spec__", None)
    if spec is None or spec.origin is None or not spec.has_location or top in ("genlab", "__main__"):
        return False
    if _is_installed(spec):
        return top in _editable() or top in _plugins()
    return _lies_in_a_place(spec)


def how_to_add() -> str:
    """The message on how to trust a folder."""
    return (
        "If it is your own project: type --config-dir <project>/configs, or write the project's folder into "
        f"{_shown_file()}."
    )


def _shown_file() -> str:
    try:
        return str(trusted_file())
    except ConfigError:
        return "$XDG_CONFIG_HOME/genlab/trusted"


def _find(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except (ImportError, ValueError, AttributeError):  # an import of what is above it failed: importing it will say so
        return None


def _find_in_places(top: str) -> ModuleSpec | None:
    """A module that only a place has. The place goes to the end of ``sys.path``: it hides nothing that is installed."""
    for place in (*_typed, *confirmed()):
        spec = PathFinder.find_spec(top, [str(place)])
        if spec is not None and spec.origin is not None:
            if str(place) not in sys.path:
                sys.path.append(str(place))
            return spec
    return None


def _is_installed(spec: ModuleSpec) -> bool:
    """Part of genlab, or directly in a folder of installed packages, or an editable install of its own project."""
    if spec.origin is None or not spec.has_location:
        return False
    where = Path(spec.origin)
    if spec.name == "genlab":
        return where == Path(genlab.__file__)
    projects = _editable().get(spec.name, ())
    return _is_in_site_packages(spec) or any(project in where.resolve().parents for project in projects)


def _is_in_site_packages(spec: ModuleSpec) -> bool:
    if spec.origin is None or not spec.has_location:
        return False
    folder = _folder(spec)
    return bool({folder, folder.resolve()} & _installed_folders())


def _folder(spec: ModuleSpec) -> Path:
    """What is, or would have to be, on ``sys.path`` for a top-level module."""
    where = Path(str(spec.origin))
    return where.parent.parent if spec.submodule_search_locations is not None else where.parent


def _lies_in_a_place(spec: ModuleSpec) -> bool:
    return _folder(spec).resolve() in (*_typed, *confirmed())


def _above(path: str) -> Iterator[str]:
    """The folders that ``path`` is in. As text: every part of a config asks this of every package above it."""
    while (folder := os.path.dirname(path)) != path:
        yield (path := folder)


def _refuse_run(file: Path, name: str) -> None:
    for folder in dict.fromkeys((*_above(os.fspath(file.absolute())), *_above(os.path.realpath(file)))):
        if os.path.isfile(f"{folder}/{_CONFIG}") and any(os.path.isfile(f"{folder}/{known}") for known in _BESIDE):
            raise ConfigError(f"{name}: {file} is in the folder of a run, where no code is trusted.")


@cache
def _installed_folders() -> frozenset[Path]:
    """Of this environment, and those that it is laid over, which an installation alone puts on ``sys.path``."""
    named = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        named.append(site.getusersitepackages())
    below = [folder for folder in sys.path if os.path.isabs(folder) and Path(folder).name in _PACKAGES]
    named += [folder for folder in below if Path(folder).resolve() != Path.cwd()]
    return frozenset(path for folder in map(Path, named) for path in (folder, folder.resolve()))


@cache
def _editable() -> dict[str, list[Path]]:
    """Of packages that are installed as links to their source: the folder of the project, by the packages it names."""
    found: dict[str, list[Path]] = {}
    for distribution in distributions():
        if (project := _project(distribution.read_text("direct_url.json"))) is not None:
            for name in _top_levels(distribution.read_text("top_level.txt"), distribution.metadata["Name"]):
                found.setdefault(name, []).append(project)
    return found


@cache
def _plugins() -> frozenset[str]:
    """The packages of installed distributions that depend on genlab."""
    return frozenset(
        name
        for distribution in distributions()
        if any(re.match(r"genlab\b(?![-.])", need) for need in distribution.requires or ())
        for name in _top_levels(distribution.read_text("top_level.txt"), distribution.metadata["Name"])
    )


def _project(told: str | None) -> Path | None:
    try:
        direct = json.loads(told or "{}")
        editable = bool(direct.get("dir_info", {}).get("editable"))
        return Path(unquote(urlparse(direct["url"]).path)).resolve() if editable else None
    except (ValueError, KeyError, AttributeError):
        return None


def _top_levels(told: str | None, name: str) -> Iterator[str]:
    yield from (told or name.replace("-", "_")).split()
