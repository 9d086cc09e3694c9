"""``hf:`` parts: a text tower of CLIP reads captions, an AutoencoderKL gives latents; both stay where they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.command.train import Interrupted
from genlab.errors import CheckpointError, ConfigError, ResourceError
from genlab.interop import autoencoder_kl
from genlab.interop.clip_text import ClipText
from genlab.interop.origin import HubOrigin
from genlab.run import run_folder
from genlab.run.load import load_run
from stand_ins import clip_folder
from tiny_run import UNET, SignalAt, only_run, resume, train

CAPTIONED = ("data=shapes", "data.image_size=16", "data.num_train=40", "data.num_val=8", "data.max_objects=1",
             "~data.limit", "model=diffusion", *UNET, "model.network.attention_resolutions=[]",
             "model.conditions=[caption]", "metrics=[]")  # fmt: skip
OPTION = "model.network.caption_encoder"


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random text tower, as transformers saves it."""
    from transformers import CLIPModel, CLIPTextModel

    whole, folder = clip_folder(tmp_path_factory.mktemp("clip")), tmp_path_factory.mktemp("tower")
    clip = CLIPModel.from_pretrained(whole)
    alone: Any = CLIPTextModel(clip.config.text_config)
    getattr(alone, "text_model", alone).load_state_dict(clip.text_model.state_dict())
    alone.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(whole / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def run(tower: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*CAPTIONED, "budget.value=16", f"+{OPTION}=hf:{tower}", outputs=tmp_path_factory.mktemp("captioned"))


def loaded(run: Path) -> Any:
    return load_run(OmegaConf.create(run_folder.read_config(run)), run)[0]


def test_vectors_are_those_of_transformers(tower: Path, run: Path) -> None:
    from transformers import CLIPTextModel, CLIPTokenizerFast

    texts = ["a small red circle", "blue", "a green ring left of it, and more words than there is room for"]
    theirs: Any = CLIPTextModel.from_pretrained(tower)
    tokens = CLIPTokenizerFast.from_pretrained(tower)(texts, padding="max_length", truncation=True, max_length=24,
                                                  return_tensors="pt")  # fmt: skip
    with torch.no_grad():
        expected = theirs(**{name: tokens[name] for name in ("input_ids", "attention_mask")}).pooler_output
    (encoder,) = (module for module in loaded(run).modules() if isinstance(module, ClipText))
    torch.testing.assert_close(encoder.encode_texts(texts), expected, atol=1e-5, rtol=0)


def test_it_stays_where_it_is_and_its_hash_is_kept(tower: Path, run: Path) -> None:
    entry = run_folder.read_config(run)["pretrained"][OPTION]
    assert entry == {"where": f"hf:{tower}", "sha256": HubOrigin(f"hf:{tower}", OPTION).sha256()}
    assert not (run / "parts").exists()
    last = read.newest(run)
    assert not [
        name for name in (*last.state, *last.content["ema"]) if ".encoder.network" in name or "tokenizer" in name
    ]
    assert "network.told.caption.out.weight" in last.content["ema"]


def test_captions_change_samples(run: Path) -> None:
    model = loaded(run)
    kind = model.conditions.kinds["caption"]
    vectors = model.network.told["caption"](torch.cat([kind.read("red"), kind.read("blue"), kind.nothing(1)]))
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-3)
    assert torch.equal(vectors[2], model.network.told["caption"].nothing)


