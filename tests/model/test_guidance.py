"""Guidance over all keys of a condition, against two calls by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.model.guidance.classifier_free import ClassifierFree
from genlab.model.guidance.interval import Interval
from genlab.model.guidance.none import NoGuidance

NOTHING = {"label": torch.full((3,), -1), "caption": torch.zeros(3, 2, dtype=torch.long)}
TOLD = {"label": torch.tensor([0, 1, 2]), "caption": torch.tensor([[1, 2], [3, 0], [4, 4]])}


class Denoise:
    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor, condition: Any) -> Tensor:
        self.rows.append(len(x))
        if condition is None:
            return x
        told = condition["label"] * sigma + condition["caption"].sum(dim=1)
        return x * (2 + told.view(-1, *[1] * (x.ndim - 1)))


@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 2, 2), (3, 4, 1, 2, 2)], ids=["vector", "image", "video"])
def test_all_keys_are_guided_in_one_call(shape: tuple[int, ...]) -> None:
    denoise, x, sigma = Denoise(), torch.randn(shape), torch.tensor([0.5, 1.0, 2.0])
    untold, told = denoise(x, sigma, NOTHING), denoise(x, sigma, TOLD)
    denoise.rows.clear()
    torch.testing.assert_close(
        ClassifierFree(3.0).guide(denoise, TOLD, NOTHING)(x, sigma), untold + 3 * (told - untold)
    )
    assert denoise.rows == [6]
    some = Interval(3.0, 0.75, 1.5).guide(denoise, TOLD, NOTHING)
    expected = torch.stack([told[0], (untold + 3 * (told - untold))[1], told[2]])
    torch.testing.assert_close(some(x, sigma), expected)
    denoise.rows.clear()
    torch.testing.assert_close(some(x, torch.full((3,), 9.0)), denoise(x, torch.full((3,), 9.0), TOLD))
    assert denoise.rows == [3, 3], "where no row is inside, a call costs half"


@pytest.mark.parametrize("guidance", [NoGuidance(), ClassifierFree(1.0), Interval(1.0)])
def test_strength_1_is_the_model_itself(guidance: Any) -> None:
    denoise, x, sigma = Denoise(), torch.randn(3, 2), torch.ones(3)
    assert torch.equal(guidance.guide(denoise, TOLD, NOTHING)(x, sigma), denoise(x, sigma, TOLD))
    assert torch.equal(guidance.guide(denoise, None, None)(x, sigma), x)
    assert denoise.rows == [3] * 3


def test_predictions_are_mixed() -> None:
    untold, told = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 3.0])
    assert ClassifierFree(2.0).mix(untold, told).tolist() == [2.0, 5.0]
    assert NoGuidance().mix(untold, told) is told


def test_an_interval_has_two_ends() -> None:
    with pytest.raises(ValueError, match="0 <= low <= high"):
        Interval(2.0, 3.0, 1.0)
