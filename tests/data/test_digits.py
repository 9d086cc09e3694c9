"""The digits of scikit-learn: values, shape and a split that never moves."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from genlab.data.base import ConditionSpec, DataSpec
from genlab.data.digits import Digits
from genlab.data.image import ImageTable
from genlab.errors import ConfigError


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


def test_some_of_the_classes_keep_their_numbers() -> None:
    whole, some = Digits(), Digits(only_classes=[7, 5])
    for split in ("train", "val"):
        labels = whole.table(split).labels
        wanted = np.isin(labels, [5, 7])
        assert np.array_equal(some.table(split).images, whole.table(split).images[wanted])
        assert np.array_equal(some.table(split).labels, labels[wanted])
    label = some.spec.label
    assert label.size == 10
    assert sorted({*range(10)} - {*label.empty}) == [5, 7]
    assert some.fingerprint != whole.fingerprint
    for classes, message in (([10], "there is no class 10. Use 0 to 9"), ([], "no image has one of these labels")):
        with pytest.raises(ConfigError, match=message):
            Digits(only_classes=classes).table("train")


def test_pixels_are_shuffled_in_one_order() -> None:
    """Each place has the values of another, in all images; another seed is another order."""
    before, after = (data.table("val").images.reshape(500, -1) for data in (Digits(), Digits(shuffle_pixels=1)))
    order = [int(np.flatnonzero((column == before.T).all(axis=1))[0]) for column in after.T if column.any()]
    assert len(set(order)) > 40
    assert order != sorted(order)
    assert np.array_equal(np.sort(before, axis=1), np.sort(after, axis=1))
    train = Digits(shuffle_pixels=1).table("train").images.reshape(1297, -1)
    places = [int(np.flatnonzero((column == before.T).all(axis=1))[0]) for column in after.T if column.any()]
    seen = [i for i, column in enumerate(after.T) if column.any()]
    assert np.array_equal(train[:, seen], Digits().table("train").images.reshape(1297, -1)[:, places])
    assert not np.array_equal(after, Digits(shuffle_pixels=2).table("val").images.reshape(500, -1))


def test_so_many_training_images_of_each_class() -> None:
    """The first ones, in their order; of labels that were shuffled, those that there are after that."""
    whole, some = Digits().table("train"), Digits(per_class=7).table("train")
    assert np.bincount(some.labels).tolist() == [7] * 10
    places = [i for i, label in enumerate(whole.labels) if (whole.labels[:i] == label).sum() < 7]
    assert np.array_equal(some.images, whole.images[places])
    assert np.array_equal(Digits(per_class=7).table("val").images, Digits().table("val").images)
    assert len(Digits(per_class=100_000).table("train")) == len(whole)
    assert np.bincount(Digits(per_class=7, shuffle_labels=0).table("train").labels).tolist() == [7] * 10
    assert len(Digits(per_class=7, only_classes=[1, 2]).table("train")) == 14
    with pytest.raises(ConfigError, match=r"data\.per_class needs labels, and the data have none\. Leave it out"):
        ImageTable(whole.images).first_of_each(3)
    with pytest.raises(ValueError, match=r"data\.per_class=0 must be 1 or more, or null for all"):
        Digits(per_class=0)


def test_labels_are_shuffled_over_training_images_alone() -> None:
    """As many of each, no better than chance, and the same for any number of images that are kept."""
    whole, shuffled = Digits().table("train"), Digits(shuffle_labels=0).table("train")
    assert np.array_equal(shuffled.images, whole.images)
    assert np.array_equal(np.bincount(shuffled.labels), np.bincount(whole.labels))
    share = (shuffled.labels == whole.labels).mean()
    assert abs(share - 0.1) < 0.03
    assert np.array_equal(Digits(shuffle_labels=0, limit=70).table("train").labels, shuffled.labels[:70])
    assert not np.array_equal(Digits(shuffle_labels=1).table("train").labels, shuffled.labels)
    assert np.array_equal(Digits(shuffle_labels=0).table("val").labels, Digits().table("val").labels)
    assert Digits(shuffle_labels=0).fingerprint != Digits().fingerprint
    with pytest.raises(ConfigError, match=r"data\.shuffle_labels needs labels, and the data have none\. Leave it out"):
        ImageTable(whole.images).with_shuffled_labels(0)
