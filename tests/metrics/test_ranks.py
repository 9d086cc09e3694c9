"""Two real processes measure what one does, on 101 examples, which two do not share evenly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigrams import Bigrams
from genlab.data.digits import Digits
from genlab.metrics.baselines import baselines
from genlab.metrics.evaluation import Evaluation
from genlab.metrics.extractor.random_conv import RandomConv
from genlab.metrics.fid import FID
from genlab.metrics.kid import KID
from genlab.metrics.label_agreement import LabelAgreement
from genlab.metrics.nearest_neighbor import NearestNeighbor
from genlab.metrics.perplexity import Perplexity
from genlab.metrics.precision_recall import PrecisionRecall
from given_text import GivenText
from ranks import on_ranks


def score() -> dict[str, float]:
    metrics = (FID(), KID(subset_size=50, num_subsets=5), PrecisionRecall(), LabelAgreement(), NearestNeighbor())
    evaluation = Evaluation(RandomConv(), {type(metric).__name__: metric for metric in metrics})
    data = Digits()
    return evaluation.score(baselines(data, 101, seed=0)["class_gaussian"], data).values


def fid(rank: int, world: int) -> float:
    features = torch.randn(2, 101, 16, generator=torch.Generator().manual_seed(0))
    metric = FID()
    metric.update({"features": features[0, rank::world]}, real=True)
    metric.update({"features": features[1, rank::world]}, real=False)
    return float(metric.compute()["fid"])


def perplexity() -> dict[str, float]:
    """Of 13 windows, which are cut short by the end of the text and overlap."""
    text = GivenText(np.random.default_rng(0).integers(0, 98, 203), context=16, vocab_size=98)
    metric = Perplexity(stride=15)
    metric.measure(Bigrams(98), text, "val", batch_size=4)
    return {name: float(value) for name, value in metric.compute().items()}


def measured(rank: int, world: int) -> dict[str, Any]:
    return {"fid": fid(rank, world), "scores": score(), "perplexity": perplexity()}


def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    results = on_ranks(2, tmp_path, measured, 2)
    expected = score()
    assert len(expected) == 8
    for result in results:
        assert result["fid"] == pytest.approx(fid(0, 1), rel=1e-9)
        assert result["perplexity"] == pytest.approx(perplexity(), rel=1e-12)
        # an evaluation takes features in other chunks of 64, which moves their float32 sums
        assert result["scores"] == pytest.approx(expected, rel=1e-5)
