"""Random values of the wrong kind, range and size for every option of the config tree, and what each one gets.

Nothing is trained: a value goes as far as a run does before its first step.
"""

import contextlib
import io
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from genlab.callbacks.checkpoint import NoCheckpoints
from genlab.cli import OPTIONS
from genlab.command.options import take_options
from genlab.command.train import _without_folder, quiet
from genlab.config.build import build
from genlab.config.tree import FILLED_LATER, OF_SWEEPS, PACKAGED, ConfigTree, check_complete, resolved
from genlab.data.base import DataModule
from genlab.errors import GenlabError
from genlab.run.assemble import (
    build_callbacks,
    build_data,
    build_evaluation,
    build_model,
    build_trainer,
    check_callbacks,
    check_config,
)
from genlab.sweep.plan import read_plan
from tiny_run import shrunk

MADE_HERE = ("digits", "shapes", "scenes")  # data that need no files
BASE = ("data=digits", "trainer=cpu", "logger=[none]", "metrics/extractor=random")
SMALL = (("data.limit", 40), ("data.batch_size", 8), ("evaluation.num_samples", 40))
VALUES = (
    "-1", "0", "-5", "1", "3", "7", "1.5", "-0.5", "1e-300", "1e300", "nan", "inf", "-inf", str(10**22), str(-(10**22)),
    str(2**63), str(2**31), "null", "true", "false", "abc", "''", "' '", "[]", "[0]", "[0,1,1]", "[1,2]", "[-1,-1]",
    "[a,b]", "[null]", "[[1]]", "{}", "{a:1}", "[{a:1}]", "{_target_:a.b}", "/no/such/path", "1e6", "ü", "${nothing}",
)  # fmt: skip

_WHOLE = ("-1", "0", "-5", "1", "3", "7", str(10**22), str(-(10**22)), str(2**63), str(2**31))
_REAL = ("-1", "0", "1", "7", "1e-300", "1e300", "-0.5", "nan", "inf", "-inf", str(10**400))
LIKE = {
    int: _WHOLE,
    float: _REAL,
    str: (*_REAL, "abc", "''", "' '", "/no/such/path"),  # 1e-4 is text to YAML
    list: ("[]", "[0]", "[0,1,1]", "[-1,-1]", "[1,2]", "[1,1000000,1]", "[null]", "[[1]]", "[a,b]", "[0.5,nan]"),
    bool: ("0", "1", "yes", "null", "[]"),
    type(None): (*_WHOLE, *_REAL, "[]", "[0]", "abc", "true"),
}


@dataclass(frozen=True)
class Case:
    command: str  # train, with -m for one of a sweep, or another command whose own option it is
    choices: tuple[str, ...]  # which make the option exist
    option: str
    value: str

    @property
    def typed(self) -> list[str]:
        return [*self.choices, f"{self.option}={self.value}"]


@cache
def options() -> tuple[tuple[str, tuple[str, ...], str, Any], ...]:
    """(command, choices, path, value) of every option that a file of the tree holds, and of every command's own."""
    found: dict[str, tuple[str, tuple[str, ...], str, Any]] = {}
    for file in sorted(PACKAGED.rglob("*.yaml")):
        group, option = file.parent.relative_to(PACKAGED).as_posix(), file.stem
        text = file.read_text(encoding="utf-8")
        node = yaml.safe_load(text) or {}
        top = group.partition("/")[0]
        if top in ("experiment", "debug"):
            continue
        if group != "." and "@package _global_" not in text.partition("\n")[0]:
            for part in reversed(group.split("/")):
                node = {part: node}
        command = "train -m" if top in OF_SWEEPS or option == "sweep" else "train"
        for path, value in leaves(node):
            found.setdefault(f"{path} {group}", (command, _choices(group, option), path, value))
    own = [(command, (), name, default) for command, known in OPTIONS.items() for name, (default, _) in known.items()]
    return (*found.values(), *own)


@cache
def _choices(group: str, option: str) -> tuple[str, ...]:
    """What has to be typed for the option to be in the config, the parts above it too."""
    if group == ".":
        return ()
    above, _, name = group.rpartition("/")
    value = f"[{option}]" if group in ("metrics", "callbacks", "logger") else option
    if not above or above == "metrics":
        return (f"{group}={value}",)
    tree, groups = _tree("sweep" if group.startswith(OF_SWEEPS) else "train")
    having = [o for o in groups[above] if name in _parts(tree._file(above, o))]
    return (*_choices(above, having[0]), f"{group}={value}") if having else (f"{group}={value}",)


@cache
def _tree(primary: str) -> tuple[ConfigTree, dict[str, list[str]]]:
    tree = ConfigTree(primary=primary)
    return tree, tree.groups()


@cache
def _parts(file: Path) -> dict[str, Any]:
    return ConfigTree()._defaults(file)


def leaves(node: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of what is not a mapping with something in it."""
    for key, below in node.items():
        path = f"{above}{key}"
        if path.split(".")[0] in FILLED_LATER or key in ("defaults", "_target_", "_partial_"):
            continue
        if isinstance(below, dict) and below:
            yield from leaves(below, f"{path}.")
        else:
            yield path, below


def draw(count: int, seed: int) -> list[Case]:
    """``count`` cases, the same for a seed; two of three values are of the kind of the one that stands there."""
    random_ = random.Random(seed)
    cases = []
    for command, choices, option, value in (random_.choice(options()) for _ in range(count)):
        values = random_.choice((VALUES, *2 * (LIKE.get(type(value), VALUES),)))
        cases.append(Case(command, choices, option, random_.choice(values)))
    return cases


def outcome(case: Case) -> int:
    """The exit code, 0 where the value is taken. Raises whatever genlab did not expect."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), quiet():
            start(case)
    except GenlabError as error:
        return error.exit_code
    return 0


def start(case: Case) -> None:
    """Everything that a run does before its first step."""
    if case.command not in ("train", "train -m") or case.option in OPTIONS["train"]:
        take_options(case.command.split()[0], case.typed)
        return
    if case.command == "train -m":
        read_plan([*case.choices, "seed=0,1", f"{case.option}={case.value}"], None)
        return
    tree = ConfigTree()
    config = tree.change(composed(case.choices), (), [f"{case.option}={case.value}"])
    check_complete(config)
    check_config(config)
    if config.data._target_.rpartition(".")[2].lower() not in MADE_HERE:
        build(resolved(config.data), DataModule, "data")
        return
    data = build_data(config)
    config.run_dir, config.run_id = "", "x"
    plain: Any = _without_folder(config)
    model = build_model(plain)
    evaluation = build_evaluation(plain)
    callbacks = build_callbacks(plain, evaluation)
    check_callbacks(callbacks, model)
    evaluation.check(model, data)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(plain, model, [NoCheckpoints()], [], Path(folder))
    data.check(trainer.world_size)


@cache
def composed(choices: tuple[str, ...]) -> dict[str, Any]:
    """The plain config of a small run with these choices."""
    groups = {choice.partition("=")[0] for choice in choices}
    config = ConfigTree().compose([*(line for line in BASE if line.partition("=")[0] not in groups), *choices])
    for path, value in [*SMALL, *shrunk(config.model, "model")]:
        if OmegaConf.select(config, path, throw_on_missing=False) is not None:
            OmegaConf.update(config, path, value)
    found: Any = OmegaConf.to_container(config)
    return found
