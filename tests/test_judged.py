"""Families that learn from judgments and rewards: what a run of any family promises, of each."""

import json
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from chats import lines
from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.command.train import Interrupted
from genlab.config.build import resolve
from genlab.config.tree import ConfigTree
from genlab.errors import ConfigError
from genlab.run import run_folder
from genlab.run.load import load_run
from preferred import pairs
from test_contract import state
from test_ddp import finish
from test_flops import run_of
from test_grid import options
from tiny_run import ON_A_BASE, SignalAt, families, only_run, popen, resume, same, small, train

FAMILIES = [name for name in ConfigTree().groups()["model"] if name not in (*families(), *ON_A_BASE)]
BEGIN = [name for name in FAMILIES if resolve(dict(ConfigTree().targets("model"))[name], name).begins_trained]  # type: ignore[attr-defined]
OFTEN = {"edm", "grpo", "ppo", "dpo", "kto", "orpo", "bradley_terry"}  # of a kind: the others are in the matrix
OBJECTIVES = [
    pytest.param(f, o, marks=[] if o in OFTEN else [pytest.mark.matrix])
    for f in FAMILIES
    for o in options(f, "objective")[0]
    if o != "consistency"  # a model of the end of the ODE has a sampler of its own, which no policy can learn by
]
# Of an answer, what it begins with decides: random networks are rewarded differently for their answers to one prompt.
POLICY = ("model/rewards=[format]", 'model.rewards.format.pattern="[a-z ].*"', "model.answers=4", "model.passes=2",
          "model.sample_length=6", "model.minibatches=2")  # fmt: skip
DRAWN = ("data=digits", "model/network=mlp", "model.network.width=8", "model.network.depth=1",
         "model/rewards=[brightness,jpeg_size]", "model.sampler.num_steps=3", "model.passes=2", "model.minibatches=2",
         "model.advantages=condition")  # fmt: skip
DIGITS = ("model.conditions=[]", "model.condition_dropout=0")


KILLED = """
import genlab
import json, os, signal, sys
from pathlib import Path
import tiny_run
from genlab.budget import Budget
begin = Budget.on_train_batch_start
def killed(self, trainer, model, *rest):
    if model.progress.examples == 48:
        os.kill(os.getpid(), signal.SIGKILL)
    begin(self, trainer, model, *rest)
Budget.on_train_batch_start = killed
tiny_run.train(*json.loads(sys.argv[1]), outputs=Path(sys.argv[2]))
"""


def pictures(folder: Path) -> tuple[str, ...]:
    """The overrides that read 60 pairs of pictures, of which the brighter one is preferred."""
    draw = np.random.default_rng(0)
    (folder / "drawn").mkdir()
    rows = []
    for i in range(60):
        names = [f"drawn/{i}-{side}.png" for side in "ab"]
        drawn = sorted((draw.integers(0, 256, (16, 16), np.uint8) for _ in names), key=np.mean)
        for name, pixels in zip(names, drawn, strict=True):
            Image.fromarray(pixels).save(folder / name)
        rows.append({"chosen": names[1], "rejected": names[0]})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ("data=image_preferences", f"data.path={folder / 'pairs.jsonl'}", "data.channels=1",
            f"data.cache_dir={folder / 'cache'}")  # fmt: skip


