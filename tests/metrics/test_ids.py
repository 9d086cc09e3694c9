"""Two numbers with one id were measured in one way: whatever changes a number changes its id."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from torch import Tensor

from genlab.config.tree import PACKAGED
from genlab.data.base import Split
from genlab.data.image import ImageDataModule, ImageTable
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.bits_per_dim import BitsPerDim
from genlab.metrics.class_balance import ClassBalance
from genlab.metrics.class_variety import ClassVariety
from genlab.metrics.classification_accuracy_score import ClassificationAccuracyScore
from genlab.metrics.density_coverage import DensityCoverage
from genlab.metrics.distance.pixels import PixelDistance
from genlab.metrics.fid import FID
from genlab.metrics.intra_class_fid import IntraClassFID
from genlab.metrics.kid import KID
from genlab.metrics.label_accuracy import LabelAccuracy
from genlab.metrics.lpips_diversity import LPIPSDiversity
from genlab.metrics.nearest_neighbor import NearestNeighbor
from genlab.metrics.perceptual_path_length import PerceptualPathLength
from genlab.metrics.precision_recall import PrecisionRecall
from genlab.model.base import GenerativeModel
from genlab.task.generate import Generate
from stand_ins import without_downloads
from told import classes

METRICS = sorted(path.stem for path in (PACKAGED / "metrics").glob("*.yaml"))
# Another value of each argument that a number depends on.
OTHER = {"num_images": 7, "split": "train", "tokenize": "char", "penalty": 0.3, "max_iterations": 7, "word_order": 2,
         "judge": "logits", "num_reference": 70, "template": "{}", "neighborhood": 2, "n": 2, "num_samples": 77,
         "stop": ["x"], "splits": 2, "subset_size": 9, "num_subsets": 3, "seed": 9, "num_pairs": 9, "num_clusters": 7,
         "scale": 2.0, "explained": 0.5, "restarts": 2, "num_heldout": 9, "seconds": 1.0, "memory_mb": 99, "stride": 3,
         "pool": 7, "num_problems": 9, "epsilon": 0.1, "baseline": True, "discard": 0.2, "whole": True,
         "num_patches": 9, "num_directions": 9, "scales": 2, "num_windows": 9, "num_train": 70, "layer": 0.25,
         "noise_level": 0.7, "temperature": 0.2, "strengths": [0.3], "strength": 0.3, "draws": 3, "share": 0.3,
         "bins": 7, "votes": 70,
         "num_examples": 70, "lr": 0.3, "batch_size": 7, "distance": PixelDistance()}  # fmt: skip
# Of no number: pictures, speed, permission, which numbers there are. Files and networks are hashed once they are read.
FREE = {"closest", "workers", "allow_code", "allow_root", "k", "problems", "model"}


@pytest.mark.parametrize("name", METRICS)
def test_every_argument_of_a_metric_is_among_its_settings(name: str, tmp_path: Path) -> None:
    node: Any = OmegaConf.to_container(OmegaConf.load(PACKAGED / "metrics" / f"{name}.yaml"))
    given = without_downloads(node[name], tmp_path)
    kind = get_class(given["_target_"])
    metric = instantiate(given)
    for argument in set(inspect.signature(kind.__init__).parameters) - {"self"} - FREE:
        if argument == "distance" and name == "path_length_pixels":
            continue  # its own already
        assert instantiate(given, **{argument: OTHER[argument]}).settings() != metric.settings(), argument


class Pixels:
    """Means of quarters of an image."""

    name, modality, preprocessing, gives = "quarters", "image", "none", frozenset({"features"})

    def fingerprint(self) -> str:
        return self.name

    def extract(self, examples: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        return {"features": torch.nn.functional.avg_pool2d(examples.float(), 2).flatten(1) / 255}


class Halved(Pixels):
    def fingerprint(self) -> str:
        return "halved"

    def extract(self, examples: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        return {"features": super().extract(examples, wanted)["features"] / 2}


class Given(ImageDataModule):
    def __init__(self, tables: dict[Split, ImageTable]):
        super().__init__()
        self.given = tables

    def load(self, split: Split) -> ImageTable:
        return self.given[split]


class Shades(GenerativeModel):
    """Noise about a shade of the class that is asked for."""

    kinds = frozenset({"continuous"})
    conditions, latent_shape, latent_prior = classes(3), (1, 4, 4), "standard normal"
    likelihood_kind, num_importance_samples = "bound", 2

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.elsewhere = {}

    device = torch.device("cpu")
    configure_model = losses = training_step = None  # type: ignore[assignment]

    def sample(self, num_samples: int, condition: Any = None, generator: Any = None) -> Tensor:
        return self.decode(generator.randn(1, 4, 4), condition)

    def decode(self, z: Tensor, condition: Any = None) -> Tensor:
        label = condition["label"][:, None, None, None]
        return 0.3 * z * (1 + label) + label / 3 - 0.5

    def encode(self, x: Tensor, condition: Any = None) -> Tensor:
        return x

    def log_likelihood(self, x: Tensor, condition: Any = None) -> Tensor:
        return -(x.flatten(1) - condition["label"][:, None]).square().sum(dim=1) / self.num_importance_samples


def _table(seed: int) -> ImageTable:
    rng, labels = np.random.default_rng(seed), np.repeat(np.arange(3), [64, 48, 32])
    images = (rng.integers(0, 50, (144, 1, 4, 4)) + 100 * labels[:, None, None, None]).astype(np.uint8)
    return ImageTable(images, labels, ("a", "b", "c"))


TABLES: dict[Split, ImageTable] = {"train": _table(0), "val": _table(1)}


def _metrics() -> dict[str, Any]:
    return {"fid": FID(), "kid": KID(20, 2), "precision_recall": PrecisionRecall(),
            "density_coverage": DensityCoverage(),
            "cas": ClassificationAccuracyScore(), "intra_fid": IntraClassFID(), "label_accuracy": LabelAccuracy(),
            "class_balance": ClassBalance(), "class_variety": ClassVariety(), "nearest_neighbor": NearestNeighbor(),
            "lpips_diversity": LPIPSDiversity(PixelDistance(), 40),
            "path_length": PerceptualPathLength(PixelDistance(), 24),
            "bits": BitsPerDim(30), "bits_train": BitsPerDim(30, "train")}  # fmt: skip


def _measured(folder: Path, tables: Any = TABLES, extractor: Any = None, draws: int = 2, **options: Any) -> Any:
    model = Shades()
    model.num_importance_samples = draws
    judge = Evaluation(extractor or Pixels(), _metrics(), **({"num_samples": 48, "cache_dir": str(folder)} | options))
    return judge.run(model, Given(tables), weights="raw")


def _with(split: Split, **changes: Any) -> dict[str, Any]:
    return {"tables": TABLES | {split: replace(TABLES[split], **changes)}}


SWAPPED = np.repeat(np.arange(3), [64, 48, 32])
SWAPPED[[0, 64]] = 1, 0  # as many of each as before
MUTATIONS: dict[str, dict[str, Any]] = {
    "pixels of the reference": _with("val", images=255 - TABLES["val"].images),
    "labels of the reference": _with("val", labels=SWAPPED),
    "counts of its labels": _with("val", labels=2 - TABLES["val"].labels),  # type: ignore[operator]
    "training images": _with("train", images=255 - TABLES["train"].images),
    "training labels": _with("train", labels=SWAPPED),
    "balanced": {"task": Generate(balanced_classes=True)},
    "seed": {"seed": 1},
    "samples": {"num_samples": 60},
    "split": {"reference": "train"},
    "features": {"extractor": Halved()},
    "draws of a likelihood": {"draws": 3},
}


def test_whatever_changes_a_number_changes_its_id(tmp_path: Path) -> None:
    first = _measured(tmp_path)
    assert _measured(tmp_path).ids == first.ids
    for what, change in MUTATIONS.items():
        other = _measured(tmp_path, **change)
        shared = first.values.keys() & other.values.keys()
        changed = {name for name in shared if first.values[name] != other.values[name]}
        assert changed or other.values.keys() != first.values.keys(), f"{what}: nothing depends on it"
        same_id = {name for name in changed if first.ids[name] == other.ids[name]}
        assert not same_id, f"{what}: {same_id}"


def test_a_number_keeps_its_id_where_nothing_that_it_depends_on_changed(tmp_path: Path) -> None:
    """Distances of whole sets know no labels but their counts, and no training images."""
    first = _measured(tmp_path)
    for what in ("labels of the reference", "training images", "draws of a likelihood"):
        other = _measured(tmp_path, **MUTATIONS[what])
        for name in ("fid_quarters_48", "kid_quarters_48", "precision_quarters_48", "density_quarters_48"):
            assert first.ids[name] == other.ids[name], (what, name)
