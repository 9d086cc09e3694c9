"""Adapters of image models: of networks made here, and of a UNet2DConditionModel of diffusers."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.errors import ConfigError
from genlab.model.adapter.lora import adapted_maps
from genlab.run import run_folder
from genlab.run.load import load_run
from genlab.run.origin import FileOrigin
from test_hub_networks import folders as folders
from test_hub_networks import overrides
from tiny_run import small, train

NETWORKS = {
    "unet": ("model=diffusion", "model/network=unet", "model.network.attention_resolutions=[8]"),
    "dit": ("model=diffusion", "model/network=dit_small"),
}


def own(run: Path) -> Any:
    return load_run(OmegaConf.create(run_folder.read_config(run)), run)[0]


@pytest.mark.parametrize("network", ["dit", pytest.param("unet", marks=pytest.mark.matrix)])
def test_a_denoiser_is_adapted_and_merged(network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choices = (*small(*NETWORKS[network]), "model/optimizer=adamw", "model/schedule=constant")
    source = train(*choices, "budget.value=40", outputs=tmp_path / "source")
    targets = "model.adapter.targets=[*attention*]"
    given = (*choices, "model/adapter=lora", targets, "model.optimizer.lr=1e-2", f"start={source}")
    run = train(*given, "budget.value=40", outputs=tmp_path / "runs")
    before, after = read.newest(source), read.newest(run)
    start = {**before.state, **before.content["ema"]}
    assert all(torch.equal(after.state[name], value) for name, value in start.items())
    updates = {*after.state} - {*start}
    assert updates == {*after.content["ema"]}
    assert all(bool(after.state[name].any()) for name in updates)
    model = own(run)
    assert {name.rpartition(".")[2] for name, _ in adapted_maps(model)} == {"qkv", "out"}
    capsys.readouterr()
    command_line(["export", f"run={run}", "format=safetensors", f"out={tmp_path / 'out'}"])
    assert told(capsys.readouterr().out) < 1e-5
    weights = FileOrigin(str(tmp_path / "out/model.safetensors"), "start").weights()
    assert {*weights} == {*start}
    again = train(*choices, f"start={tmp_path / 'out/model.safetensors'}", "model.optimizer.lr=0", "budget.value=8",
                  outputs=tmp_path / "again")  # fmt: skip
    x, sigma = torch.randn(2, *model.shape), torch.tensor([0.5, 3.0])
    with torch.no_grad():
        torch.testing.assert_close(own(again).denoiser(None)(x, sigma), model.denoiser(None)(x, sigma))
        assert not torch.allclose(own(source).denoiser(None)(x, sigma), model.denoiser(None)(x, sigma), atol=1e-4)


def told(out: str) -> float:
    """The difference that an export reports, of numbers of the size 1 at least."""
    found = re.search(
        r"^merged: +the adapter, in float32; of [\d,]+ outputs up to (\S+), none differs by more than "
        r"(\S+)$",
        out,
        re.M,
    )
    assert found is not None, out
    return float(found[2]) / max(1.0, float(found[1]))


def test_the_network_of_stable_diffusion_is_adapted(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its text encoder and its autoencoder are left as they are."""
    targets = "model.adapter.targets=[*.to_q,*.to_k,*.to_v,*.to_out.0]"
    run = train(
        *overrides(folders), "model/adapter=lora", targets, "model.optimizer.lr=1e-2", outputs=tmp_path / "runs"
    )
    model = own(run)
    names = [name for name, _ in adapted_maps(model)]
    assert {name.rpartition("attn")[2][2:] for name in names} == {"to_q", "to_k", "to_v", "to_out.0"}
    assert not any(name.startswith(("autoencoder", "diffusion.network.encoder")) for name in names)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * len(names)
    weights = read.newest(run).state
    assert all(bool(weights[name].any()) for name in trained)
    from diffusers import UNet2DConditionModel

    theirs = UNet2DConditionModel.from_pretrained(folders["unet"]).state_dict()
    assert all(torch.equal(weights[f"diffusion.network.network.{name}"], value) for name, value in theirs.items())
    command_line(["export", f"run={run}", "format=safetensors", f"out={tmp_path / 'out'}"])
    assert told(capsys.readouterr().out) < 1e-5
    with pytest.raises(ConfigError, match=r"format=peft: .* holds no language model that transformers knows"):
        command_line(["export", f"run={run}", "format=peft", f"out={tmp_path / 'peft'}"])