def asked(folder: Path) -> tuple[str, ...]:
    """The overrides that read 60 prompts."""
    path = lines(({"prompt": f"{i}?", "answer": f"{i}"} for i in range(60)), folder / "prompts.jsonl")
    return ("data=prompts", f"data.path={path}", f"data.cache_dir={folder / 'cache'}", "data.context=64")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A family's overrides: its data, and the run that it begins with."""

    @cache
    def of(family: str) -> tuple[str, ...]:
        folder = tmp_path_factory.mktemp(family)
        if family == "diffusion_preference":
            source = train(*small("model=diffusion", *DIGITS), outputs=folder / "source")
            return (*pictures(folder), f"start={source}", *DIGITS)
        if family == "diffusion_policy":
            source = train(*small("model=diffusion", *DRAWN[:4]), outputs=folder / "source")
            return (f"start={source}", *DRAWN)
        if family == "image_reward":
            return (*pictures(folder), "model.members=2")
        if family == "reward":
            return (*pairs(folder), "data.template=plain", "data.ties=half", "model.members=2")
        text = folder / "text.txt"
        text.write_text("what is asked, and what is answered. " * 200)
        source = train(
            *small("model=transformer", "data=text_file", f"data.path={text}", "data/tokenizer=bytes"),
            "data.context=64", outputs=folder / "source",
        )  # fmt: skip
        begun = (f"start={source}", "data.template=plain")
        if family == "policy":
            return (*asked(folder), *begun, *POLICY)
        return (*pairs(folder), *begun)

    return of


@pytest.fixture(scope="module")
def overrides(given: Any) -> Any:
    def of(family: str, *more: str) -> tuple[str, ...]:
        quiet = ("callbacks.samples.times=0",) if family in BEGIN else ()
        return (*small(f"model={family}", *given(family), *more), *quiet)

    return of


@pytest.fixture(scope="module")
def never_stopped(overrides: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def run(family: str) -> Path:
        return train(*overrides(family), outputs=tmp_path_factory.mktemp(family))

    return run


def test_each_is_here() -> None:
    assert FAMILIES == [
        "diffusion_policy", "diffusion_preference", "image_reward", "policy", "preference", "reward"]  # fmt: skip
    assert BEGIN == ["diffusion_policy", "diffusion_preference", "policy", "preference"]


@pytest.mark.parametrize("family", FAMILIES)
def test_stopped_and_continued(family: str, overrides: Any, never_stopped: Any, tmp_path: Path) -> None:
    """Bit for bit, and without the run that it began with: a checkpoint has the reference."""
    with pytest.raises(Interrupted):
        train(*overrides(family), SignalAt.override(16), outputs=tmp_path)
    run = only_run(tmp_path)
    config = run_folder.read_config(run)
    assert family not in BEGIN or config["start"]["sha256"]
    resume(run)
    assert same(state(run), state(never_stopped(family)))


@pytest.mark.matrix  # a process of its own, which nothing warns
@pytest.mark.parametrize("family", FAMILIES)
def test_killed_and_continued(family: str, overrides: Any, never_stopped: Any, tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    typed = [*overrides(family), "callbacks.checkpoint.every_minutes=0.0001"]
    process = popen([sys.executable, str(tmp_path / "killed.py"), json.dumps(typed), str(tmp_path / "runs")])
    _, said = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, said
    run = only_run(tmp_path / "runs")
    assert 0 < read.newest(run).progress.examples <= 48
    resume(run)
    assert same(state(run), state(never_stopped(family)))


@pytest.mark.parametrize(("family", "objective"), OBJECTIVES)
def test_each_objective_takes_two_steps_and_is_read_again(
    family: str, objective: str, overrides: Any, tmp_path: Path
) -> None:
    run = train(*overrides(family, f"model/objective={objective}"), "budget.value=16", outputs=tmp_path)
    model, _ = load_run(OmegaConf.create(run_folder.read_config(run)), run)
    saved = read.newest(run).state
    assert all(torch.isfinite(value).all() for value in saved.values() if value.is_floating_point())
    begun = {name.partition(".")[0] for name in saved}
    if family not in BEGIN:
        assert begun == {"network", "head", "others"}
        return
    copied = {copy.rstrip(".") for copy in model.copies}
    assert begun == {"network", *copied, *(["value"] if "critic" in copied else [])}
    if "reference" in copied:
        assert any(not torch.equal(saved[name], saved[f"network.{name.removeprefix('reference.')}"])
                   for name in saved if name.startswith("reference."))  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_are_counted(family: str, overrides: Any, tmp_path: Path) -> None:
    """Those of the reference too: torch's counter has as many. A policy's answers count as one pass over them, in which
    attention is to some more tokens than when they are drawn."""
    model, steps = run_of((*overrides(family), "budget.value=64"), tmp_path)
    counted = steps.counter.get_total_flops()
    assert counted > 0
    if family == "policy":
        assert counted < model.progress.flops < 1.02 * counted
    else:
        assert model.progress.flops == counted


@pytest.mark.parametrize("family", BEGIN)
def test_it_needs_a_beginning(family: str, given: Any, tmp_path: Path) -> None:
    data = [line for line in given(family) if line.startswith("data")]
    with pytest.raises(
        ConfigError, match=r"learns on from a model that has been trained\. Name its run: start=outputs/"
    ):
        command_line(["train", f"model={family}", "logger=[none]", f"outputs={tmp_path}", *data,
                      *(DIGITS if family == "diffusion_preference" else ())])  # fmt: skip
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "diffusion_policy"])
def test_it_needs_judgments(family: str, given: Any, tmp_path: Path) -> None:
    data = [line for line in given(family) if line.startswith("data")]
    of_pictures = family in ("diffusion_preference", "image_reward")
    bare = ["train", f"model={family}", "logger=[none]", f"outputs={tmp_path}"]
    wanted = rf"(learns from .*|answers prompts), and the data have none\. Use (data=.* or )?{data[0]}( or .*)?$"
    with pytest.raises(ConfigError, match=wanted):
        command_line([*bare, "data=digits" if of_pictures else "data=python_docs"])
    if family == "policy":  # of the same data, others are trained on the answers
        return
    kind = "diffusion" if of_pictures else "transformer"
    with pytest.raises(ConfigError, match=rf"cannot be trained on .*\. Use (model=.* or )?model={family}( or .*)?\.$"):
        command_line(["train", f"model={kind}", *data, "logger=[none]", f"outputs={tmp_path}"])
    assert not [*tmp_path.iterdir()]


