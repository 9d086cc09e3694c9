"""Batches for a GPU: from pinned memory, or from the pixels of all images in its own."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_order import CountedData
from torch import Tensor

from genlab.data import image
from genlab.data.base import is_on_gpu
from genlab.data.image import ImageDataset, Rows


def trainer_on(kind: str) -> Any:
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(kind)), global_rank=0, world_size=1)


def batches(data: CountedData, trainer: Any) -> list[dict[str, Tensor]]:
    data.trainer = trainer
    return [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]


@pytest.mark.parametrize("flip", [False, True])
def test_batches_of_kept_pixels_are_the_same(flip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = batches(CountedData(batch_size=5, flip=flip), trainer_on("cpu"))
    monkeypatch.setattr(image, "is_on_gpu", lambda trainer: True)
    data = CountedData(batch_size=5, flip=flip)
    found = batches(data, trainer_on("cpu"))
    assert type(data.dataset_on(trainer_on("cpu"))) is Rows
    assert [list(batch) for batch in found] == [list(batch) for batch in expected] == 4 * [["image", "index", "label"]]
    for ours, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    mirrored = torch.cat([batch["image"][:, 0, 0, -1] == 1 for batch in found])
    assert mirrored.any() == flip
    assert not mirrored.all()


def test_a_large_table_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "is_on_gpu", lambda trainer: True)
    data = CountedData(batch_size=5)
    monkeypatch.setattr(image, "_KEPT_BY_GPU", 23 * 16 - 1)
    assert type(data.dataset_on(trainer_on("cpu"))) is ImageDataset
    assert not image._may_be_kept(np.zeros((1, 1, 2, 2), np.uint16)), "a GPU does not gather 16 bits"


def test_loaders_pin_batches_for_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_on_gpu(trainer_on("cuda"))
    data = CountedData(batch_size=5)
    monkeypatch.setattr(image, "_KEPT_BY_GPU", 0)
    for kind in ("cuda", "cpu"):
        data.trainer = trainer_on(kind)
        assert [data.train_dataloader().pin_memory, data.val_dataloader().pin_memory] == 2 * [kind == "cuda"]
