"""Runs with an adapter on a base in 8 or 4 bits: where its weights come from, that they go on, and what is merged."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from genlab.checkpoint import read
from genlab.checkpoint.tensors import as_bytes, sha256_of
from genlab.cli import run as command_line
from genlab.command.train import Interrupted
from genlab.errors import CheckpointError
from genlab.interop import gguf
from genlab.interop.origin import HubOrigin
from genlab.model.network.quantized_weight import quantize
from genlab.run import run_folder
from genlab.run.load import load_run
from genlab.run.origin import FileOrigin
from test_adapter_refused import refused
from test_ddp import finish
from test_finetune import LORA, TOKENS, Steps, averaging, far_from, sft
from test_finetune import folders as folders
from tiny_run import SignalAt, only_run, resume, same, start, train

NF4 = (*LORA, "model.adapter.quantization=nf4")
MAPS = ("attention.qkv", "attention.out", "feed_forward.gate_and_value", "feed_forward.out")
SMALL = ("model/network=llama", "model.network.width=32", "model.network.depth=2")
STILL = ("model.optimizer.lr=0", "budget.value=8")


@pytest.fixture(scope="module")
def tuned(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("tuned")
    return train(*averaging(folders), *NF4, f"start=hf:{folders['base']}", outputs=outputs)


def model_of(run: Path) -> Any:
    return load_run(OmegaConf.create(run_folder.read_config(run)), run)[0]


def base_of(folder: Path) -> dict[str, torch.Tensor]:
    return {f"network.{name}": value for name, value in HubOrigin(f"hf:{folder}", "start").weights().items()}


def test_a_checkpoint_has_the_numbers_of_the_base(tuned: Path, folders: dict[str, Path]) -> None:
    """Those of the folder's own weights, each in the bytes that it should have; averages and a state of the updates
    alone."""
    last, base = read.newest(tuned), base_of(folders["base"])
    maps = {f"network.blocks.{i}.{name}" for i in range(2) for name in MAPS}
    updates = {name for name in last.state if ".updates." in name}
    found = {name for name in last.state if name not in updates}
    numbers = {f"{name}.quantized.{part}" for name in maps for part in ("numbers", "scales")}
    assert found == ({*base} - {f"{name}.weight" for name in maps}) | numbers
    for name in maps:
        expected = quantize(base[f"{name}.weight"], "nf4")
        kept = [last.state[f"{name}.quantized.{part}"] for part in ("numbers", "scales")]
        assert all(torch.equal(value, exact) for value, exact in zip(kept, expected, strict=True))
        blocks = -(-base[f"{name}.weight"].numel() // 64)
        assert sum(value.nbytes for value in kept) == blocks * (32 + 4)
    assert all(torch.equal(last.state[name], value) for name, value in base.items() if name in found)
    assert {*last.content["ema"]} == updates
    (optimizer,) = last.content["optimizer_states"]
    assert len(optimizer["state"]) == len(updates)
    assert all(last.state[name].dtype == torch.float32 and bool(last.state[name].any()) for name in updates)
    summary = json.loads((tuned / "summary.json").read_text())
    assert summary["parameters"] == sum(value.numel() for value in (*base.values(), *(last.state[n] for n in updates)))


def test_a_run_that_goes_on_needs_no_base_and_ends_the_same(
    tuned: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(folders["base"], tmp_path / "copy")
    with pytest.raises(Interrupted):
        train(*averaging(folders), *NF4, f"start=hf:{copy}", SignalAt.override(8), outputs=tmp_path / "stopped")
    shutil.rmtree(copy)
    run = only_run(tmp_path / "stopped")
    for other in ("int8", "null"):
        with pytest.raises(CheckpointError, match=r"made by another model \(network\.blocks\.0.*Change model\.\* back"):
            resume(run, f"model.adapter.quantization={other}", allow_changes=True)
    resume(run, "trainer.activation_checkpointing=true")
    for part in ("state_dict", "ema", "optimizer_states"):
        assert same(read.newest(run).content[part], read.newest(tuned).content[part]), part


@torch.no_grad()
def test_it_is_merged_from_the_floats_of_the_base(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into a folder of transformers and a file of safetensors, from which another run begins where this one ended."""
    model = model_of(tuned)
    command_line(["export", f"run={tuned}", "format=transformers", f"out={tmp_path / 'merged'}"])
    told = re.search(r"merged: +the adapter, in float32; .* none differs by more than (\S+)$", capsys.readouterr().out,
                     re.M)  # fmt: skip
    assert told is not None
    assert float(told[1]) < 1e-5
    assert far_from(tmp_path / "merged", model.network) < 2e-5
    command_line(["export", f"run={tuned}", "format=safetensors", f"out={tmp_path / 'file'}"])
    described = FileOrigin(str(tmp_path / "file/model.safetensors"), "start")
    assert described.model()["adapter"] is None
    again = base_of(tmp_path / "merged")
    assert {*described.weights()} == {*again}
    assert all(torch.equal(described.weights()[name], value) for name, value in again.items())
    assert len(model.sample(2)) == 2


