"""Two and four real processes measure what one does, in any order and on any batch size: every metric of the configs.

There are 101 samples and 97 real examples, which processes do not share evenly. A metric that is added to
configs/metrics is found there and fed what it reads.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from test_evaluation import NoisyPrototypes
from torch import Tensor
from torchmetrics import Metric

from bigrams import Bigrams
from genlab.config.build import build
from genlab.config.tree import PACKAGED
from genlab.data.digits import Digits
from genlab.data.scenes import ATTRIBUTES
from genlab.data.shapes import Shapes
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.base import EXTRACTED, ModelMetric, NeedsData
from genlab.metrics.chrf import ChrF
from genlab.metrics.distance.pixels import PixelDistance
from genlab.metrics.exact_match import ExactMatch
from genlab.metrics.extractor.ngrams import HashedNgrams
from genlab.metrics.extractor.random_conv import RandomConv
from genlab.metrics.mauve import Mauve
from genlab.metrics.perceptual_path_length import PerceptualPathLength
from genlab.metrics.perplexity import Perplexity
from genlab.metrics.scene_captions import SceneCaptions
from genlab.task.continue_text import ContinueText
from genlab.task.generate import Generate
from given_text import GivenText
from ranks import on_ranks
from stand_ins import without_downloads
from told import classes

Values = dict[str, dict[str, float]]  # by metric and name
COUNTS = {True: 97, False: 101}  # of real and of generated examples
LESS = {"num_pairs": 20, "subset_size": 50, "num_subsets": 5, "num_samples": 40, "num_heldout": 50,
        "num_images": 60, "num_patches": 4, "num_directions": 16, "scales": 2}  # fmt: skip
SCENES = Shapes(image_size=16, max_objects=2, num_train=COUNTS[False], fresh=False, attributes=ATTRIBUTES)
TOLD = ("text", "caption", "attributes")  # that digits have none of
WORDS = ("the", "a", "small", "red", "circle", "above", "large", "blue", "square", "is")


def sample_metrics(folder: Path, without: Sequence[str] = ()) -> dict[str, Any]:
    """By name, of all config files: those that are fed samples, and do not read ``without``."""
    nodes: dict[str, Any] = {}
    for path in (PACKAGED / "metrics").glob("*.yaml"):
        nodes |= without_downloads(yaml.safe_load(path.read_text()), folder)
    metrics: dict[str, Any] = {name: build(less(nodes[name]), Metric, name) for name in sorted(nodes)}
    return {n: m for n, m in metrics.items() if not isinstance(m, ModelMetric) and not m.reads & {*without}}


def less(node: Any) -> Any:
    """A metric's config with less to do."""
    return {key: LESS.get(key, value) for key, value in node.items()}


@functools.cache
def examples(real: bool) -> dict[str, Any]:
    """Every key that a metric can read."""
    count, generator = COUNTS[real], torch.Generator().manual_seed(int(real))
    images = Generate().on(Digits(), "val").baselines(count, seed=int(real))["class_gaussian"]["image"]
    words = np.random.default_rng(int(real)).integers(0, len(WORDS), (count, 12))
    return {
        "features": torch.randn(count, 16, generator=generator),
        "logits": 2 * torch.randn(count, 10, generator=generator),
        "spatial": torch.randn(count, 24, generator=generator),
        "image": images,
        "text": [" ".join(WORDS[word] for word in row) for row in words],
        "caption": SCENES.captions(SCENES.scenes("train", 0, np.arange(count))),
        "attributes": torch.from_numpy(SCENES.scenes("train", 0, np.arange(count)).attributes(ATTRIBUTES)),
        "label": torch.arange(count) % 10,
        "index": torch.arange(count),
    }


def batches(metric: Any, real: bool, rank: int, world: int, shuffled: bool) -> Iterator[dict[str, Any]]:
    """This rank's share, with what the metric reads and no more."""
    mine = torch.arange(rank, COUNTS[real], world)
    if shuffled:
        mine = mine[torch.randperm(len(mine), generator=torch.Generator().manual_seed(rank))]
    for rows in mine.split(16):
        batch = {key: values for key, values in examples(real).items() if key in metric.reads | {"index", "label"}}
        if {"caption", "attributes"} & {*batch}:  # of some samples not that of their picture
            batch["image"] = torch.from_numpy(SCENES.table("train").images)[: COUNTS[real]] if real else _others()
        if isinstance(metric, SceneCaptions):  # every other one is right
            captions = examples(real)["caption"]
            batch["text"] = captions if real else [captions[i - i % 2] for i in range(len(captions))]
        yield {key: v[rows] if isinstance(v, Tensor) else [v[row] for row in rows] for key, v in batch.items()}


def _others() -> Tensor:
    return torch.from_numpy(SCENES.table("train").images).roll(1, dims=0)[: COUNTS[False]]


def fed(folder: Path, rank: int = 0, world: int = 1, shuffled: bool = False, group: Any = None) -> Values:
    """What each metric says of the same examples."""
    values = {}
    for name, metric in sample_metrics(folder).items():
        metric.process_group = group
        if isinstance(metric, NeedsData):
            metric.prepare(SCENES if "attributes" in metric.reads else text() if "text" in metric.reads else Digits())  # type: ignore[arg-type]
        for real in (False, True) if shuffled else (True, False):
            for batch in batches(metric, real, rank, world, shuffled):
                metric.update(batch, real=real)
        values[name] = {key: float(value) for key, value in metric.compute().items()}
    return values


