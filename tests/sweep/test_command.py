"""From a command line to a plan, and what is wrong with it in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from genlab.errors import ConfigError
from genlab.sweep import metric
from genlab.sweep.metric import Metric, choose_metric
from genlab.sweep.plan import read_plan

FID = {"metrics": {"fid": {"_target_": "genlab.metrics.fid.FID"}}}


def test_the_same_command_is_the_same_sweep() -> None:
    def name(*typed: str) -> str:
        return read_plan(typed, None).folder.name

    first = name("model=gan,vae", "data=cifar10", "seed=0,1")
    assert first.startswith("gan-vae-cifar10-")
    assert first == name("seed=0,1", "data=cifar10", "model=gan,vae", "launcher.slots=4", "sweep.retries=3")
    assert first != name("model=gan,vae", "data=cifar10", "seed=0,1,2")
    assert first != name("model=gan,vae", "data=cifar10", "seed=0,1", "sweep=optuna", "sweep.metric=val/loss")
    assert name("seed=0,1").startswith("sweep-")
    assert len(name(f"model={','.join(['gan', 'vae', 'flow', 'diffusion', 'transformer', 'masked'] * 5)}")) <= 80


def test_folders_and_flags(tmp_path: Path) -> None:
    plan = read_plan(["seed=0,1", "outputs=/x/y", "sweep.name=mine"], str(tmp_path))
    assert plan.folder == Path("/x/y/mine")
    assert plan.flags == ("--config-dir", str(tmp_path))
    assert plan.space.overrides({"seed": "1"}) == ["seed=1"]  # where it lies does not make it another trial


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("sweep=optuna", "there is nothing to draw. Name values: model=gan,vae or 'model.optimizer.lr=tag(log, "
                         "interval(1e-5, 1e-3))'."),
        ("sweep=optun", "unknown sweep 'optun'. Did you mean 'optuna'? Available: grid, optuna, wandb."),
        ("sweep=grid,optuna", "sweep=grid,optuna names several values, and a sweep takes one. Choose one of them."),
        ("sweep.nam=x", "unknown option 'sweep.nam'. Did you mean 'sweep.name'?"),
        ("sweep.name=a/b", "sweep.name=a/b must consist of letters, digits, '.', '_' and '-', at most 80."),
        ("sweep.name=..", "sweep.name=.. must consist of letters, digits, '.', '_' and '-', at most 80."),
        ("sweep.retries=x", "sweep.retries must be a whole number, got 'x'."),
        ("launcher.slots=0", "launcher.slots=0 must be a whole number >= 1, or null."),
        ("run=outputs/x", "run=outputs/x is for one run, and a sweep makes its own runs. Leave it out."),
        ("folder=x", "folder=x is for one run, and a sweep makes its own runs. Leave it out."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(typed: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_plan([typed], None)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("asked", "measured", "place"),
    [
        ("val/fid_digits64_1k", "fid_digits64_1k", 0),
        ("fid_digits64_1k", "val/fid_digits64_500", 1),
        ("fid", "val/fid_digits64_500", 2),
        ("val/loss", "val/loss", 0),
        ("fid", "val/fidelity_500", None),
        ("kid", "val/fid_digits64_500", None),
    ],
)
def test_a_metric_has_several_names(asked: str, measured: str, place: int | None) -> None:
    assert Metric(asked, "lower").place(measured) == place


def test_the_best_name_is_taken() -> None:
    values = {"fid_x_500": 1.0, "fid_x_1k": 2.0, "fid_y_1k": 3.0}
    assert Metric("fid_y_1k", "lower").pick(values) == 3.0
    assert Metric("fid_x_2k", "lower").pick(values) == 1.0
    assert Metric("kid", "lower").pick(values) is None


@pytest.mark.matrix  # a process that starts anew
def test_a_metric_says_itself_which_way_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    known = metric._directions(["genlab.metrics.accuracy.Accuracy", "genlab.metrics.fid.FID"])
    assert known == {"accuracy": "higher", "cross_entropy": "lower", "fid": "lower"}
    monkeypatch.setattr(metric, "_directions", lambda targets: known)
    assert choose_metric("val/fid", None, lambda: FID) == Metric("val/fid", "lower")
    assert choose_metric("accuracy_500", None, lambda: FID) == Metric("accuracy_500", "higher")
    assert choose_metric(None, None, lambda: FID) == Metric("accuracy", "higher")
    with pytest.raises(ConfigError, match=r"trials do not measure this[.] Did you mean 'fid'"):
        choose_metric("fidd", None, lambda: FID)


def test_one_illegal_combination_does_not_keep_the_others_from_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric, "subprocess", None)  # an extractor is left: it measures nothing, and is not asked
    plan = read_plan(["model/generator=dcgan", "model=vae,gan", "sweep/pruner=asha", "metrics=[]"], None)
    assert plan.metric == Metric("val/loss", "lower")


def test_without_asking_anybody() -> None:
    assert choose_metric("val/loss", None, dict) == Metric("val/loss", "lower")
    assert choose_metric(None, None, dict) == Metric("val/loss", "lower")
    assert choose_metric("mine", "higher", dict) == Metric("mine", "higher")


def test_a_sweep_needs_no_torch() -> None:
    code = "import sys, genlab.sweep.loop, genlab.sweep.plan, genlab.sweep.search, genlab.launcher.local; " \
           "print('torch' in sys.modules or 'pytorch_lightning' in sys.modules)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
