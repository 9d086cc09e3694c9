"""Scores of disentanglement: where each latent is a factor, where none knows any, and by formulas written again."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.data.digits import Digits
from genlab.data.shapes import Shapes
from genlab.errors import ConfigError
from genlab.metrics.disentanglement import Disentanglement
from genlab.metrics.disentanglement_scores import dci, factor_vae_score, mig, of_importances, sap
from genlab.model.base import Model
from genlab.model.representation import Reading
from genlab.model.schedule import Constant

COUNT = 1000
RNG = np.random.default_rng(0)
FACTORS = {"shape": RNG.integers(0, 4, COUNT), "size": RNG.integers(0, 2, COUNT), "x": RNG.random(COUNT)}
PERFECT = np.stack([3.0 * FACTORS["x"] - 1, -FACTORS["shape"], 0.5 * FACTORS["size"]], axis=1)  # permuted, scaled
NOISE = RNG.normal(size=(COUNT, 3))


def test_latents_that_are_factors() -> None:
    assert mig(PERFECT, FACTORS, 20) > 0.95
    assert sap(PERFECT, FACTORS) == pytest.approx(((1 - 1 / 4) + (1 - 1 / 2) + 1) / 3, abs=0.05)  # above chance
    assert min(dci(PERFECT, FACTORS)) > 0.97
    assert factor_vae_score(PERFECT, FACTORS, 300, 0) == 1


def test_latents_that_know_nothing() -> None:
    assert mig(NOISE, FACTORS, 20) < 0.03
    assert sap(NOISE, FACTORS) < 0.05
    assert factor_vae_score(NOISE, FACTORS, 600, 0) < 0.55  # a third, and what three latents happen to vote for


@pytest.mark.matrix
def test_latents_that_mix_factors() -> None:
    """Rotated by 45 degrees, two latents know as much of both: no gap, and nothing is lost."""
    independent = {"a": FACTORS["x"], "b": RNG.random(COUNT)}
    plain = np.stack([*independent.values()], axis=1)
    mixed = plain @ np.array([[1.0, 1.0], [1.0, -1.0]])
    assert mig(mixed, independent, 20) < 0.1 < 0.9 < mig(plain, independent, 20) + 0.1
    assert sap(mixed, independent) < 0.05
    disentanglement, _, informativeness = dci(mixed, independent)
    assert disentanglement < 0.2
    assert informativeness > 0.9


@pytest.mark.matrix
def test_forests_find_nothing_in_noise() -> None:
    disentanglement, completeness, informativeness = dci(NOISE, FACTORS)
    assert max(disentanglement, completeness) < 0.1
    assert informativeness < 0.35  # of guesses: 1/4, 1/2 and no correlation


def test_two_latents_of_one_factor_are_incomplete_and_have_no_gap() -> None:
    twice = np.concatenate([PERFECT, PERFECT[:, :1]], axis=1)
    assert mig(PERFECT, FACTORS, 20) - mig(twice, FACTORS, 20) == pytest.approx(1 / 3, abs=0.05)
    assert sap(PERFECT, FACTORS) - sap(twice, FACTORS) == pytest.approx(1 / 3, abs=0.01)
    importances = np.array([[1.0, 0], [1, 0], [0, 2]])
    assert of_importances(importances) == pytest.approx((1.0, 1 - np.log(2) / np.log(3) / 2))
    assert of_importances(np.ones((3, 2))) == pytest.approx((0.0, 0.0))
    assert of_importances(np.zeros((3, 2))) == (0.0, 0.0)


def test_mig_is_the_published_formula() -> None:
    """(I(z; v) - the next) / H(v), by scikit-learn's mutual information and NumPy's histograms."""
    from sklearn.metrics import mutual_info_score

    latents = NOISE + 2 * np.stack([FACTORS["shape"], FACTORS["shape"] + FACTORS["size"], FACTORS["x"]], axis=1)
    gaps = []
    for name in ("shape", "size"):
        known = []
        for z in latents.T:
            _, edges = np.histogram(z, 20)
            known.append(mutual_info_score(FACTORS[name], np.digitize(z, edges[:-1])))
        first, second, _ = sorted(known, reverse=True)
        gaps.append((first - second) / mutual_info_score(FACTORS[name], FACTORS[name]))
    categories = {name: FACTORS[name] for name in ("shape", "size")}
    assert mig(latents, categories, 20) == pytest.approx(np.mean(gaps), abs=0.01)


def test_constant_latents_change_no_vote() -> None:
    constant = np.concatenate([PERFECT, np.full((COUNT, 2), 7.0)], axis=1)
    assert factor_vae_score(constant, FACTORS, 300, 0) == factor_vae_score(PERFECT, FACTORS, 300, 0)
    assert factor_vae_score(np.zeros((COUNT, 2)), FACTORS, 300, 0) == pytest.approx(1 / 3)
    assert mig(constant, FACTORS, 20) == mig(PERFECT, FACTORS, 20)


class Blind(Model):
    kinds = frozenset({"continuous"})

    def __init__(self) -> None:
        super().__init__(0, Constant())

    def configure_model(self) -> None: ...

    def training_step(self, batch: Any, batch_idx: int) -> Any: ...

    def losses(self, batch: Any) -> Any: ...


class Reads(Blind):
    """Knows color and place of the one object of a picture, by the pixels that are not background."""

    reading: ClassVar[Reading] = Reading("sums of pixels")

    def represent(self, x: Tensor, layer: float, noise_level: float) -> Tensor:
        paint = (x + 0.8).clamp_min(0)  # (N, 3, S, S)
        mass = paint.sum(dim=1).flatten(1).sum(1, keepdim=True)
        place = torch.linspace(0, 1, x.shape[-1])
        along_x, along_y = ((paint.sum(dim=(1, d)) @ place)[:, None] / mass for d in (2, 3))
        return torch.cat([along_x, along_y, paint.sum(dim=(2, 3)) / mass], dim=1)


def test_the_metric_reads_a_model_and_the_factors_of_data() -> None:
    metric, data = Disentanglement(num_images=200, votes=100), Shapes(num_train=250, max_objects=1, image_size=16)
    metric.measure(Reads(), data, "val", batch_size=70)
    whole = metric.compute()
    assert metric.settings()["factors"] == "shape,color,size,x,y"
    assert float(whole["dci_informativeness"]) > 0.5
    assert float(whole["factor_vae_score"]) > 0.3
    again = Disentanglement(num_images=200, votes=100)
    again.measure(Reads(), data, "val", batch_size=300)
    for one, other in ((again.latents, metric.latents), (again.index, metric.index)):
        torch.testing.assert_close(torch.cat([*one]), torch.cat([*other]))
    assert metric.subject(Reads(), "val") == "train"


def test_what_it_cannot_be_measured_on() -> None:
    with pytest.raises(ConfigError, match=r"Use data=shapes data.max_objects=1"):
        Disentanglement().check(Reads(), Digits())
    with pytest.raises(ConfigError, match="several objects have no factors"):
        Disentanglement().check(Reads(), Shapes(num_train=200))
    with pytest.raises(ConfigError, match=r"disentanglement.layer=null"):
        Disentanglement(layer=0.5).check(Reads(), Shapes(num_train=200, max_objects=1))
    with pytest.raises(ConfigError, match="100 training images or more, got 60"):
        Disentanglement().check(Reads(), Shapes(num_train=60, max_objects=1))
    with pytest.raises(ConfigError, match="has no latents"):
        Disentanglement().check(Blind(), Shapes(num_train=200, max_objects=1))
    with pytest.raises(ValueError, match="votes=1"):
        Disentanglement(votes=1)
