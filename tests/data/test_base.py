"""Conversions between bytes and floats, and the checks of a batch size."""

import pytest
import torch

from genlab.data.digits import Digits
from genlab.data.image import to_float, to_uint8
from genlab.errors import ConfigError, NumericsError


def test_bytes_survive_the_way_to_floats_and_back() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    floats = to_float(values)
    assert floats.dtype == torch.float32
    assert (floats.min(), floats.max()) == (-1.0, 1.0)
    assert torch.equal(to_uint8(floats), values)
    assert torch.equal(to_uint8(floats.double()), values)


def test_floats_are_rounded_and_clamped() -> None:
    floats = torch.tensor([-7.0, -1.004, -1.0, 0.0, 0.003, 1.0, 1.2, 1e9])
    assert to_uint8(floats).tolist() == [0, 0, 0, 128, 128, 255, 255, 255]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(NumericsError, match="not finite"):
        to_uint8(torch.tensor([0.0, value]))


@pytest.mark.parametrize(
    ("batch_size", "world_size", "text"),
    [
        (
            2000,
            1,
            "data.batch_size=2000 is too large: the training set has 1297 items. Use data.batch_size<=1297.",
        ),
        (
            10,
            4,
            "data.batch_size=10 cannot be divided among 4 devices, whose examples it counts together. "
            "Use a multiple of 4.",
        ),
        (0, 1, "data.batch_size must be a whole number >= 1, got 0."),
    ],
)
def test_batch_sizes_that_cannot_work_are_refused(batch_size: int, world_size: int, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Digits(batch_size=batch_size).check(world_size)
    assert str(caught.value) == text


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_batch_size_that_fits_is_accepted(world_size: int) -> None:
    Digits(batch_size=64).check(world_size)
