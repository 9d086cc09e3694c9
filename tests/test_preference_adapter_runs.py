"""Runs that learn from preferences with an adapter: no copy of the network, and a reference that stays what it was."""

import csv
import json
import math
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.command.train import Interrupted
from genlab.errors import ConfigError
from genlab.model.adapter.lora import adapter_names
from genlab.run.origin import FileOrigin
from preferred import by_hand
from test_ddp import finish
from test_finetune import RANK, adapter_in, base_in
from test_judged import KILLED
from test_preference_runs import began as began
from test_quantized_base import model_of
from tiny_run import SignalAt, only_run, popen, resume, same, start, train

LORA = ("model/adapter=lora", "model.adapter.rank=2", "model.optimizer.lr=1e-2")
DROPOUT = ("model.adapter.dropout=0.2", "model.network.dropout=0.3")
STILL = ("model.optimizer.lr=0", "budget.value=8", "model.network.dropout=0")
CONTENTS = ("state_dict", "ema", "optimizer_states")
BATCH = by_hand(97)
ROWS = BATCH["tokens"].flatten(0, 1), BATCH["answer"].flatten(0, 1)


@pytest.fixture(scope="module")
def tuned(began: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*began, *LORA, *DROPOUT, outputs=tmp_path_factory.mktemp("tuned"))


@torch.no_grad()
def both(run: Path) -> tuple[Tensor, Tensor | None]:
    """The log-probabilities of six answers, by the policy and by the reference."""
    scored, _ = model_of(run).scored(*(rows.to("cpu") for rows in ROWS))
    return scored.policy, scored.reference


