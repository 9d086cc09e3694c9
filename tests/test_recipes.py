"""A recipe is a claim: its head says what is claimed and how to check it, and the code builds what the table says."""

import re
import shlex
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from genlab.config.build import build, resolve
from genlab.config.tree import PACKAGED, ConfigTree, missing, resolved
from genlab.metrics.base import FeatureExtractor, short
from genlab.milestones import Bands
from genlab.model.base import GenerativeModel
from genlab.run.assemble import check_config, trial_model

FOLDER = PACKAGED / "experiment"
TABLE = Path(__file__).parents[1] / "docs" / "recipes.md"
MEASURED = {"image_folder_cpu", "shakespeare_cpu"}  # ours alone: they state what was measured
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SMALL_ALREADY = {"shakespeare_char_cpu"}  # published for two minutes on a CPU
FULL = [name for name in NAMES if not name.endswith("_small") and name not in MEASURED]
VOCABULARIES = {"genlab.data.shakespeare.Shakespeare": 65, "genlab.data.hf_text.HFText": 50_257}
NOT_REACHED = {"vae_mnist"}  # its published figure, which its head says
CHANNELS = {"genlab.data.mnist.Mnist": 1}  # of the data's images; else 3


def head(name: str) -> str:
    """The comment that a recipe opens with, in one line."""
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    comment = [line for line in lines[: lines.index("defaults:")] if line.startswith("#")]
    return " ".join(line.removeprefix("#").strip() for line in comment[1:])


def commands(name: str) -> list[list[str]]:
    """The overrides of each training command in the head."""
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    found = [line.partition("python train.py ")[2] for line in lines if line.startswith("#") and "train.py" in line]
    return [shlex.split(text) for text in found]


def composed(*overrides: str) -> Any:
    return deepcopy(_composed(*overrides))


def side_of(data: Any) -> int:
    """Pixels of an image; where nothing says so, CIFAR-10's."""
    return int(data.get("image_size") or 28 + 2 * data.get("padding", 2))


@cache
def _composed(*overrides: str) -> Any:
    config = ConfigTree().compose(overrides)
    for key in missing(config):
        OmegaConf.update(config, key, "/given")
    check_config(config)
    vocabulary = VOCABULARIES.get(config.data._target_)
    label = {"size": 10 if vocabulary is None else None, "names": []}
    config.spec = {
        "modality": "image" if vocabulary is None else "text",
        "shape": [CHANNELS.get(config.data._target_, 3), *[side_of(config.data)] * 2]
        if vocabulary is None
        else [config.data.context],
        "vocab_size": vocabulary,
        "start_token": None if vocabulary is None else 0,
        "condition": {"label": label, "caption": {"size": None, "length": None, "names": []}},
    }
    config.run_dir, config.run_id = "x", "x"
    return resolved(config)


def rows(table: int = 0) -> dict[str, dict[str, str]]:
    """A table of docs/recipes.md by the recipe's name: the first says what there is, the second where curves are."""
    blocks = re.findall(r"(?:^\|.*\n)+", TABLE.read_text(), re.M)
    lines = [line.strip("| ").split(" | ") for line in blocks[table].splitlines()]
    titles, _, *found = [[cell.strip() for cell in line] for line in lines]
    return {row[0].strip("`"): dict(zip(titles, row, strict=True)) for row in found}


@pytest.mark.parametrize("name", NAMES)
def test_the_command_in_the_head_composes_into_this_recipe(name: str) -> None:
    assert commands(name)
    for overrides in commands(name):
        assert f"experiment={name}" in overrides
        assert composed(*overrides)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in MEASURED])
def test_the_head_says_how_long_on_what_and_how_far_it_was_run(name: str) -> None:
    for field in ("Command:", "Hardware:", "Status:"):
        assert field in head(name), f"{name} has no {field}"


@pytest.mark.parametrize("name", FULL)
def test_the_head_says_what_was_published_and_what_differs(name: str) -> None:
    assert re.search(r"Published: .*\d", head(name))
    assert re.search(r"Differs from the (paper|published run): ", head(name))
    assert re.search(r"\((.* )?(19|20)\d\d[,;)]", head(name)), "no paper is named"


