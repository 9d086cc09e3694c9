"""Sensitivity of each metric column: sets of real images, degraded in one way at a time.

    python scripts/benchmark_columns.py

Writes the tables of docs/metrics.md to the screen, and docs/images/columns.png. One thread of a laptop CPU: about five
minutes. A set is 1,000 digits drawn with replacement from real ones that neither the reference nor the training set
holds. What real sets score 99 times in 100 is a column's interval; a column sees what spoils a set if its number then
leaves the interval. Which column is made for what stands in ``MADE_FOR``.
"""

import genlab  # noqa: F401  isort: skip  before what imports torchvision
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torchmetrics import Metric

from genlab.data.base import Split
from genlab.data.digits import Digits
from genlab.data.image import ImageDataModule, ImageTable
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.base import FeatureExtractor
from genlab.metrics.class_balance import ClassBalance
from genlab.metrics.class_variety import ClassVariety
from genlab.metrics.density_coverage import DensityCoverage
from genlab.metrics.extractor.digits import DigitsFeatures
from genlab.metrics.fid import FID
from genlab.metrics.kid import KID
from genlab.metrics.nearest_neighbor import NearestNeighbor
from genlab.metrics.noise_level import NoiseLevel
from genlab.metrics.precision_recall import PrecisionRecall
from genlab.metrics.sharpness import Sharpness
from genlab.sampling.examples import Examples
from genlab.sampling.pictures import save_grid

MADE_FOR = {
    "a class missing": "classes_reached",
    "one image a class": "class_variety",
    "classes 2:1": "class_balance",
    "half are copies": "memorized",
    "blurred": "sharpness",
    "noisy": "noise_level",
}
IMAGES = 1000
REAL_SETS, SPOILED_SETS = 599, 100  # of columns made for something
GENERAL_REAL_SETS, GENERAL_SPOILED_SETS = 199, 20  # of the others, which take longer
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "columns.png"
Values = Mapping[str, float]


@dataclass(frozen=True)
class Source:
    """Real images in three parts that share none: to learn from, to compare with, and to draw from."""

    data: ImageDataModule  # the first two: its splits
    drawn_from: ImageTable
    extractor: FeatureExtractor


class FewerDigits(Digits):
    """Digits with 600 of the training images only, any; they come in the order of who wrote them."""

    def load(self, split: Split) -> ImageTable:
        return parted(super().load(split))[0] if split == "train" else super().load(split)


def parted(table: ImageTable) -> tuple[ImageTable, ImageTable]:
    """600 images, and the rest."""
    order = np.random.default_rng(0).permutation(len(table))
    assert table.labels is not None
    first, rest = (
        ImageTable(table.images[part], table.labels[part], table.names) for part in (order[:600], order[600:])
    )
    return first, rest


def digits() -> Source:
    return Source(FewerDigits(), parted(Digits().table("train"))[1], DigitsFeatures())


