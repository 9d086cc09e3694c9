"""Every family with every option of its parts, and data without a download: trains, samples, saves, reloads."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from genlab import assemble, checkpoint, run_folder
from genlab.callbacks.samples import sample_images
from genlab.config import PACKAGED, ConfigTree
from genlab.inference import load_run
from tiny_run import compose, plain, train

TREE = ConfigTree()
GROUPS = TREE.groups()
SMALL = {"width": 8, "channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "depth": 1, "num_heads": 1,
         "num_steps": 3, "max_channels": 8}  # fmt: skip


def shrink(node: DictConfig) -> None:
    for name, value in SMALL.items():
        if name in node:
            node[name] = value
    for name in node:
        if not OmegaConf.is_interpolation(node, name) and isinstance(node[name], DictConfig):
            shrink(node[name])


def small_config(tmp_path: Path, *choices: str) -> DictConfig:
    config = compose(*choices, outputs=tmp_path)
    shrink(config.model)
    return config


def parts_of(family: str) -> dict[str, str]:
    """The groups whose options a family chooses from, with its defaults."""
    entries = yaml.safe_load((PACKAGED / "model" / f"{family}.yaml").read_text()).get("defaults", [])
    return {part: option for entry in entries if isinstance(entry, dict) for part, option in entry.items()}


def grid() -> list[tuple[str, ...]]:
    """Of every family, every option of every part beside the other parts' defaults. Of the families with samplers, also
    networks x objectives with the default sampler, and samplers x objectives on the quickest network."""
    choices: set[tuple[str, ...]] = set()
    for family in GROUPS["model"]:
        parts = parts_of(family)
        varied = [{part: o} for part in parts for o in GROUPS[f"model/{part}"]] or [{}]
        if {"network", "objective", "sampler"} <= parts.keys():
            networks, objectives, samplers = (GROUPS[f"model/{p}"] for p in ("network", "objective", "sampler"))
            varied = [{"network": n, "objective": o} for n, o in product(networks, objectives)]
            varied += [{"network": "mlp", "objective": o, "sampler": s} for o, s in product(objectives, samplers)]
        for change in varied:
            choices.add((f"model={family}", *(f"model/{part}={o}" for part, o in (parts | change).items())))
    return sorted(choices)


@pytest.mark.parametrize("choice", grid(), ids=lambda choice: "-".join(o.split("=")[1] for o in choice))
def test_two_steps_then_the_same_samples_after_a_reload(choice: tuple[str, ...], tmp_path: Path) -> None:
    config = small_config(tmp_path, *choice)
    data = assemble.build_data(config)
    config.run_dir, config.run_id = str(tmp_path), "grid"
    model = assemble.build_model(plain(config))
    model.configure_model()
    optimizer = model.configure_optimizers()
    table = data.table("train")
    batch = {"image": torch.from_numpy(table.images[:8]) / 127.5 - 1, "label": torch.from_numpy(table.labels[:8])}
    before = [p.detach().clone() for p in model.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        sum(model.losses(batch).values()).backward()
        optimizer.step()
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    images = sample_images(model, range(4), seed=1)
    path = tmp_path / checkpoint.FOLDER / checkpoint.file_name(16)
    checkpoint.AtomicCheckpointIO().save_checkpoint({"state_dict": model.state_dict()}, path)
    run_folder.write_start(tmp_path, plain(config), [])
    again, weights = load_run(DictConfig(run_folder.read_config(tmp_path)), tmp_path)
    assert weights == "raw"
    assert images.shape == (4, 1, 16, 16)
    assert torch.equal(sample_images(again, range(4), seed=1), images)
    assert torch.equal(sample_images(again, range(3, 4), seed=1), images[3:])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


@pytest.mark.parametrize("labels", [True, False])
def test_a_folder_of_images_trains(labels: bool, folder: Path, tmp_path: Path) -> None:
    root = folder if labels else folder / "a"
    run = train("model/network=mlp", "model.network.width=8", "model.network.depth=1", "data=image_folder",
                f"data.root={root}", "data.val_fraction=0.2", f"data.cache_dir={tmp_path / 'cache'}", "metrics=[]",
                "evaluation.num_samples=4", "metrics/extractor=random", "budget.value=16",
                outputs=tmp_path / "o")  # fmt: skip
    config = run_folder.read_config(run)
    assert config["spec"]["shape"] == [3, 16, 16]
    assert config["spec"]["condition"]["label"]["size"] == (2 if labels else None)
    model, _ = load_run(DictConfig(config), run)
    assert sample_images(model, range(2), 0).shape == (2, 3, 16, 16)


def test_captioned_shapes_train_and_say_what_they_are(tmp_path: Path) -> None:
    run = train("model/network=mlp", "model.network.width=8", "model.network.depth=1", "data=shapes", "metrics=[]",
                "data.image_size=16", "data.num_train=64", "data.num_val=8", "data.batch_size=16", "budget.value=96",
                "evaluation.num_samples=4", outputs=tmp_path / "o")  # fmt: skip
    spec = run_folder.read_config(run)["spec"]
    assert spec["shape"] == [3, 16, 16]
    assert spec["condition"]["label"]["size"] == 4
    assert spec["condition"]["caption"]["length"] == 17
    assert spec["condition"]["caption"]["size"] == len(spec["condition"]["caption"]["names"])