@pytest.mark.parametrize("name", [name for name in FULL if name not in SMALL_ALREADY])
def test_a_full_recipe_has_a_small_one_built_on_it_that_needs_no_weights(name: str) -> None:
    assert f"{name}_small" in NAMES
    assert name in yaml.safe_load((FOLDER / f"{name}_small.yaml").read_text())["defaults"]
    full, small = composed(f"experiment={name}"), composed(f"experiment={name}_small")
    if full["metrics"].get("extractor") is not None:
        assert small["metrics"]["extractor"]["_target_"].endswith("RandomConv")
    assert small["budget"] == {"_target_": "genlab.budget.Seconds", "value": 600}
    assert small["data"]["_target_"] == full["data"]["_target_"]
    assert small["model"]["_target_"] == full["model"]["_target_"]


def test_the_table_names_every_full_recipe() -> None:
    assert sorted(rows()) == FULL


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_REACHED])
def test_a_published_figure_is_a_band_of_a_metric_that_the_recipe_measures(name: str) -> None:
    config = composed(f"experiment={name}")
    if name not in FULL:
        assert (config["milestones"] or {}).get("published") is None, "the figure is that of the full recipe"
    if config["milestones"] is None:
        assert name not in FULL
        return
    bands: Bands = build(config["milestones"], Bands, "milestones")
    if bands.published is not None:
        published = float(re.findall(r"\d+\.\d+", bands.published)[0])
        assert str(published) in head(name)
        assert str(published) in rows()[name]["published"] or name == "ddpm_cifar10"  # its head says why
    for metric in {bands.metric, bands.final_metric}:
        assert metric == "val/loss" or metric.removeprefix("val/") in measured(config)
    is_of_samples = bands.metric != "val/loss" and generates(config)
    if bands.final_metric != bands.metric or (is_of_samples and not bands.early):
        assert bands.final_metric.endswith(f"_{short(config['evaluation']['num_samples'])}")


def test_the_second_table_holds_every_recorded_band() -> None:
    nodes = {name: composed(f"experiment={name}")["milestones"] for name in NAMES}
    recorded = {name: node for name, node in nodes.items() if node is not None and node.get("recorded")}
    assert sorted(rows(1)) == sorted(recorded)
    for name, node in recorded.items():
        for point in (5, 25, 100):
            low, high = node[f"at_{point}"]
            expected = f"at most {high:g}" if low is None else f"{low:g} to {high:g}"
            assert rows(1)[name][f"{point} %"] == expected


def generates(config: dict[str, Any]) -> bool:
    """Whether the family draws samples; else it learns features."""
    family = resolve(config["model"]["_target_"], "model")
    assert issubclass(family, GenerativeModel) or hasattr(family, "features")
    return issubclass(family, GenerativeModel)


def measured(config: dict[str, Any]) -> set[str]:
    """The names of what published figures are of, in the cheap evaluation and in the full one."""
    if not generates(config):
        probes = {"knn_probe", "fine_tuning"} & config["metrics"].keys()
        assert probes, "a family that learns features is judged by what they know of labels"
        return {f"{probe}_val" for probe in probes}
    assert "fid" in config["metrics"]
    node = config["metrics"]["extractor"]
    kind = resolve(node["_target_"], "metrics.extractor")
    name = kind.name if hasattr(kind, "name") else build(node, FeatureExtractor, "metrics.extractor").name
    counts = (config["callbacks"]["evaluation"]["num_samples"], config["evaluation"]["num_samples"])
    of_pixels = {"swd", "ms_ssim"} & config["metrics"].keys()
    return {f"{number}_{short(count)}" for count in counts for number in (f"fid_{name}", *of_pixels)}


@pytest.mark.parametrize("name", FULL)
def test_the_table_says_how_many_parameters_the_code_builds(name: str) -> None:
    model = trial_model(composed(f"experiment={name}"))
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert rows()[name]["parameters"] == f"{parameters:,}"


@pytest.mark.parametrize("name", FULL)
def test_the_table_and_the_head_agree(name: str) -> None:
    row = rows()[name]
    published = re.findall(r"\d+\.\d+", row["published"])
    assert published
    assert all(number in head(name) for number in published)
    assert row["status"] == "not yet run" or "not yet run" not in head(name)
    assert row["small"] == ("it is small" if name in SMALL_ALREADY else f"`{name}_small`")