def test_a_model_of_other_tokens_is_refused(given: Any, tmp_path: Path) -> None:
    """Preferences are told in the tokens that the model knows; the advice is what works."""
    typed = ["train", "model=preference", "logger=[none]", *given("preference"), f"outputs={tmp_path}"]
    with pytest.raises(ConfigError, match=r"its model knows other tokens \(Bytes, 257\) than those") as said:
        command_line([*typed, "data/tokenizer=characters"])
    assert str(said.value).endswith("Use data/tokenizer=bytes data.template=plain")
    source = train(*small("model=vae"), outputs=tmp_path / "source")
    with pytest.raises(ConfigError, match=r"its model knows no text\. Name a run of model=transformer\."):
        command_line([*typed, f"start={source}"])


@pytest.mark.matrix  # two processes that start anew
@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes(family: str, overrides: Any, never_stopped: Any, tmp_path: Path) -> None:
    """They train it together, through the same examples; of answers, where nothing is drawn, to the same weights."""
    (tmp_path / "both.py").write_text(
        "import genlab, json, sys, tiny_run\n"
        'tiny_run.train(*json.loads(sys.argv[1]), "trainer=ddp_cpu", outputs=sys.argv[2])\n'
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               str(tmp_path / "both.py"), json.dumps(overrides(family)), str(tmp_path / "runs")]  # fmt: skip
    finish(popen(command), seconds=200)
    together, alone = read.newest(only_run(tmp_path / "runs")), read.newest(never_stopped(family))
    assert together.progress.examples == alone.progress.examples == 104
    assert {k: v.shape for k, v in together.state.items()} == {k: v.shape for k, v in alone.state.items()}
    for name, value in together.state.items():
        if name.startswith("reference."):
            assert torch.equal(value, alone.state[name])


def test_the_class_says_what_it_learns_from() -> None:
    targets = dict(ConfigTree().targets("model"))
    for family in FAMILIES:
        found: Any = resolve(targets[family], family)
        assert found.learns_from or found.begins_trained
