"""Group normalization over channels that lie beside each other is torch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.model.network.group_norm import GroupNorm, _is_channels_last


def given(dtype: torch.dtype = torch.float64, mean: float = 0.0) -> tuple[GroupNorm, Tensor]:
    torch.manual_seed(0)
    norm = GroupNorm(3, 12).to(dtype)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = (torch.randn(2, 12, 5, 4, dtype=dtype) + mean).contiguous(memory_format=torch.channels_last)
    return norm, x.requires_grad_()


def reference(norm: GroupNorm, x: Tensor) -> Tensor:
    return F.group_norm(x.double(), norm.num_groups, norm.weight.double(), norm.bias.double(), norm.eps)


@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_values_and_layout(mean: float) -> None:
    """Where the mean is far above the deviation, too: squares are taken of what is centered."""
    norm, x = given(torch.float32, mean)
    assert _is_channels_last(x)
    found = norm(x)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        found.double(), reference(norm, x), rtol=1e-4 if mean else 1e-5, atol=1e-3 if mean else 1e-6
    )


def test_gradients() -> None:
    norm, x = given()
    weights = torch.randn(2, 12, 5, 4, dtype=torch.float64)
    found, wanted = (
        torch.autograd.grad((made * weights).sum(), [x, *norm.parameters()]) for made in (norm(x), reference(norm, x))
    )
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(norm, (x,))


def test_bfloat16_has_finer_statistics() -> None:
    norm, x = given(torch.bfloat16, mean=10.0)
    found = norm(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), reference(norm, x), rtol=2e-2, atol=2e-2)


def test_other_layouts_are_left_to_torch() -> None:
    norm, x = given()
    for other in (x.detach().contiguous(), x.detach()[:, :, 0], x.detach()[:, :, :1, :1]):
        assert not _is_channels_last(other)
        assert torch.equal(norm(other), F.group_norm(other, 3, norm.weight, norm.bias, norm.eps))
