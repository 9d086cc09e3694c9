"""``start=hf:`` of diffusers' UNet2DConditionModel: the network of Stable Diffusion, with its text encoder and
autoencoder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from genlab.errors import ConfigError
from genlab.interop import unet2d_condition
from genlab.interop.unet2d_condition import UNet2DCondition
from genlab.model.condition_kind import Caption, Label
from genlab.model.objective.noise_schedule import ScaledLinearBeta
from genlab.run import run_folder
from genlab.run.load import load_run
from stand_ins import clip_folder
from test_hub_parts import CAPTIONED, SMALL_KL
from tiny_run import train

SIZES = {"in_channels": 2, "out_channels": 2, "sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1,
         "cross_attention_dim": 16, "attention_head_dim": 2, "norm_num_groups": 4,
         "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
         "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}  # fmt: skip
DATA = tuple(line for line in CAPTIONED if not line.startswith(("model", "metrics")))


def test_the_schedule_is_stable_diffusions() -> None:
    """Recorded from diffusers 0.42.1: DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085,
    beta_end=0.012).alphas_cumprod, first, 500th and last."""
    found = ScaledLinearBeta().alphas_bar
    assert found[[0, 499, 999]].tolist() == pytest.approx([0.999150, 0.277667, 0.004660], rel=1e-4)


def test_what_is_not_built_is_refused_by_name() -> None:
    known = {"_class_name": "UNet2DConditionModel", **SIZES}
    assert unet2d_condition.knows(known)
    assert "sample_size" not in unet2d_condition.settings_of(known)
    assert unet2d_condition.settings_of(known)["attention_head_dim"] == 2
    for wrong, said in (
        ({"addition_embed_type": "text_time"}, "addition_embed_type=text_time is not supported"),
        ({"in_channels": 9}, "in_channels and out_channels differ"),
        ({"center_input_sample": True}, "center_input_sample=True"),
    ):
        with pytest.raises(ValueError, match=said):
            unet2d_condition.settings_of(known | wrong)


def test_it_starts_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel", **SIZES}))
    with pytest.raises(
        ConfigError, match=r"the model has no UNet2DCondition to put the weights into. Use model/network"
    ):
        train("model=vae", f"start=hf:{tmp_path}", outputs=tmp_path / "runs")


def test_what_it_needs_is_said() -> None:
    """Before diffusers is looked for; the advice is what ``overrides`` below type."""
    caption = {"caption": Caption(9, 5, ("", "a"))}
    with pytest.raises(ValueError, match=r"takes captions alone\. Use model\.conditions=\[caption\]"):
        UNet2DCondition((2, 8, 8), {"label": Label(3), **caption})
    with pytest.raises(ValueError, match=r"needs a text encoder: \+model\.network\.caption_encoder=hf:"):
        UNet2DCondition((2, 8, 8), caption)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A network, an autoencoder and a text encoder of random weights, as diffusers and transformers save them."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(**SIZES)
    autoencoder = diffusers.AutoencoderKL(**{k: v for k, v in SMALL_KL.items() if k != "_class_name"} | {
        "in_channels": 3, "out_channels": 3})  # fmt: skip
    network.save_pretrained(tmp_path / "unet")
    autoencoder.save_pretrained(tmp_path / "vae")
    return {"unet": tmp_path / "unet", "vae": tmp_path / "vae", "text": clip_folder(tmp_path / "text")}


def overrides(folders: dict[str, Path]) -> tuple[str, ...]:
    return (*DATA, "model=latent_diffusion", "model.conditions=[caption]", f"model.autoencoder=hf:{folders['vae']}",
            "model/network=unet2d_condition", f"+model.network.caption_encoder=hf:{folders['text']}",
            f"start=hf:{folders['unet']}", "model/objective=ddpm", "model/objective/noise_schedule=scaled_linear",
            "model.latent_scale=0.18215", "model.sampler.num_steps=2", "metrics=[]", "budget.value=16")  # fmt: skip


def test_a_run_starts_from_it(folders: dict[str, Path], tmp_path: Path) -> None:
    """The network is diffusers' own on the same text, before a step; a run trains, samples and goes on without it."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizerFast

    run = train(*overrides(folders), "model.optimizer.lr=0", "callbacks.ema=null", outputs=tmp_path / "runs")
    config = run_folder.read_config(run)
    assert config["model"]["network"]["settings"]["block_out_channels"] == [8, 16]
    model: Any = load_run(compose_of(config), run)[0]
    (network,) = (module for module in model.modules() if isinstance(module, UNet2DCondition))
    theirs = diffusers.UNet2DConditionModel.from_pretrained(folders["unet"]).eval()
    tokens = CLIPTokenizerFast.from_pretrained(folders["text"])(
        ["a small red circle", ""], padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    with torch.no_grad():
        read = CLIPTextModel.from_pretrained(folders["text"])(
            **{name: tokens[name] for name in ("input_ids", "attention_mask")}
        ).last_hidden_state
        x, step = torch.randn(2, 2, 8, 8), torch.tensor([10, 900])
        expected = theirs(x, step, encoder_hidden_states=read).sample
        kind = model.conditions.kinds["caption"]
        caption = torch.cat([kind.read("a small red circle"), kind.nothing(1)])
        found = network.eval()(x, step / 1000, {"caption": caption})
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert model.sample(2, {"caption": caption}).shape == (2, 3, 16, 16)
    assert float(model.latent_std[0]) == pytest.approx(0.5 / 0.18215)


def test_an_encoder_of_another_width_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    config = json.loads((folders["unet"] / "config.json").read_text())
    (folders["unet"] / "config.json").write_text(json.dumps({**config, "cross_attention_dim": 24}))
    with pytest.raises(ConfigError, match=r"reads texts of width 24, and model.network.caption_encoder gives 16"):
        train(*overrides(folders), outputs=tmp_path / "runs")


def compose_of(config: dict[str, Any]) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.create(config)