def text() -> GivenText:
    return GivenText(np.random.default_rng(0).integers(0, 98, 203), context=16, vocab_size=98)


def of_models() -> Values:
    """Metrics that ask the model. Windows are cut short by the end of the text and overlap; 40 paths are 3 chunks."""
    perplexity = Perplexity(stride=15)
    perplexity.measure(Bigrams(98), text(), "val", batch_size=4)
    paths = PerceptualPathLength(PixelDistance(), num_samples=40)
    decoder = SimpleNamespace(latent_prior="standard normal", latent_shape=(256,), conditions=classes(None),
                              device=torch.device("cpu"),
                              decode=lambda z, condition: z.sin().view(-1, 1, 16, 16))  # fmt: skip
    paths.measure(decoder, Digits(), "val", batch_size=4, seed=0)  # type: ignore[arg-type]
    return {
        type(metric).__name__: {name: float(value) for name, value in metric.compute().items()}
        for metric in (perplexity, paths)
    }


def of_texts() -> dict[str, float]:
    """An evaluation of 21 texts, which go on from 21 windows, and of answers to 5 problems."""
    data = GivenText(np.random.default_rng(0).integers(0, 98, 1000), context=16, vocab_size=98)
    with TemporaryDirectory() as folder:
        problems = Path(folder) / "letters.jsonl"
        problems.write_text("".join(f'{{"prompt": "{c}", "answer": "x"}}\n' for c in "abcde"))
        metrics = {"chrf": ChrF(), "mauve": Mauve(), "exact_match": ExactMatch(str(problems), 9)}
        judge = Evaluation(HashedNgrams(), metrics, 21, task=ContinueText(2), cache_dir=folder)
        return judge.run(Bigrams(98), data, weights="raw").values


def scores(folder: Path) -> dict[str, float]:
    """An evaluation of pixels."""
    data = Digits()
    judge = Evaluation(Everything(), sample_metrics(folder, without=TOLD), cache_dir=str(folder))  # type: ignore[arg-type]
    return judge.score(Generate().on(data, "val").baselines(101, seed=0)["class_gaussian"], data).values


class Everything(RandomConv):
    """An extractor that gives all that there is."""

    gives = EXTRACTED

    def extract(self, examples: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        features = super().extract(examples, wanted)["features"]
        given = {"features": features, "logits": 3 * features[:, :10], "spatial": features[:, 10:34]}
        return {name: given[name] for name in wanted}


def measured(rank: int, folder: str) -> dict[str, Any]:
    """On four processes: all together, and as two pairs."""
    pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    return {
        "of_four": fed(Path(folder), rank, 4, shuffled=True),
        "of_two": fed(Path(folder), rank % 2, 2, shuffled=True, group=pairs[rank // 2]),
        "of_models": of_models(),
        "scores": scores(Path(folder)),
        "of_texts": of_texts(),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stand_ins")


@pytest.fixture(scope="module")
def expected(folder: Path) -> Values:
    return fed(folder)


def assert_same(values: Values, expected: Values, folder: Path) -> None:
    """Numbers of what is not pixels are float64 sums; of pixels, networks make float32 ones."""
    assert values.keys() == expected.keys()
    for name, metric in sample_metrics(folder).items():
        tolerance = 1e-6 if "image" in metric.reads else 1e-9
        assert values[name] == pytest.approx(expected[name], rel=tolerance, abs=1e-12), name


def test_every_metric_of_the_configs_is_fed(expected: Values) -> None:
    assert {
        "fid",
        "kid",
        "precision_recall",
        "density_coverage",
        "intra_fid",
        "nearest_neighbor",
        "label_accuracy",
        "lpips_diversity",
        "clip_score",
    } <= set(expected)
    for name, values in expected.items():
        assert np.isfinite(list(values.values())).all(), name


def test_order_does_not_matter(expected: Values, folder: Path) -> None:
    assert_same(fed(folder, shuffled=True), expected, folder)


def test_processes_agree_with_one(expected: Values, folder: Path, tmp_path: Path) -> None:
    of_one, scored, texts = of_models(), scores(folder), of_texts()
    for result in on_ranks(4, tmp_path, measured, str(folder)):
        assert_same(result["of_two"], expected, folder)
        assert_same(result["of_four"], expected, folder)
        for name, values in result["of_models"].items():
            assert values == pytest.approx(of_one[name], rel=1e-12), name
        assert result["of_texts"] == pytest.approx(texts, rel=1e-9)
        # an evaluation takes features in other chunks of 64, which moves their float32 sums
        assert result["scores"] == pytest.approx(scored, rel=1e-5)


def test_batch_sizes_and_workers_do_not_show(folder: Path) -> None:
    """From the model to the numbers, as an evaluation draws and measures."""
    results = []
    for batch_size, num_workers in ((64, 0), (1, 0), (7, 2)):
        data = Digits(num_workers=num_workers)
        metrics = sample_metrics(folder, without=TOLD)
        options: Any = {"batch_size": batch_size, "cache_dir": str(folder)}
        judge = Evaluation(Everything(), metrics, 101, **options)  # type: ignore[arg-type]
        results.append(judge.run(NoisyPrototypes(data), data, weights="raw"))
    for result in results[1:]:
        assert result.values == pytest.approx(results[0].values, rel=1e-6)
        assert result.ids == results[0].ids
