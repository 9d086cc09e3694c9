"""Bits per dimension: what a model that knows nothing pays, over which images, and who is refused."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.data.base import Split
from genlab.data.digits import Digits
from genlab.errors import ConfigError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.bits_per_dim import BitsPerDim
from given_text import GivenText
from told import classes


class Uniform(nn.Module):
    """Every 8-bit image is equally likely: density 1/2 for each dimension on [-1, 1)."""

    likelihood_kind = "exact"
    conditions = classes(10)
    num_levels = 256
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.told: list[Tensor] = []

    def log_likelihood(self, x: Tensor, condition: Any = None) -> Tensor:
        self.seen.append(x)
        self.told.append(condition["label"])
        return torch.full((len(x),), -x[0].numel() * math.log(2))


def measured(model: Any, metric: BitsPerDim, split: Split = "val", seed: int = 0) -> dict[str, float]:
    metric.measure(model, Digits(), split, batch_size=1, seed=seed)
    return {name: float(value) for name, value in metric.compute().items()}


def test_a_uniform_model_pays_eight_bits() -> None:
    result = Evaluation(None, {"bits": BitsPerDim(num_images=100)}).run(Uniform(), Digits(), weights="raw")  # type: ignore[arg-type]
    assert result.values["bits_per_dim_exact_val_100"] == pytest.approx(8, abs=1e-6)
    assert result.values["nats_256_levels_exact_val_100"] == pytest.approx(256 * math.log(256), rel=1e-6)
    assert set(result.directions.values()) == {"lower"}
    assert result.protocol["metrics"]["bits"]["dequantisation"] == "uniform in cells"


def test_images_represent_the_split_evenly_with_their_labels_and_noise_of_their_own() -> None:
    model, table = Uniform(), Digits().table("val")
    metric = BitsPerDim(num_images=3)
    measured(model, metric)
    for i, place in enumerate((0, 250, 499)):
        pixels = (model.seen[0][i] + 1) * 128
        assert torch.equal(pixels.floor(), torch.from_numpy(table.images[place]).float())
        assert model.told[0][i] == table.labels[place]
    noise = [(x + 1) * 128 % 1 for x in model.seen[0]]
    assert not torch.equal(noise[0], noise[1])
    again = Uniform()
    measured(again, BitsPerDim(num_images=3))
    assert torch.equal(again.seen[0], model.seen[0])
    other = Uniform()
    measured(other, BitsPerDim(num_images=3), seed=1)
    assert not torch.equal(other.seen[0], model.seen[0])


def test_there_are_no_more_images_than_there_are() -> None:
    metric, model = BitsPerDim(num_images=10_000), Uniform()
    assert measured(model, metric)["bits_per_dim"] == pytest.approx(8, abs=1e-6)
    assert sum(len(x) for x in model.seen) == 500
    assert metric.subject(model, "val") == "exact_val_500"  # type: ignore[arg-type]


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"metrics\.bits_per_dim\.num_images must be a whole number >= 1, got 0"):
        BitsPerDim(0)
    with pytest.raises(ConfigError, match=r"metrics=bits_per_dim: Linear has no likelihood\. Leave it out"):
        BitsPerDim().check(nn.Linear(1, 1), Digits())  # type: ignore[arg-type]
    text = GivenText(torch.arange(50).numpy(), 8, 50)
    with pytest.raises(ConfigError, match=r"bits_per_dim is for images; the data are text\. Use .*perplexity"):
        BitsPerDim().check(Uniform(), text)  # type: ignore[arg-type]