def draw(source: Source, kind: str, count: int, rng: np.random.Generator) -> Examples:
    """A set of ``count`` real images, spoiled as ``kind`` says: a key of ``MADE_FOR``, or "real"."""
    table = source.drawn_from
    assert table.labels is not None
    labels, classes = table.labels, len(table.names)
    weights = np.ones(len(table))
    if kind == "a class missing":
        weights[labels == rng.integers(classes)] = 0
    if kind == "classes 2:1":
        weights[np.isin(labels, rng.permutation(classes)[: classes // 2])] = 2
    chosen = rng.choice(len(table), count, p=weights / weights.sum())
    if kind == "one image a class":
        chosen = np.array([typical(table, label) for label in range(classes)])[labels[chosen]]
    if kind == "one random image a class":
        chosen = np.array([rng.choice(np.flatnonzero(labels == label)) for label in range(classes)])[labels[chosen]]
    images = table.images[chosen]
    if kind == "half are copies":
        learned = source.data.table("train").images
        images[: count // 2] = learned[rng.integers(0, len(learned), count // 2)]
    if kind == "blurred":
        images = np.rint(gaussian_filter(images.astype(np.float64), (0, 0, 1, 1))).astype(np.uint8)
    if kind == "noisy":
        images = np.rint(images + rng.normal(0, 0.05 * 255, images.shape)).clip(0, 255).astype(np.uint8)
    return Examples.of(image=torch.from_numpy(images))


def typical(table: ImageTable, label: int) -> int:
    """The place of the image of a class that is nearest to the mean of the class: what a collapsed model draws."""
    members = np.flatnonzero(table.labels == label)
    images = table.images[members].astype(np.float64)
    return int(members[np.square(images - images.mean(axis=0)).sum(axis=(1, 2, 3)).argmin()])


def made_for(source: Source, count: int) -> Evaluation:
    """The columns that the statement is about, and those beside them that look at copies."""
    metrics: dict[str, Metric] = {
        "class_balance": ClassBalance(),
        "class_variety": ClassVariety(),
        "nearest_neighbor": NearestNeighbor(),
        "sharpness": Sharpness(),
        "noise_level": NoiseLevel(),
    }
    return Evaluation(source.extractor, metrics, count)


def general(source: Source, count: int) -> Evaluation:
    """The columns that may see anything: for reading."""
    metrics: dict[str, Metric] = {
        "fid": FID(),
        "kid": KID(num_subsets=20),
        "precision_recall": PrecisionRecall(),
        "density_coverage": DensityCoverage(),
    }
    return Evaluation(source.extractor, metrics, count)


def values(evaluation: Evaluation, source: Source, kind: str, sets: int, seed: int) -> dict[str, np.ndarray]:
    """The numbers of so many sets, by the names of the columns."""
    rows: list[Values] = []
    for number in range(sets):
        examples = draw(source, kind, evaluation.num_samples, np.random.default_rng([seed, number]))
        rows.append(evaluation.score(examples, source.data).values)
    return {shortened(name): np.array([row[name] for row in rows]) for name in rows[0]}


def shortened(name: str) -> str:
    """nn_distance_ratio_1k -> nn_distance_ratio; fid_digits64_1k -> fid."""
    words = name.split("_")[:-1]
    return "_".join(word for word in words if word != "digits64")


def interval(real: np.ndarray) -> tuple[float, float]:
    """What new sets of real images stay within 99 times in 100, whatever their distribution: of N values, with N + 1
    divisible by 200, the (N + 1) / 200-th smallest and largest."""
    kept = (len(real) + 1) // 200
    assert kept >= 1
    ordered = np.sort(real)
    return float(ordered[kept - 1]), float(ordered[-kept])


def outside(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    low, high = interval(real)
    return (values < low) | (values > high)


def show(source: Source, evaluation: Evaluation, real_sets: int, sets: int, kinds: list[str]) -> None:
    """A table in Markdown: intervals of real sets; medians of spoiled ones, and how many of 100 lie outside."""
    real = values(evaluation, source, "real", real_sets, seed=0)
    columns = [name for name in real if name not in MADE_FOR.values()]
    columns = [name for name in MADE_FOR.values() if name in real] + columns
    print("\n| samples |" + "".join(f" `{name}` |" for name in columns) + "\n|---|" + "---|" * len(columns))
    ends = [interval(real[name]) for name in columns]
    print("| real: 99 % lie in |" + "".join(f" {number(low)} to {number(high)} |" for low, high in ends))
    for row, kind in enumerate(kinds):
        found = values(evaluation, source, kind, sets, seed=1 + row)
        cells = []
        for name in columns:
            cell = f"{number(float(np.median(found[name])))} ({100 * outside(found[name], real[name]).mean():.0f})"
            cells.append(f"**{cell}**" if MADE_FOR.get(kind) == name else cell)
        print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)


def number(value: float) -> str:
    return f"{round(value, 4):.3g}"


def picture(source: Source, path: Path) -> None:
    """A row of images of a set of each kind; the first is of real ones."""
    rows = [draw(source, kind, 500, np.random.default_rng(7))["image"][:200:10] for kind in ("real", *MADE_FOR)]
    save_grid(torch.cat([row for row in rows if isinstance(row, torch.Tensor)]), 20, path, smallest=32)


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    if arguments:
        sys.exit("error: benchmark_columns.py takes no arguments.")
    source = digits()
    kinds = [*MADE_FOR, "one random image a class"]
    show(source, made_for(source, IMAGES), REAL_SETS, SPOILED_SETS, kinds)
    show(source, general(source, IMAGES), GENERAL_REAL_SETS, GENERAL_SPOILED_SETS, kinds)
    picture(source, PICTURE)
    print(f"\nwrote {PICTURE}")


if __name__ == "__main__":
    main(sys.argv[1:])
