"""Runs that learn from preferences: of every objective, stopped and continued, on two ranks, and what is refused."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from chats import SMALL, lines
from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.command.train import Interrupted
from genlab.config.build import fits, parameters, resolve
from genlab.config.tree import ConfigTree
from genlab.errors import ConfigError, DataError
from genlab.model.preference import Preference
from genlab.run.load import load_run
from genlab.run.run_folder import read_config
from genlab.seeding import RandomStream
from preferred import pairs
from test_ddp import finish
from tiny_run import SignalAt, only_run, resume, same, start, train

LEARNS = (*SMALL, "model/schedule=constant", "budget.value=48")


def objectives() -> list[str]:
    slot = parameters(Preference)["objective"]
    targets = ConfigTree().targets("model.objective")
    return [name for name, target in targets if fits(resolve(target, name), slot, partial=False)]


@pytest.fixture(scope="module")
def began(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The data, and a run of them as conversations with its chosen answers."""
    folder = tmp_path_factory.mktemp("pairs")
    data = pairs(folder)
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    chats = lines(({"q": row["prompt"], "a": row["chosen"]} for row in rows), folder / "chats.jsonl")
    run = train("model=transformer", "data=conversations", f"data.path={chats}", "data.prompt=q", "data.answer=a",
                "data.packing=false", *data[2:], *SMALL, "budget.value=8", outputs=folder / "text")  # fmt: skip
    return ("model=preference", *data, *LEARNS, f"start={run}")


def of(run: Path, key: str) -> dict[str, Any]:
    return dict(read.newest(run).content[key])


def weights(run: Path, part: str, kind: str = "state_dict") -> dict[str, torch.Tensor]:
    return {name.removeprefix(part): value for name, value in of(run, kind).items() if name.startswith(part)}


def test_all_objectives_are_there() -> None:
    assert objectives() == ["dpo", "ipo", "kto", "orpo", "robust", "simpo", "slic"]


# Two steps of each are in tests/test_judged.py.
ALL = [pytest.param(one, marks=[] if one == "kto" else [pytest.mark.matrix]) for one in objectives()]


@pytest.mark.parametrize("objective", ALL)
def test_a_run_of_every_objective(objective: str, began: tuple[str, ...], tmp_path: Path) -> None:
    """It learns, its reference stays what it began with, and the same answers come from what it saved."""
    run = train(*began, f"model/objective={objective}", outputs=tmp_path)
    first = weights(Path(began[-1].removeprefix("start=")), "network.", "ema")
    policy, reference = weights(run, "network."), weights(run, "reference.")
    assert not same(policy, first)
    assert reference.keys() == (set() if objective in ("orpo", "simpo") else policy.keys())
    if reference:
        assert not any(name.startswith("reference.") for name in of(run, "ema"))
        assert same(reference, first)
    with (run / "metrics.csv").open() as file:
        columns = next(csv.reader(file))
    told = {"loss", "accuracy", "margin", "chosen", "rejected", *(["kl"] if reference else [])}
    assert {f"{split}/{name}" for split in ("train", "val") for name in told} <= {*columns}
    again = [load_run(OmegaConf.create(read_config(run)), run)[0] for _ in range(2)]
    texts = [model.sample(2, None, RandomStream.for_samples(1, range(2))) for model in again]  # type: ignore[attr-defined]
    assert torch.equal(*texts)


@pytest.mark.matrix  # one point of each family is in tests/test_judged.py
@pytest.mark.parametrize("stop", [0, 32])
def test_stopped_and_continued(stop: int, began: tuple[str, ...], tmp_path: Path) -> None:
    """To the last bit, with dropout, and without what it began with."""
    given = (*began, "model.network.dropout=0.3", "model/objective=kto")
    whole = train(*given, outputs=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(*given, SignalAt.override(stop), outputs=tmp_path / "stopped")
    run = only_run(tmp_path / "stopped")
    assert read.newest(run).progress.examples == stop + 8
    resume(run)
    for key in ("state_dict", "ema", "optimizer_states", "Preferences"):
        assert same(of(run, key), of(whole, key))


@pytest.mark.matrix  # two processes that start anew
@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_two_ranks_take_the_same_steps(objective: str, began: tuple[str, ...], tmp_path: Path) -> None:
    given = (*began, f"model/objective={objective}", "model.network.dropout=0")
    alone = of(train(*given, outputs=tmp_path / "one"), "state_dict")
    finish(start(*given, "trainer=ddp_cpu", outputs=tmp_path / "two"))
    together = of(only_run(tmp_path / "two"), "state_dict")
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=1e-6)


def refused(*typed: str, outputs: Path) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        command_line(["train", "trainer=cpu", "logger=[none]", *typed, f"outputs={outputs}"])
    assert "\n" not in str(caught.value)
    assert not outputs.exists()
    return str(caught.value)


def test_what_does_not_fit_is_refused_with_what_does(began: tuple[str, ...], tmp_path: Path, outputs: Path) -> None:
    *given, begin = began
    assert refused(*given, outputs=outputs).endswith("Name its run: start=outputs/<model>-<data>/<run>")
    assert "Use model=preference or model=reward." in refused(*given, "model=transformer", outputs=outputs)
    chats = ("data=conversations", "data.prompt=prompt", "data.answer=chosen")
    others = [word for word in given if word != "data=preferences"]
    assert refused(*others, *chats, begin, outputs=outputs).endswith("Use data=preferences")
    assert "model/objective=dpo or ipo or kto" in refused(*given, begin, "model/objective=hinge", outputs=outputs)
    other = refused(*given, begin, "data/tokenizer=characters", "data.template=plain", outputs=outputs)
    assert "its model knows other tokens (Bytes, " in other
    assert other.endswith("Use data/tokenizer=bytes")
    digits = train("model=vae", outputs=tmp_path / "vae")
    assert "Name a run of model=transformer." in refused(*given, f"start={digits}", outputs=outputs)


def test_learned_tokens_are_taken_from_the_run(began: tuple[str, ...], tmp_path: Path, outputs: Path) -> None:
    (tmp_path / "t.txt").write_text("0? 1? 2? = no user assistant\n" * 60)
    run = train("model=transformer", "data=text_file", f"data.path={tmp_path / 't.txt'}", "data/tokenizer=bpe",
                "data.tokenizer.vocab_size=270", *SMALL, "data.context=64", "budget.value=8", "data.limit=null",
                f"data.cache_dir={tmp_path / 'c'}", outputs=tmp_path / "run")  # fmt: skip
    said = refused(*began[:-1], f"start={run}", outputs=outputs)
    remedy = said.partition("Use ")[2].split()
    assert remedy == ["data/tokenizer=gpt2", f"data.tokenizer.name={run / 'tokenizer.json'}", "data.template=plain"]
    train(*began[:-1], f"start={run}", *remedy, outputs=tmp_path / "learned")