def test_an_encoder_needs_captions(tower: Path, tmp_path: Path) -> None:
    untold = (*(word for word in CAPTIONED if not word.startswith("model.conditions")), f"+{OPTION}=hf:{tower}")
    with pytest.raises(ConfigError, match=r"caption_encoder needs captions, and the model has none\."):
        train(*untold, outputs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_changed_part_ends_with_exit_code_3(tower: Path, run: Path, tmp_path: Path) -> None:
    moved, copy = shutil.copytree(tower, tmp_path / "tower"), shutil.copytree(run, tmp_path / "run")
    text = (copy / "config.yaml").read_text().replace(f"hf:{tower}", f"hf:{moved}")
    (copy / "config.yaml").write_text(text)
    typed = f"{OPTION}=hf:{moved}"  # the copy has no seal, so it is typed
    command_line(["sample", f"run={copy}", "n=1", typed, f"out={tmp_path / 'a.png'}"])
    path = moved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for command in (["sample", f"run={copy}", "n=1"], ["train", f"run={copy}", "budget.value=24"]):
        with pytest.raises(CheckpointError, match=rf"{OPTION}=hf:\S+ is not the part that this run was trained with"):
            command_line([*command, typed])
        with pytest.raises(CheckpointError, match=r"was not made by a command of yours, so it needs your consent"):
            command_line(command)


@pytest.mark.matrix
def test_a_portable_run_needs_no_folder(tower: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(tower, tmp_path / "tower")
    with pytest.raises(Interrupted):
        train(*CAPTIONED, "budget.value=24", f"+{OPTION}=hf:{moved}", "portable=true", SignalAt.override(8),
              outputs=tmp_path / "runs")  # fmt: skip
    shutil.rmtree(moved)
    run = only_run(tmp_path / "runs")
    resume(run)
    (part,) = (run / "parts").iterdir()
    assert part.stem == run_folder.read_config(run)["pretrained"][OPTION]["sha256"]
    assert read.newest(run).progress.examples == 24


@pytest.mark.parametrize(
    ("config", "kind", "message"),
    [
        (None, ConfigError, r"there is no readable config\.json\. Known are CLIP's text tower"),
        ({"model_type": "mamba"}, ConfigError, r"a model of the kind mamba cannot be used\. Known are"),
        ({"_class_name": "AutoencoderKL"}, ConfigError, r"its config\.json does not fit \(it has no 'block_out_"),
        ({"model_type": "clip_text_model"}, ConfigError, r"has no tokenizer\.json"),
    ],
)
def test_folders_that_are_no_part(config: Any, kind: type[Exception], message: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(kind, match=message):
        HubOrigin(f"hf:{tmp_path}", "model.autoencoder").model()


def test_pickles_are_not_read(tower: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tower, tmp_path / "tower")
    (folder / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(ResourceError, match=r"there is no model\.safetensors or .*, and no other file is read"):
        HubOrigin(f"hf:{folder}", OPTION).sha256()
    torch.save({"x": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"is not a safetensors file"):
        HubOrigin(f"hf:{folder}", OPTION).weights()


def test_a_name_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ResourceError, match=r"^the model nobody/nothing-here is not here and the Hugging Face"):
        HubOrigin("hf:nobody/nothing-here", OPTION)


# --- AutoencoderKL ----------------------------------------------------------------------------------------------------

SMALL_KL = {"_class_name": "AutoencoderKL", "in_channels": 1, "out_channels": 1, "latent_channels": 2,
            "sample_size": 16, "block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4,
            "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}  # fmt: skip


def test_the_node_of_an_autoencoder() -> None:
    node = autoencoder_kl.node(SMALL_KL, Path())
    assert (node["shape"], node["latent_shape"]) == ([1, 16, 16], [2, 8, 8])
    with pytest.raises(ValueError, match="its down_block_types are not all DownEncoderBlock2D"):
        autoencoder_kl.node(SMALL_KL | {"down_block_types": ["AttnDownBlock2D"]}, Path())
    old = {"encoder.mid_block.attentions.0.query.weight": torch.zeros(1, dtype=torch.float16)}
    ((name, value),) = autoencoder_kl.weights(old, Path()).items()
    assert name == "network.encoder.mid_block.attentions.0.to_q.weight"
    assert value.dtype == torch.float32


def test_without_diffusers_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    node = {name: value for name, value in autoencoder_kl.node(SMALL_KL, Path()).items() if name != "_target_"}
    with pytest.raises(ConfigError, match=r"^an AutoencoderKL needs a package: pip install diffusers$"):
        autoencoder_kl.AutoencoderKL(**node).configure_model()


@pytest.mark.matrix
def test_latent_diffusion_of_an_autoencoder_of_diffusers(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.AutoencoderKL(**{k: v for k, v in SMALL_KL.items() if k != "_class_name"})
    network.save_pretrained(tmp_path / "kl")
    run = train("data=digits", "model=latent_diffusion", f"model.autoencoder=hf:{tmp_path / 'kl'}",
                "model.network.width=8", "model.network.depth=1", "model.network.num_heads=1",
                "model.sampler.num_steps=2", "budget.value=16", outputs=tmp_path / "runs")  # fmt: skip
    model = loaded(run)
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        expected = network.eval().encode(images).latent_dist.mean
        torch.testing.assert_close(model.encode({"image": images, "label": torch.zeros(2, dtype=torch.long)}), expected)
        torch.testing.assert_close(model.autoencoder.decode(expected), network.decode(expected).sample)
    assert model.sample(2).shape == (2, 1, 16, 16)
    assert not [name for name in read.newest(run).state if name.startswith("autoencoder.")]
