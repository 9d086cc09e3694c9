"""Recall at k: closed forms of ties and of chance, an independent ranking, and a model that knows."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.data.digits import Digits
from genlab.data.shapes import Shapes
from genlab.errors import ConfigError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.recall import recall_at
from genlab.metrics.retrieval import AT, Retrieval
from genlab.model.base import Model
from genlab.model.condition_kind import Caption
from genlab.model.schedule import Constant

DATA = Shapes(image_size=16, max_objects=1, num_train=8, num_val=150, fresh=False)


@pytest.mark.parametrize(("k", "right", "expected"), [
    (1, [0], 1.0),  # the only best
    (1, [1], 0.0),
    (2, [1], 0.5),  # two share the second and third places
    (3, [1], 1.0),
    (2, [1, 2], 1.0),
    (3, [3], 0.0),
    (3, [3, 1], 1.0),
    (1, [3, 4], 0.0),
    (4, [3], 0.5),
])  # fmt: skip
def test_ties_come_in_random_order(k: int, right: list[int], expected: float) -> None:
    scores = torch.tensor([[0.9, 0.5, 0.5, 0.1, 0.1]])
    is_right = torch.zeros(1, 5, dtype=torch.bool)
    is_right[0, right] = True
    assert float(recall_at(k, scores, is_right)) == pytest.approx(expected)


@pytest.mark.parametrize("right", [1, 3, 18, 20])
def test_where_all_are_equal_it_is_chance(right: int) -> None:
    is_right = torch.arange(20)[None] < right
    for k in AT:
        expected = 1 - math.comb(20 - right, k) / math.comb(20, k)
        assert float(recall_at(k, torch.ones(1, 20), is_right)) == pytest.approx(expected)


class Knows(Model):
    """Pictures and captions as fixed vectors, by their content: noisy ones of the caption's number."""

    kinds = frozenset({"continuous"})

    def __init__(self, noise: float) -> None:
        super().__init__(0, Constant())
        table = DATA.table("val")
        assert table.captions is not None
        self.shape = (3, 16, 16)
        self.caption = Caption(**DATA.spec.to_config()["condition"]["caption"])
        self.captions, own = np.unique(table.captions, axis=0, return_inverse=True)
        generator = torch.Generator().manual_seed(0)
        self.texts = F.normalize(torch.randn(len(self.captions), 6, generator=generator), dim=1)
        self.pictures = F.normalize(
            self.texts[own.reshape(-1)] + noise * torch.randn(len(own), 6, generator=generator), dim=1
        )
        self.known = {image.tobytes(): i for i, image in enumerate(table.images)}

    def embed_images(self, x: Tensor) -> Tensor:
        pixels = ((x + 1) * 127.5).round().to(torch.uint8).numpy()
        return self.pictures[[self.known[image.tobytes()] for image in pixels]]

    def embed_captions(self, caption: Tensor) -> Tensor:
        rows = [row.tolist() for row in self.captions]
        return self.texts[[rows.index(row) for row in caption.tolist()]]

    def configure_model(self) -> None: ...

    def training_step(self, batch: Any, batch_idx: int) -> None: ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        return {}


def measured(model: Model, batch_size: int = 64, **options: Any) -> tuple[dict[str, float], dict[str, Any]]:
    result = Evaluation(None, {"retrieval": Retrieval(**options)}, 8, batch_size=batch_size).run(
        model, DATA, weights="raw"
    )
    for error in result.failures.values():
        raise error
    return result.values, result.protocol["metrics"]["retrieval"]


def test_it_equals_a_ranking_one_by_one() -> None:
    model = Knows(noise=0.7)
    values, _ = measured(model)
    table = DATA.table("val")
    assert table.captions is not None
    own = np.array([[row.tolist() for row in model.captions].index(row) for row in table.captions.tolist()])
    ranked = {
        "image_to_text": [np.argsort(-(model.texts @ v).numpy()) == own[i] for i, v in enumerate(model.pictures)],
        "text_to_image": [own[np.argsort(-(model.pictures @ model.texts[c]).numpy())] == c for c in own],
    }
    seen = ~DATA.has_held_out("val")
    for way, rows in ranked.items():
        for k in AT:
            right = np.array([row[:k].any() for row in rows])
            assert values[f"{way}_r{k}_val"] == pytest.approx(right.mean())
        right = np.array([row[0] for row in rows])
        assert values[f"{way}_r1_seen_val"] == pytest.approx(right[seen].mean())
        assert values[f"{way}_r1_held_out_val"] == pytest.approx(right[~seen].mean())
    assert values["image_to_text_chance_r5_val"] == pytest.approx(5 / len(model.captions))
    shares = np.bincount(own) / 150
    assert values["text_to_image_chance_r1_val"] == pytest.approx((shares**2).sum())
    assert 0.2 < values["image_to_text_r1_val"] < 0.9
    assert measured(model, batch_size=7)[0] == values


def test_a_model_that_knows_is_always_right_and_one_that_knows_nothing_is_at_chance() -> None:
    values, _ = measured(Knows(noise=0.0))
    assert all(values[f"{way}_r{k}_val"] == 1 for way in ("image_to_text", "text_to_image") for k in AT)
    blind = Knows(noise=0.0)
    blind.texts, blind.pictures = torch.ones_like(blind.texts), torch.ones_like(blind.pictures)
    values, _ = measured(blind)
    for way in ("image_to_text", "text_to_image"):
        for k in AT:
            assert values[f"{way}_r{k}_val"] == pytest.approx(values[f"{way}_chance_r{k}_val"])


def test_pools_are_easier_and_another_protocol() -> None:
    whole, settings = measured(Knows(noise=0.7))
    pooled, others = measured(Knows(noise=0.7), pool=20)
    assert pooled["image_to_text_r1_val_of_20"] > whole["image_to_text_r1_val"] + 0.05
    assert pooled["image_to_text_chance_r1_val_of_20"] > whole["image_to_text_chance_r1_val"]
    assert others == settings | {"pool": 20}
    assert settings["sha256"]


def test_what_cannot_be() -> None:
    metric = Retrieval()
    with pytest.raises(ConfigError, match=r"metrics=retrieval: no held-out image has a caption\. Leave it out"):
        metric.check(Knows(0.0), Digits())
    toy = Knows(0.0)
    toy.caption = None  # type: ignore[assignment]
    del toy.caption
    with pytest.raises(ConfigError, match="a Knows does not compare images with captions, as model=contrastive_text"):
        metric.check(toy, DATA)
    with pytest.raises(ValueError, match="pool=1 must be 2 or more"):
        Retrieval(pool=1)
