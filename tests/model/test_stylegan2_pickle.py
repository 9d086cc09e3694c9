"""Networks of a file of their authors' become StyleGAN2 here: names and settings, and a run that begins with them.

What such a file has is read by another module, with tests of its own; here it is made by hand, for networks whose
images their authors' program has drawn (tests/model/test_stylegan2.py).
"""

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from test_stylegan2 import Networks, close, seen_of
from torch import Tensor

from genlab.checkpoint import read
from genlab.errors import CheckpointError, ConfigError
from genlab.interop import stylegan2_pickle
from genlab.interop.network_pickle import ReadNetwork
from genlab.interop.stylegan2_pickle import StyleGAN2Origin
from tiny_run import SHORT, train

SIDES = (4, 8, 16)
KERNEL = torch.outer(*2 * [torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8])
SETTINGS = {"channel_base": 64, "channel_max": 8, "num_fp16_res": 4, "conv_clamp": None}


def generator_in(network: Any) -> dict[str, Tensor]:
    """As the authors' program names what is in a generator of architecture ``skip`` with classes."""
    found: dict[str, Tensor] = OrderedDict()
    for block, side in zip(network.synthesis.blocks, SIDES, strict=True):
        if side == 4:
            found["synthesis.b4.const"] = network.synthesis.constant
        found[f"synthesis.b{side}.resample_filter"] = KERNEL
        for name, layer in (("conv0", block.up), ("conv1", block.conv)):
            if layer is not None:
                found |= {f"synthesis.b{side}.{name}.{key}": value for key, value in {
                    "weight": layer.weight, "noise_strength": layer.strength, "bias": layer.bias,
                    "resample_filter": KERNEL, "noise_const": layer.constant, "affine.weight": layer.style.weight,
                    "affine.bias": layer.style.bias}.items()}  # fmt: skip
        colors = block.to_colors
        found |= {f"synthesis.b{side}.torgb.{key}": value for key, value in {
            "weight": colors.weight[:, :, None, None], "bias": colors.bias, "affine.weight": colors.style.weight,
            "affine.bias": colors.style.bias}.items()}  # fmt: skip
    return found | mapping_in(network.mapping) | {"mapping.w_avg": network.mapping.average}


def discriminator_in(network: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = OrderedDict()
    for block, side in zip(network.blocks, SIDES[1:], strict=True):
        for name, layer in (("fromrgb", block.from_colors), ("conv0", block.conv), ("conv1", block.down)):
            found |= {f"b{side}.{name}.weight": layer.weight, f"b{side}.{name}.bias": layer.bias}
    for name, layer in (("fromrgb", network.from_colors), ("conv", network.conv), ("fc", network.hidden),
                        ("out", network.out)):  # fmt: skip
        found |= {f"b4.{name}.weight": layer.weight, f"b4.{name}.bias": layer.bias}
    return found | mapping_in(network.mapping)


def mapping_in(mapping: Any) -> dict[str, Tensor]:
    rows = mapping.told["label"].rows.weight
    found = {"mapping.embed.weight": (rows[1:] - rows[0]).t() * math.sqrt(3), "mapping.embed.bias": rows[0]}
    for i, layer in enumerate(mapping.layers):
        found |= {f"mapping.fc{i}.weight": layer.weight, f"mapping.fc{i}.bias": layer.bias}
    return found


def as_read(**changed: Any) -> dict[str, ReadNetwork]:
    networks = Networks("skip")
    sizes = {"c_dim": 3, "img_resolution": 16, "img_channels": 3}
    settings = {"G_ema": {"z_dim": 6, "w_dim": 10, **sizes, "mapping_kwargs": {"num_layers": 2}, "synthesis_kwargs":
                          {**SETTINGS, "architecture": "skip"}},
                "D": {**sizes, **SETTINGS, "architecture": "skip", "mapping_kwargs": {"num_layers": 2},
                      "block_kwargs": {}, "epilogue_kwargs": {"mbstd_group_size": 4}}}  # fmt: skip
    for name, values in changed.items():
        settings[name] |= values
    tensors = {"G_ema": generator_in(networks.generator), "D": discriminator_in(networks.discriminator)}
    return {
        name: ReadNetwork(kind, (), settings[name], {k: v.detach() for k, v in tensors[name].items()}, frozenset())
        for name, kind in (("G_ema", "Generator"), ("D", "Discriminator"))
    }


def origin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, networks: dict[str, ReadNetwork]) -> StyleGAN2Origin:
    (tmp_path / "nets.pkl").write_bytes(b"")
    monkeypatch.setattr(stylegan2_pickle, "read_networks", lambda path: networks)
    return StyleGAN2Origin(str(tmp_path / "nets.pkl"), "start")


