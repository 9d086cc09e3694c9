"""The digits of scikit-learn: values, shape and a split that never moves."""

import hashlib

import numpy as np
import torch
from sklearn.datasets import load_digits

from genlab.data.base import ConditionSpec, DataSpec
from genlab.data.digits import Digits


def rows(images: np.ndarray) -> list[bytes]:
    return [image.tobytes() for image in images]


def test_spec() -> None:
    label = ConditionSpec(10, tuple("0123456789"))
    assert Digits().spec == DataSpec("image", (1, 16, 16), condition={"label": label})


def test_values_are_those_of_the_original_in_a_black_frame() -> None:
    data = Digits()
    images = np.concatenate([data.table("train").images, data.table("val").images])  # (N, 1, 16, 16)
    assert images.shape == (1797, 1, 16, 16)
    assert images.dtype == np.uint8
    frame = images.copy()
    frame[:, :, 4:12, 4:12] = 0
    assert not frame.any()
    values = np.rint(images[:, 0, 4:12, 4:12] / 255 * 16)  # (N, 8, 8), 0..16 again
    original = load_digits().images
    assert sorted(rows(values.astype(np.uint8))) == sorted(rows(original.astype(np.uint8)))
    assert set(np.unique(images)) == {round(value * 255 / 16) for value in range(17)}


def test_split_is_stratified_disjoint_and_fixed() -> None:
    train, val = Digits(seed=1).table("train"), Digits(seed=2).table("val")
    assert train.labels is not None
    assert val.labels is not None
    assert np.bincount(val.labels).tolist() == [50] * 10
    assert len(train) == 1297
    assert np.bincount(train.labels).tolist() == [128, 132, 127, 133, 131, 132, 131, 129, 124, 130]
    assert not set(rows(train.images)) & set(rows(val.images))
    assert hashlib.sha256(val.images.tobytes() + val.labels.tobytes()).hexdigest()[:16] == "0ac7b86e73a1d94c"


def test_labels_belong_to_their_images() -> None:
    original, labels = load_digits(return_X_y=True)
    of = {image.astype(np.uint8).tobytes(): label for image, label in zip(original, labels, strict=True)}
    table = Digits().table("val")
    assert table.labels is not None
    values = np.rint(table.images[:, 0, 4:12, 4:12] / 255 * 16).astype(np.uint8)
    assert [of[image.tobytes()] for image in values] == table.labels.tolist()


def test_validation_batches_hold_each_image_once_in_order() -> None:
    loader = Digits(batch_size=64).val_dataloader()
    assert torch.equal(torch.cat([batch["index"] for batch in loader]), torch.arange(500))
