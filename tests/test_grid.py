"""Every network x objective x sampler, and every data set without a download: trains, samples, saves, reloads."""

import functools
import re
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from genlab import assemble, checkpoint, run_folder
from genlab.assemble import check_config
from genlab.build import Misfit
from genlab.callbacks.samples import sample_images
from genlab.config import PACKAGED, ConfigTree
from genlab.inference import load_run
from tiny_run import BARE, plain, train

TREE = ConfigTree()
GROUPS = TREE.groups()
SMALL = {"width": 8, "channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "depth": 1, "num_heads": 1}
PARTS = ("network", "objective", "sampler")


def slots(family: str) -> list[str]:
    """The parts that a family chooses, of those that are crossed here."""
    text = (PACKAGED / "model" / f"{family}.yaml").read_text()
    return [part for part in PARTS if re.search(rf"^  - {part}:", text, re.M)]


def shrink(node: DictConfig) -> None:
    for name, value in SMALL.items():
        if name in node:
            node[name] = value


def small_config(tmp_path: Path, *choices: str) -> DictConfig:
    bare = [override for override in BARE if not override.startswith("model.")]
    config = TREE.compose([*bare, f"outputs={tmp_path}", *choices])
    check_config(config)
    shrink(config.model.network)
    if "sampler" in config.model:
        config.model.sampler.num_steps = 3
    return config


def is_legal(choice: tuple[str, ...]) -> bool:
    """Parts of one name need each other; a network has to fit its family."""
    family, *overrides = choice
    chosen = dict(override.removeprefix("model/").split("=") for override in overrides)
    for one, other in permutations(chosen, 2):
        if chosen[one] in GROUPS[f"model/{other}"] and chosen[other] != chosen[one]:
            return False
    return fits_family(family, chosen["network"])


@functools.cache
def fits_family(family: str, network: str) -> bool:
    try:
        check_config(TREE.compose([f"model={family}", f"model/network={network}"]))
    except Misfit:
        return False
    return True


def grid() -> list[tuple[str, ...]]:
    """Of each family: networks x objectives, with one sampler; and samplers x objectives, on the quickest network."""
    choices = set()
    for family in (name for name in GROUPS["model"] if "network" in slots(name)):
        options = [[f"model/{part}={o}" for o in GROUPS[f"model/{part}"]] for part in slots(family)]
        for combination in product(*options):
            names = [override.split("=")[1] for override in combination]
            if len(names) < 3 or "mlp" in names or names[2] in ("dpm_solver", names[1]):
                choices.add((family, *combination))
    return sorted(choice for choice in choices if is_legal(choice))


def test_the_grid_holds_every_option_of_every_family() -> None:
    names = {name for choice in grid() for name in choice}
    assert names >= {f"model/{part}={option}" for part in PARTS for option in GROUPS[f"model/{part}"]}
    assert not [choice for choice in grid() if "flow" in choice and "model/network=mlp" in choice]


@pytest.mark.parametrize("choice", grid(), ids=lambda c: "-".join(name.split("=")[-1] for name in c))
def test_two_steps_then_the_same_samples_after_a_reload(choice: tuple[str, ...], tmp_path: Path) -> None:
    config = small_config(tmp_path, f"model={choice[0]}", *choice[1:])
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