def test_networks_of_a_file_draw_and_judge_as_they_did(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = origin(monkeypatch, tmp_path, as_read()).weights()
    networks = Networks("skip")
    for part in ("generator", "discriminator"):
        network = getattr(networks, part)
        for values in [*network.parameters(), *network.buffers()]:
            values.data.zero_()
        for module in network.modules():
            if hasattr(module, "kernel"):
                module.kernel.copy_(KERNEL)
        network.load_state_dict(
            {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(part)}
        )
    images = networks.generator(networks.noise, networks.condition)
    close(seen_of(images), networks.expected["images"])
    close(networks.discriminator(networks.images, networks.condition), networks.expected["scores"])


def test_a_run_begins_with_the_weights_of_a_file_and_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    where = f"start={origin(monkeypatch, tmp_path, as_read()).where}"
    with pytest.raises(ConfigError, match=r"Use model=stylegan2 model\.latent_dim=6 .*clamp=null") as caught:
        train("model=stylegan2", "data=shapes", "data.image_size=16", *SHORT, where, "model.generator.clamp=256",
              outputs=tmp_path / "a")  # fmt: skip
    typed = str(caught.value).partition("Use model=stylegan2 ")[2].split()
    with pytest.raises(ConfigError, match=r"is \(4, 10\) there and .* Take over what fits: start\.only=\[") as caught:
        train("model=stylegan2", "data=shapes", "data.image_size=16", *SHORT, where, *typed, outputs=tmp_path / "b")
    only = str(caught.value).partition("Take over what fits: ")[2]
    run = train("model=stylegan2", "data=shapes", "data.image_size=16", *SHORT, "data.limit=8", "budget.value=8", where,
                *typed, only, "model.optimizer.lr=0.0", outputs=tmp_path / "c")  # fmt: skip
    state = read.newest(run).state
    expected = Networks("skip").generator.state_dict()
    for name in ("synthesis.constant", "synthesis.blocks.2.up.weight", "mapping.layers.0.weight"):
        torch.testing.assert_close(state[f"generator.{name}"], expected[name])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"G_ema": {"synthesis_kwargs": {"activation": "relu"}}}, "has activation=relu, which is not built here"),
        ({"D": {"epilogue_kwargs": {"mbstd_num_channels": 2}}}, "has mbstd_num_channels=2, which is not built here"),
        ({"D": {"color_space": "lab"}}, "has color_space=lab, which is not built here"),
    ],
)
def test_what_is_not_built_is_refused_by_name(
    changed: Any, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        origin(monkeypatch, tmp_path, as_read(**changed)).settings()


def test_files_of_other_networks_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    networks = as_read()
    networks["G_ema"].tensors["synthesis.input.freqs"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=r"Generator has synthesis\.input\.freqs, which StyleGAN2 has not"):
        origin(monkeypatch, tmp_path, networks).weights()
    networks = as_read()
    networks["G_ema"].tensors["synthesis.b8.conv0.resample_filter"] = torch.ones(4, 4) / 16
    with pytest.raises(CheckpointError, match=r"has synthesis\.b8\.conv0\.resample_filter"):
        origin(monkeypatch, tmp_path, networks).weights()
    networks = as_read()
    del networks["D"]
    with pytest.raises(CheckpointError, match="has no D that is a Discriminator"):
        origin(monkeypatch, tmp_path, networks).weights()
    with pytest.raises(ConfigError, match="there is no such file"):
        StyleGAN2Origin(str(tmp_path / "gone.pkl"), "start")
