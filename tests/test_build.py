"""The gate of build.py: what stands in a config is built only where a constructor asks for just that."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf, open_dict
from torch import nn

from genlab.config.annotation import LATER, describe, matches
from genlab.config.build import Misfit, build, check, resolve
from genlab.config.tree import ConfigTree
from genlab.errors import ConfigError
from genlab.model.base import OptimizerFactory
from genlab.model.parts import DenoisingNetwork, DenoisingObjective, Sampler
from genlab.run.assemble import check_config

HERE = __name__


class Shape(Protocol):
    def area(self, scale: float) -> float: ...


class Square:
    def __init__(self, side: float, name: str = "square"):
        if side < 0:
            raise ValueError("side must not\nbe negative")
        self.side, self.name = side, name

    def area(self, scale: float, rounded: bool = False) -> float:
        return scale * self.side**2


class WrongWords:
    def area(self, factor: float) -> float:
        return factor


class NeedsMore:
    def area(self, scale: float, unit: str) -> float:
        return scale


class Picture:
    def __init__(self, shapes: Sequence[Shape], named: Mapping[str, Shape], main: Shape | None, loose=None, **more):
        self.shapes, self.named, self.main, self.loose, self.more = shapes, named, main, loose, more


SQUARE = {"_target_": f"{HERE}.Square", "side": 2}
EVIL = {"_target_": "os.system", "command": "touch executed"}


def picture(**arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{HERE}.Picture", "shapes": [], "named": {}, "main": None} | arguments


def refused(node: Any, slot: Any, path: str = "x") -> str:
    with pytest.raises(ConfigError) as error:
        build(node, slot, path)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- what is built ----------------------------------------------------------------------------------------------------


def test_nested_parts_are_built_from_the_inside() -> None:
    built = build(picture(shapes=[SQUARE, SQUARE], named={"a": SQUARE}, main=SQUARE), Picture, "picture")
    assert [s.side for s in built.shapes] == [2, 2]
    assert built.named["a"].area(scale=2.0) == 8
    assert built.main.name == "square"


def test_a_partial_waits_for_the_rest() -> None:
    factory = build({"_target_": f"{HERE}.Square", "_partial_": True, "name": "late"}, Callable[..., Shape], "x")
    assert isinstance(factory, partial)
    assert factory(side=3).side == 3


def test_what_code_gives_is_not_for_the_config() -> None:
    assert build({"_target_": f"{HERE}.Square"}, Square, "x", given={"side": 5}).side == 5
    with pytest.raises(ConfigError, match=r"^x\.side cannot be set: genlab sets it for Square\.$"):
        build(SQUARE, Square, "x", given={"side": 5})


def test_arguments_that_a_constructor_passes_on() -> None:
    assert build(picture(color="red"), Picture, "x").more == {"color": "red"}
    assert "Did you mean 'x.shapes'?" in refused(picture(shape=[]), Picture)
    assert "no such argument" in refused(picture(_args_=[1]), Picture)


def test_a_constructors_objection_is_one_line() -> None:
    assert refused(SQUARE | {"side": -1}, Square) == "x: side must not be negative"


def test_a_missing_argument_is_named() -> None:
    assert refused({"_target_": f"{HERE}.Square"}, Square) == "x.side has no value. Set it: x.side=..."


# --- slots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["WrongWords", "NeedsMore", "Picture"])
def test_a_protocol_is_its_methods_and_their_words(name: str) -> None:
    with pytest.raises(Misfit, match=r"This place needs a Shape, which has area\(scale\)"):
        check({"_target_": f"{HERE}.{name}"}, Shape, "x")


@pytest.mark.parametrize(
    ("target", "slot", "partial_"),
    [
        ("genlab.model.sampler.heun.Heun", Callable[[], DenoisingNetwork], True),
        ("genlab.model.network.unet.UNet", Sampler, False),
        ("genlab.model.network.unet.UNet", DenoisingObjective, False),
        ("genlab.model.objective.edm.EDM", Sampler, False),
        ("genlab.model.objective.edm.EDM", Callable[[], DenoisingNetwork], True),
        ("genlab.model.network.unet.UNet", Callable[[], DenoisingNetwork], False),  # built too early
        ("genlab.model.sampler.heun.Heun", Sampler, True),  # never built
        ("torch.optim.AdamW", OptimizerFactory, False),
        ("torch.nn.Linear", OptimizerFactory, True),
        ("torch.optim.AdamW", pl.Callback, False),
        ("pytorch_lightning.callbacks.Timer", nn.Module, False),
    ],
)
def test_parts_in_the_place_of_others(target: str, slot: Any, partial_: bool) -> None:
    with pytest.raises(Misfit):
        check({"_target_": target, "_partial_": partial_}, slot, "x")


@pytest.mark.parametrize("node", [{}, {"a": 1}, {"a": SQUARE}, [], [SQUARE], [{"a": 1}], "square", 3, True])
def test_a_part_is_given_by_its_target(node: Any) -> None:
    assert refused(picture(main=node), Picture).startswith("x.main must be ")


def test_targets_are_found_at_any_depth() -> None:
    for place in (
        {"shapes": [EVIL]}, {"shapes": [[EVIL]]}, {"named": {"a": EVIL}}, {"named": {"a": {"b": EVIL}}}, {"main": EVIL},
        {"loose": EVIL}, {"loose": [EVIL]}, {"loose": [[[EVIL]]]}, {"loose": {"a": {"b": [EVIL]}}}, {"more": EVIL},
        {"more": [{"a": [EVIL]}]}, {"main": SQUARE | {"side": EVIL}}, {"main": SQUARE | {"name": [EVIL]}},
    ):  # fmt: skip
        assert refused(picture(**place), Picture)


def test_an_argument_without_annotation_takes_values_but_no_parts() -> None:
    assert build(picture(loose=[1, {"a": "b"}]), Picture, "x").loose == [1, {"a": "b"}]
    with pytest.raises(Misfit):
        check(picture(loose=SQUARE), Picture, "x")
    with pytest.raises(Misfit):
        check(picture(loose=[[SQUARE]]), Picture, "x")


@pytest.mark.parametrize("slot", [Any, object, dict, list, type, Callable, Callable[..., Any], Path, None])
def test_slots_that_no_part_fits(slot: Any) -> None:
    for partial_ in (True, False):
        with pytest.raises(Misfit):
            check({"_target_": "torch.nn.ModuleDict", "_partial_": partial_}, slot, "x")


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [0, -1], [1.0, True, "1", None, [1]]),
        (float, [0, 1.5, float("inf")], [True, "abc", None, [1.0]]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "x"], [1, None, True, ["x"]]),
        (Path, ["a/b"], [1, None]),
        (int | None, [1, None], ["null", 1.5]),
        (Literal["a", 1], ["a", 1], ["b", True, 1.0, "1"]),
        (Literal["all"] | bool, ["all", True], ["none", 1]),
        (tuple[float, float], [[1, 2.0]], [[1], [1, 2, 3], [1, "b"], 1]),
        (tuple[int, ...], [[], [1, 2]], [[1.5], ["a"]]),
        (tuple[float, float] | None, [None, [0, 1]], [[0], 0]),
        (Sequence[int], [[], [1]], [["a"], "ab", 1, None]),
        (list[list[int]], [[[1], []]], [[1], [["a"]]]),
        (Sequence[int] | None, [None, [1]], [[None]]),
        (Any, [1, "x", None, [1]], []),
        (Shape, [], [1, "x", None, [1]]),
        (Sampler, [], [1, "euler", None]),
        (nn.Module, [], [1, "x", None]),
        (Callable[..., Any], [], [1, "x"]),
    ],
    ids=str,
)
def test_values_and_annotations(annotation: Any, good: list[Any], bad: list[Any]) -> None:
    assert matches(LATER, annotation)
    for value in good:
        assert matches(value, annotation), value
        check(value, annotation, "x")
    for value in bad:
        assert not matches(value, annotation), value
        assert refused(value, annotation).startswith("x must be ")


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (float | torch.Tensor, "a number"),
        (float | int, "a number"),
        (int | None, "a whole number or null"),
        (Sequence[int], "a list of whole numbers"),
        (tuple[float, float] | None, "a list of 2 values or null"),
        (Literal["stop", "skip"], "stop or skip"),
        (Shape, "a Shape, given by its _target_"),
    ],
)
def test_annotations_in_words(annotation: Any, words: str) -> None:
    assert describe(annotation) == words


# --- hostile configs --------------------------------------------------------------------------------------------------

HOSTILE = [
    "os.system", "os.popen", "os.execv", "os.remove", "os.unlink", "os.rename", "os.kill", "os.spawnlp",
    "posix.system", "subprocess.Popen", "subprocess.run", "subprocess.check_output", "builtins.eval",
    "builtins.exec", "builtins.compile", "builtins.__import__", "builtins.open", "builtins.getattr",
    "builtins.type", "torch.load", "torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.save",
    "torch.jit.load", "torch.compile", "torch.utils.cpp_extension.load",
    "torch.utils.cpp_extension.load_inline", "torch.package.PackageImporter", "torch.utils.model_zoo.load_url",
    "torch.serialization.load", "torch.multiprocessing.spawn", "torch.distributed.run.main", "numpy.load",
    "numpy.fromfile", "numpy.memmap", "numpy.f2py.compile", "numpy.f2py.__main__.main", "pathlib.Path",
    "pathlib.Path.unlink", "pathlib.PosixPath.write_text", "shutil.rmtree", "shutil.move", "ctypes.CDLL",
    "pickle.Unpickler", "pickle.loads", "_pickle.loads", "runpy.run_path", "runpy.run_module",
    "webbrowser.open", "antigravity.fly", "pip.main", "importlib.import_module", "hydra.utils.get_method",
    "hydra.utils.instantiate", "hydra.utils.call", "functools.partial", "types.FunctionType", "types.CodeType",
    "sympy.sympify", "sympy.parsing.sympy_parser.parse_expr", "jinja2.Template", "jinja2.Environment",
    "yaml.unsafe_load", "yaml.load", "yaml.UnsafeLoader", "omegaconf.OmegaConf.load", "socket.socket",
    "urllib.request.urlopen", "multiprocessing.Process", "threading.Thread", "code.InteractiveConsole",
    "timeit.timeit", "codecs.open", "tempfile.TemporaryDirectory", "joblib.load", "torch.nn.Sequential",
    "torch.nn.Linear", "pytorch_lightning.Trainer", "pytorch_lightning.LightningModule",
    "pytorch_lightning.LightningModule.load_from_checkpoint", "genlab.checkpoint.read.newest", "genlab.cli.main",
    "genlab.run.run_folder.create", "setuptools.setup", "wandb.init",
]  # fmt: skip
TYPICAL = ["model.network", "model.optimizer.lr", "trainer.strategy", "callbacks.evil", "logger.wandb.settings"]
PLACES = [
    "model", "model.objective", "model.sampler", "model.sampler.grid", "model.sampler.num_steps",
    "model.optimizer", "model.optimizer.betas", "model.schedule", "model.seed", "data", "data.limit",
    "data.batch_size", "trainer", "trainer.profiler", "trainer.devices", "trainer.barebones", "trainer.fast_dev_run",
    "trainer.num_nodes", "callbacks.samples", "callbacks.ema", "budget", "evaluation", "evaluation.seed", "metrics.fid",
    "metrics.evil", "metrics.extractor", "logger.wandb", "logger.wandb.experiment", "logger.wandb.id", "seed",
    "outputs", "dry_run", "profile", "cpu", "cpu.matmul",
]  # fmt: skip


@pytest.fixture(scope="module")
def config() -> Any:
    return ConfigTree().compose([])


def attack(config: Any, place: str, node: Any) -> None:
    attacked = config.copy()
    with open_dict(attacked):
        OmegaConf.update(attacked, place, node, merge=False, force_add=True)
    with pytest.raises(ConfigError):
        check_config(attacked)


@pytest.mark.parametrize("place", [TYPICAL[0], *(pytest.param(p, marks=pytest.mark.matrix) for p in TYPICAL[1:])])
def test_no_hostile_target_passes(place: str, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(HOSTILE) >= 60
    for name in HOSTILE:
        for partial_ in (False, True):
            attack(config, place, {"_target_": name, "_partial_": partial_, "args": "touch executed"})
    assert not list(tmp_path.iterdir())


def nodes() -> list[Any]:
    """Hostile ones, also where none is looked for."""
    names = ("os.system", "torch.hub.load", "torch.nn.Linear")
    plain = [{"_target_": name, "_partial_": partial_} for name in names for partial_ in (False, True)]
    return [wrapped for node in plain for wrapped in (node, [node], {"a": [node]}, [[node]])]


@pytest.mark.parametrize("place", [*TYPICAL, *PLACES])
def test_no_place_takes_a_hostile_target(place: str, config: Any) -> None:
    """Every fifth of them, from place to place another."""
    for node in nodes()[PLACES.index(place) % 5 if place in PLACES else 0 :: 5]:
        attack(config, place, node)


@pytest.mark.matrix
@pytest.mark.parametrize("place", [*TYPICAL, *PLACES])
def test_no_place_takes_any_hostile_target(place: str, config: Any) -> None:
    for node in nodes():
        attack(config, place, node)


def test_dangerous_modules_are_not_even_imported() -> None:
    for name in ("antigravity.fly", "this.s", "idlelib.idle.x", "numpy.f2py.__main__.main", "_pickle.loads"):
        module = name.rpartition(".")[0]
        was_there = module in sys.modules
        with pytest.raises(ConfigError, match="cannot be a part of an experiment"):
            resolve(name, "x")
        assert (module in sys.modules) == was_there


@pytest.mark.parametrize(
    "name", ["", "x", ".x", "a..b", "a b.c", "genlab.model.", None, 3, ["a"], "torch.optim.AdamW()"]
)
def test_what_is_no_name(name: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be a part of an experiment"):
        resolve(name, "x")


@pytest.mark.parametrize("name", ["genlab.model.diffusoin.Diffusion", "genlab.model.diffusion.Difusion", "nowhere.X"])
def test_a_target_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no '{name}'"):
        resolve(name, "model")


def test_a_path_is_text_and_never_an_object() -> None:
    with pytest.raises(ConfigError):
        check({"_target_": "pathlib.Path", "args": "x"}, str | Path, "x")