@pytest.mark.matrix
@torch.no_grad()
def test_runs_start_from_runs(folders: dict[str, Path], tmp_path: Path) -> None:
    """From one without an adapter; then from this one: with the same adapter and numbers bit by bit, with another
    quantization, or none, from the sum."""
    choices = (*sft(folders), "data/tokenizer=bytes", *SMALL)
    source = train(*choices, "budget.value=8", outputs=tmp_path / "source")
    tuned = train(*choices, *NF4, f"start={source}", outputs=tmp_path / "tuned")
    own = model_of(tuned)
    state, merged = own.state_dict(), own.network(TOKENS)
    weight = model_of(source).network.blocks[1].feed_forward.out.weight
    assert torch.equal(own.network.blocks[1].feed_forward.out.quantized.numbers, quantize(weight, "nf4")[0])
    again = model_of(train(*choices, *NF4, *STILL, f"start={tuned}", outputs=tmp_path / "same"))
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    whole = model_of(train(*choices, *STILL, f"start={tuned}", outputs=tmp_path / "whole"))
    torch.testing.assert_close(whole.network(TOKENS), merged, rtol=0, atol=1e-5)
    more = (*LORA, "model.adapter.quantization=int8", *STILL, f"start={tuned}")
    eight = model_of(train(*choices, *more, outputs=tmp_path / "eight"))
    assert 1e-5 < float((eight.network(TOKENS) - merged).abs().max()) < 0.1 * float(merged.abs().max())
    numbers = eight.network.blocks[0].attention.out.quantized
    expected = quantize(whole.network.blocks[0].attention.out.weight, "int8")
    assert torch.equal(numbers.numbers, expected[0])


def test_a_gguf_file_is_quantized(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers reads of it is taken from a folder here."""

    class OfFolder(HubOrigin):
        def __init__(self, where: str, option: str):
            super().__init__(f"hf:{folders['base']}", option)

    monkeypatch.setattr(gguf, "GgufOrigin", OfFolder)
    run = train(*sft(folders), *NF4, *STILL, f"start={tmp_path / 'model.gguf'}", outputs=tmp_path / "runs")
    state, name = read.newest(run).state, "network.blocks.1.feed_forward.out"
    weight = base_of(folders["base"])[f"{name}.weight"]
    assert torch.equal(state[f"{name}.quantized.numbers"], quantize(weight, "nf4")[0])


@torch.no_grad()
def test_its_adapter_is_written_and_read(
    tuned: Path, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For peft, with the hash of the base before it was quantized; on quantized weights again it is the same model."""
    command_line(["export", f"run={tuned}", "format=peft", f"out={tmp_path / 'adapter'}"])
    assert f"base:       {folders['base']}" in capsys.readouterr().out
    content = (tmp_path / "adapter/adapter_model.safetensors").read_bytes()
    assert sha256_of(as_bytes(base_of(folders["base"]), {})) in content.decode("latin1")
    beginning = (f"start=hf:{folders['base']}", f"start.adapter={tmp_path / 'adapter'}")
    command_line(["train", *sft(folders), *NF4, *STILL, *beginning, f"outputs={tmp_path / 'again'}"])
    assert "; quantized" in capsys.readouterr().out
    state, own = model_of(only_run(tmp_path / "again")).state_dict(), model_of(tuned).state_dict()
    assert all(torch.equal(state[name], value) for name, value in own.items())
    plain = model_of(train(*sft(folders), *STILL, *beginning, outputs=tmp_path / "plain"))
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in own.items() if ".updates." in name)
    assert not {*plain.state_dict()} & {name for name in own if "quantized" in name}
    theirs = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert all(value.dtype == torch.float32 for value in theirs.values())


def test_it_is_refused_where_an_adapter_is(folders: dict[str, Path], tmp_path: Path) -> None:
    bare = ["train", *sft(folders), f"outputs={tmp_path / 'runs'}"]
    assert "those here are random. Name some: start=" in refused(*bare, "data/tokenizer=bytes", *NF4)
    said = refused(*bare, f"start=hf:{folders['base']}", *LORA, "model.adapter.quantization=int4")
    assert "model.adapter.quantization" in said
    assert "nf4" in said
    assert not (tmp_path / "runs").exists()


def test_the_loss_is_near_that_of_floats(folders: dict[str, Path], tmp_path: Path) -> None:
    """Five steps."""
    found = {}
    for kind in ("null", "int8", "nf4"):
        choices = ("model/adapter=lora", f"model.adapter.quantization={kind}", f"start=hf:{folders['base']}")
        steps = "+callbacks.steps={_target_: test_finetune.Steps}"
        train(*sft(folders), *choices, steps, outputs=tmp_path / kind)
        found[kind] = torch.tensor(Steps.losses(1))
    assert float(found["null"][0] - found["null"][-1]) > 0.1
    assert float((found["int8"] - found["null"]).abs().max()) < 0.01
    assert float((found["nf4"] - found["null"]).abs().max()) < 0.1


@pytest.mark.matrix
def test_two_ranks_take_the_same_steps(folders: dict[str, Path], tmp_path: Path) -> None:
    choices = (*sft(folders), "model/adapter=lora", "model.adapter.quantization=nf4", f"start=hf:{folders['base']}")
    alone = read.newest(train(*choices, outputs=tmp_path / "one"))
    finish(start(*choices, "trainer=ddp_cpu", outputs=tmp_path / "two"))
    together = read.newest(only_run(tmp_path / "two"))
    assert together.progress.examples == alone.progress.examples
    assert together.progress.flops == alone.progress.flops
    for name, weight in alone.state.items():
        torch.testing.assert_close(together.state[name], weight, rtol=0, atol=0 if "quantized" in name else 1e-5)
