"""Intersection over union of layouts, by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from genlab.data.shapes import Shapes
from genlab.errors import ConfigError
from genlab.metrics.layout_iou import LayoutIoU, intersection_over_union
from genlab.model.base import GenerativeModel
from genlab.model.condition import Conditions
from genlab.model.condition_hint import HINT, Hint
from genlab.model.hint.layout import Layout
from genlab.model.schedule import Constant


def test_by_hand() -> None:
    asked = np.zeros((4, 2, 4), dtype=np.uint8)
    drawn = asked.copy()
    asked[0, 0], drawn[0, 0] = 2, 2  # the same
    asked[1, 0], drawn[1, 0, :2] = 3, 3  # half of it
    asked[2, 0], drawn[2, 0] = 1, 2  # of another color
    found = intersection_over_union(asked, drawn)
    assert found.tolist() == [1.0, 0.5, 0.0, 1.0]
    drawn[1, 1, 0] = 1  # and something that was not asked for
    assert intersection_over_union(asked, drawn)[1] == 0.25


class Copy(GenerativeModel):
    """Draws the held-out picture whose hint it is given, or one of another hint."""

    def __init__(self, data: Shapes, shift: int):
        super().__init__(0, Constant())
        layout = Layout()
        size = layout.channels(data.spec.to_config()["condition"])
        self.conditions = Conditions({HINT: Hint((size, *data.spec.shape[1:]), layout)})
        self.images = torch.from_numpy(data.table("val").images).float() / 127.5 - 1
        self.shift, self.seen = shift, 0

    def configure_model(self) -> None: ...

    def training_step(self, batch: Any, batch_idx: int) -> Any: ...

    def losses(self, batch: Any) -> dict[str, Any]:
        return {}

    def sample(self, num_samples: int, condition: Any = None, generator: Any = None) -> torch.Tensor:
        assert condition[HINT].shape == (num_samples, 7, 32, 32)
        rows = (torch.arange(num_samples) + self.seen + self.shift) % len(self.images)
        self.seen += num_samples
        return self.images[rows]


def test_real_pictures_have_1_and_those_of_other_layouts_have_not() -> None:
    data = Shapes(num_val=12, layout=True)
    found = []
    for shift in (0, 1):
        metric = LayoutIoU(num_samples=20)
        metric.measure(Copy(data, shift), data, "val", batch_size=8, seed=0)
        found.append(float(metric.compute()["layout_iou"]))
    assert found[0] > 0.98
    assert found[1] < 0.3
    assert metric.subject(Copy(data, 0), "val") == "20_val"


def test_what_does_not_suit_it_is_refused() -> None:
    plain, with_layouts = Shapes(num_val=4), Shapes(num_val=4, layout=True)
    model = Copy(with_layouts, 0)
    with pytest.raises(ConfigError, match=r"needs scenes with layouts\. Use data=shapes data\.layout=true"):
        LayoutIoU().check(model, plain)
    model.conditions = Conditions()
    with pytest.raises(ConfigError, match=r"Copy is given no hint, as model=control is\. Leave it out"):
        LayoutIoU().check(model, with_layouts)
    with pytest.raises(ConfigError, match="num_samples=0 must be 1 or more"):
        LayoutIoU(0)
