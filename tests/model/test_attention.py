"""Attention is the same by every way that computes it."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from genlab.model.network import attention
from genlab.model.network.attention import attend


@pytest.fixture(params=["highest", "medium"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def parts(length: int, dtype: torch.dtype = torch.float32, keys: int | None = None) -> list[Tensor]:
    """Queries, keys and values as a network has them: views of one tensor, heads beside each other."""
    torch.manual_seed(0)
    heads = [torch.randn(2, n, 3, 8, dtype=dtype).transpose(1, 2) for n in (length, keys or length, keys or length)]
    return [part.detach().requires_grad_() for part in heads]


def exact(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """By the definition, in float64."""
    q, k, v = (part.double() for part in (query, key, value))
    scores = torch.einsum("nhtd,nhsd->nhts", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.einsum("nhts,nhsd->nhtd", scores.softmax(dim=-1), v)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [2, 33, 600])
def test_attention_and_its_gradient(length: int, causal: bool, precision: str) -> None:
    given = parts(length)
    mask = torch.ones(length, length, dtype=torch.bool).tril() if causal else None
    weights = torch.randn(2, 3, length, 8)
    wanted = exact(*given, mask)
    found = attend(*given, causal=causal)
    assert attention._is_fused(given[0], given[1], None, 0.0)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    slopes = [torch.autograd.grad((out * weights).sum(), given, retain_graph=True) for out in (found, wanted)]
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert torch.get_float32_matmul_precision() == precision, "what the process is set to is put back"


def test_what_the_kernel_is_not_for(precision: str) -> None:
    """A mask, one query, fewer queries than keys, and bfloat16, short and long."""
    query, key, value = parts(5, keys=7)
    mask = torch.rand(2, 1, 5, 7) < 0.7
    mask[..., 0] = True
    found = attend(query, key, value, mask=mask).double()
    torch.testing.assert_close(found, exact(query, key, value, mask), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(attend(query, key, value).double(), exact(query, key, value, None), rtol=1e-5, atol=1e-5)
    one = query[:, :, :1]
    torch.testing.assert_close(attend(one, key, value).double(), exact(one, key, value, None), rtol=1e-5, atol=1e-5)
    for length in (9, attention._LONG):
        short = parts(length, torch.bfloat16)
        found = attend(*short, causal=True)
        assert found.dtype == torch.bfloat16
        wanted = exact(*short, torch.ones(length, length, dtype=torch.bool).tril())
        torch.testing.assert_close(found.double(), wanted, rtol=2e-2, atol=2e-2)


def test_dropout_hides_weights(precision: str) -> None:
    query, key, _ = parts(64)
    found = attend(query, key, torch.ones_like(key), dropout=0.5)
    found = found.detach()
    assert found.std() > 0.01, "weights no longer sum up to 1"
    assert found.mean() == pytest.approx(1, abs=0.05)
