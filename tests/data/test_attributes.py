"""Numbers of the largest object of a scene, and the factors of pictures of one object."""

import numpy as np
import pytest
import torch

from genlab.data.base import ConditionSpec, DataSpec
from genlab.data.scene_reader import read
from genlab.data.shapes import Shapes
from genlab.errors import ConfigError, DataError
from genlab.metrics.attribute_error import AttributeDifference


def test_attributes_are_of_the_object_that_is_named_first() -> None:
    data = Shapes(num_train=40, num_val=10, attributes=["x", "size"])
    batch = data.dataset("train")[[(1, 7), (1, 3)]]
    scenes = data.scenes("train", 1, [7, 3])
    expected = np.stack([scenes.position[:, 0, 0], scenes.size[:, 0]], axis=1).astype(np.float32)
    assert np.array_equal(batch["attributes"], expected)
    assert batch["attributes"].dtype == torch.float32
    table = data.table("val")
    assert table.attributes is not None
    assert np.array_equal(table.told(np.array([2]))["attributes"][0], table.attributes[2])
    assert len(table.first(4).attributes) == 4  # type: ignore[arg-type]
    spec = data.spec.condition["attributes"]
    assert (spec.size, spec.names) == (2, ("x", "size"))
    assert data.spec.to_config()["condition"]["attributes"]["names"] == ["x", "size"]
    x, size = (float(part.partition("=")[2]) for part in spec.examples[2].split(","))
    np.testing.assert_allclose([x, size], table.attributes[2], atol=1e-4)


def test_without_attributes_a_config_is_what_it_was() -> None:
    data = Shapes(num_val=4)
    assert {*data.spec.to_config()["condition"]} == {"label", "caption"}
    assert "attributes" not in data.dataset("train")[[(0, 0)]]


def test_factors_of_pictures_of_one_object() -> None:
    data = Shapes(num_train=9, num_val=30, max_objects=1, image_size=16)
    factors, table = data.factors("val"), data.table("val")
    assert np.array_equal(factors["shape"], table.labels)  # type: ignore[arg-type]
    for row, (each,) in enumerate(read(table.images)):
        scene = data.scenes("val", 0, [row])
        assert data.captions(scene) == [f"a {each.size} {each.color} {each.shape}"]
        np.testing.assert_allclose([factors["x"][row], factors["y"][row]], each.place, atol=0.02)
    with pytest.raises(ConfigError, match="several objects"):
        Shapes(max_objects=2).factors("val")


def test_an_attribute_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"shapes have no siz.* Did you mean 'size'"):
        Shapes(attributes=["siz"])


def test_other_attributes_are_not_read() -> None:
    spec = DataSpec("image", (3, 16, 16), condition={"attributes": ConditionSpec(1, ("age",))})
    with pytest.raises(ConfigError, match=r"data=shapes, and the data have age\. Leave it out"):
        AttributeDifference().check_samples(spec, frozenset())
    with pytest.raises(DataError, match=r"Use data\.attributes=\[size,x,y\]"):
        AttributeDifference().prepare(Shapes(num_val=4))


def test_attribute_error_is_what_pictures_are_off_by() -> None:
    data = Shapes(image_size=16, num_train=20, num_val=24, attributes=["size", "x", "y"])
    table = data.table("val")
    metric = AttributeDifference()
    metric.prepare(data)
    images, asked = torch.from_numpy(table.images), torch.from_numpy(table.attributes)  # type: ignore[arg-type]
    metric.update({"image": images, "attributes": asked}, real=True)
    off = asked.clone()
    off[:, 1] = (off[:, 1] + 0.25).clamp(0, 1)
    off[0] = -1  # not asked for anything
    blank = torch.full((4, 3, 16, 16), 24, dtype=torch.uint8)
    metric.update({"image": torch.cat([images, blank]), "attributes": torch.cat([off, asked[:4]])}, real=False)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found["attribute_missing"] == pytest.approx(4 / 27)
    assert found["attribute_reader_error"] < 0.01
    assert found["attribute_error_size"] == 0
    assert found["attribute_error_y"] < 0.01
    shifts = (off[1:, 1] - asked[1:, 1]).abs().mean()
    assert found["attribute_error_x"] == pytest.approx(float(shifts), abs=0.01)
