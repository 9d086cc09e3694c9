"""Samples batch by batch, as many at a time as there is memory for."""

import pytest
import torch

from genlab.model.condition import Conditions
from genlab.sampling.draw import draws
from genlab.seeding import RandomStream


class Small:
    """A model on a device that holds three samples."""

    device, evaluations, conditions, drawn_by = torch.device("cpu"), 0, Conditions(), None

    def __init__(self) -> None:
        self.tried: list[int] = []

    def sample(self, count: int, condition: object, stream: RandomStream) -> torch.Tensor:
        self.tried.append(count)
        self.evaluations += count
        if count > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return stream.randn(2)


def test_half_as_many_are_tried_where_memory_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    model = Small()
    with pytest.warns(UserWarning, match="a GPU holds fewer samples: [42] are drawn at a time"):
        drawn = [*draws(model, range(10), None, 3, 8)]  # type: ignore[arg-type]
    assert model.tried == [8, 4, 2, 2, 2, 2, 2]
    assert len(freed) == 2
    assert torch.equal(torch.cat(drawn), RandomStream.for_samples(3, range(10)).randn(2)), "the samples are the same"
    assert model.evaluations == 10, "those of a batch that failed do not count"


def test_one_that_does_not_fit_is_an_error() -> None:
    class Smallest(Small):
        def sample(self, count: int, condition: object, stream: RandomStream) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        [*draws(Smallest(), range(1), None, 3, 8)]  # type: ignore[arg-type]