def column(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_a_checkpoint_has_one_network(tuned: Path, began: tuple[str, ...]) -> None:
    last = read.newest(tuned)
    updates = {*adapter_names(model_of(tuned))}
    first = read.newest(Path(began[-1].removeprefix("start="))).content["ema"]
    assert {*last.state} - updates == {*first}
    assert all(torch.equal(last.state[name], value) for name, value in first.items())
    assert {*last.content["ema"]} == updates
    (optimizer,) = last.content["optimizer_states"]
    assert len(optimizer["state"]) == len(updates)
    assert all(bool(last.state[name].any()) for name in updates)


def test_the_reference_is_the_model_of_the_start(tuned: Path, began: tuple[str, ...], tmp_path: Path) -> None:
    """To the last bit, after the steps of a run; before them the policy is the same."""
    policy, reference = both(tuned)
    copied = train(*began, *STILL, outputs=tmp_path / "copied")
    assert torch.equal(*both(copied))  # type: ignore[arg-type]
    assert torch.equal(reference, both(copied)[0])  # type: ignore[arg-type]
    assert not torch.equal(policy, reference)  # type: ignore[arg-type]
    still = train(*began, *LORA, *STILL, outputs=tmp_path / "still")
    assert column(still, "train/loss") == pytest.approx([math.log(2)])
    assert column(still, "train/kl") == [0]


def test_stopped_and_continued(tuned: Path, began: tuple[str, ...], tmp_path: Path) -> None:
    """Bit for bit, without the run that it began with, and with blocks that are computed twice from then on."""
    *given, begin = began
    copy = shutil.copytree(begin.removeprefix("start="), tmp_path / "copy")
    with pytest.raises(Interrupted):
        train(*given, f"start={copy}", *LORA, *DROPOUT, SignalAt.override(16), outputs=tmp_path / "stopped")
    shutil.rmtree(copy)
    run = only_run(tmp_path / "stopped")
    resume(run, "trainer.activation_checkpointing=true")
    for part in CONTENTS:
        assert same(read.newest(run).content[part], read.newest(tuned).content[part]), part


@pytest.mark.matrix  # a process of its own, which nothing warns
def test_killed_and_continued(began: tuple[str, ...], tmp_path: Path) -> None:
    given = [*began, *LORA, *DROPOUT, "budget.value=72"]
    whole = train(*given, outputs=tmp_path / "whole")
    (tmp_path / "killed.py").write_text(KILLED)
    typed = [*given, "callbacks.checkpoint.every_minutes=0.0001"]
    process = popen([sys.executable, str(tmp_path / "killed.py"), json.dumps(typed), str(tmp_path / "runs")])
    _, said = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, said
    run = only_run(tmp_path / "runs")
    assert 0 < read.newest(run).progress.examples <= 48
    resume(run)
    for part in CONTENTS:
        assert same(read.newest(run).content[part], read.newest(whole).content[part]), part


@pytest.mark.matrix  # two processes that start anew
@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_two_ranks_take_the_same_steps(objective: str, began: tuple[str, ...], tmp_path: Path) -> None:
    given = (*began, *LORA, f"model/objective={objective}", "model.network.dropout=0")
    alone = read.newest(train(*given, outputs=tmp_path / "one")).state
    finish(start(*given, "trainer=ddp_cpu", outputs=tmp_path / "two"))
    together = read.newest(only_run(tmp_path / "two")).state
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("quantization", ["nf4", pytest.param("int8", marks=pytest.mark.matrix)])
def test_a_quantized_base_is_the_reference(quantization: str, began: tuple[str, ...], tmp_path: Path) -> None:
    given = (*began, *LORA, f"model.adapter.quantization={quantization}")
    still, run = (train(*given, *more, outputs=tmp_path / str(len(more))) for more in (STILL, ()))
    assert torch.equal(*both(still))  # type: ignore[arg-type]
    policy, reference = both(run)
    assert torch.equal(reference, both(still)[0])  # type: ignore[arg-type]
    assert not torch.equal(policy, reference)  # type: ignore[arg-type]
    assert not any(name.startswith("reference.") for name in read.newest(run).state)


def test_an_adapter_of_the_start_is_part_of_the_reference(
    tuned: Path, began: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is merged, though a run of the same adapter could go on with it."""
    again = train(*began[:-1], f"start={tuned}", *LORA, *STILL, outputs=tmp_path)
    assert "its adapter is merged into them" in capsys.readouterr().out
    policy, reference = both(again)
    assert torch.equal(policy, reference)  # type: ignore[arg-type]
    torch.testing.assert_close(policy, both(tuned)[0], rtol=0, atol=1e-4)
    assert float((policy - both(tuned)[1]).abs().max()) > 1e-3  # type: ignore[operator]
    orpo = ("model/objective=orpo", *began[:-1], f"start={tuned}", *LORA, *STILL)
    went_on = read.newest(train(*orpo, outputs=tmp_path / "orpo")).state
    assert all(torch.equal(went_on[name], value) for name, value in read.newest(tuned).content["ema"].items())


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_an_adapter_of_peft_is_part_of_the_reference(
    quantization: str | None, began: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, adapter = base_in(tmp_path / "base"), adapter_in(tmp_path / "adapter")
    given = [line for line in began[:-1] if not line.startswith("model.network.")]
    of_base = (*given, f"start=hf:{base}", "data.template=plain", "data.context=63")
    begun = (*of_base, f"start.adapter={adapter}")
    few_bits = () if quantization is None else ("model/adapter=lora", f"model.adapter.quantization={quantization}")
    still = ("model.optimizer.lr=0", "budget.value=8")
    run = train(*begun, *few_bits, *still, outputs=tmp_path / "merged")
    assert f"; adapter of {adapter}, merged" in capsys.readouterr().out
    policy, reference = both(run)
    assert torch.equal(policy, reference)  # type: ignore[arg-type]
    assert model_of(run).adapter.rank == RANK
    went_on = train(*begun, "model/objective=simpo", *still, outputs=tmp_path / "goes_on")
    exact = 1e-4 if quantization is None else 0.15
    torch.testing.assert_close(policy, both(went_on)[0], rtol=0, atol=exact)
    bare = train(*of_base, *LORA, *still, outputs=tmp_path / "bare")
    assert float((policy - both(bare)[0]).abs().max()) > exact
    with pytest.raises(ConfigError, match=r"^start\.only=.* is merged, .* Leave start\.only= out\.$"):
        command_line(["train", *begun, "start.only=[network.blocks.*]", f"outputs={tmp_path / 'none'}"])
    assert not (tmp_path / "none").exists()
    command_line(["export", f"run={run}", "format=peft", f"out={tmp_path / 'peft'}"])
    assert f"base:       hf:{base} with the adapter {adapter} merged" in capsys.readouterr().out
    assert json.loads((tmp_path / "peft/adapter_config.json").read_text())["base_model_name_or_path"] in ("", None)


def test_what_is_exported_has_the_reference_too(tuned: Path, began: tuple[str, ...], tmp_path: Path) -> None:
    """As a run without an adapter has it; a run that starts from it begins where this one ended."""
    command_line(["export", f"run={tuned}", "format=safetensors", f"out={tmp_path / 'file'}"])
    file = tmp_path / "file/model.safetensors"
    weights, base = FileOrigin(str(file), "start").weights(), read.newest(tuned).state
    names = {name.removeprefix("network.") for name in base if ".updates." not in name}
    assert {*weights} == {f"{part}.{name}" for part in ("network", "reference") for name in names}
    assert all(torch.equal(weights[f"reference.{name}"], base[f"network.{name}"]) for name in names)
    begun = (f"start={file}", "start.only=[*]")  # this run needs no copy
    again = train(*began[:-1], *begun, *LORA, *STILL, outputs=tmp_path / "again")
    torch.testing.assert_close(both(again)[0], both(tuned)[0], rtol=0, atol=1e-4)
    command_line(["export", f"run={tuned}", "format=transformers", f"out={tmp_path / 'folder'}"])
    assert (tmp_path / "folder/model.safetensors").exists()
