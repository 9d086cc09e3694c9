"""Cross-entropy of logits too many for copies: torch's own values and gradients, in parts."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.model import cross_entropy as module
from genlab.model.cross_entropy import cross_entropy, nats
from genlab.model.network.token_transformer import padded_linear, vocabulary_linear


def given(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Logits (3, 5, 11), which as the network's are a part of a wider tensor, and targets."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(3, 5, 16, generator=generator, dtype=torch.float64).mul(4).to(dtype)
    return wide[..., :11].requires_grad_(), torch.randint(11, (3, 5), generator=generator)


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_in_parts_it_is_torchs(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected, targets = given()
    found, _ = given()
    mean = F.cross_entropy(expected.flatten(0, 1), targets.flatten())
    each = F.cross_entropy(expected.transpose(1, 2), targets, reduction="none")
    torch.testing.assert_close(cross_entropy(found, targets), mean, rtol=0, atol=0)
    torch.testing.assert_close(nats(found, targets), each, rtol=0, atol=0)
    monkeypatch.setattr(module, "MOST", rows * 11)
    torch.testing.assert_close(cross_entropy(found, targets), mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(nats(found, targets), each, rtol=0, atol=1e-12)
    (theirs,) = torch.autograd.grad(mean + (each * weights).sum(), expected)
    (ours,) = torch.autograd.grad(cross_entropy(found, targets) + (nats(found, targets) * weights).sum(), found)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_half_precision_is_widened_and_its_gradient_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = given(torch.bfloat16)
    expected = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
    (theirs,) = torch.autograd.grad(expected, logits)
    monkeypatch.setattr(module, "MOST", 20)
    found = cross_entropy(logits, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    (ours,) = torch.autograd.grad(found, logits)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs)


class Largest(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[misc]
    """The most numbers that one new tensor has."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and not any(made.untyped_storage()._cdata == a.untyped_storage()._cdata
                                                for a in args if isinstance(a, Tensor)):  # fmt: skip
            self.count = max(self.count, made.numel())
        return made


def test_no_copy_of_all_logits_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = torch.randn(4, 8, 100), torch.randint(100, (4, 8))
    with Largest() as torchs:
        nats(logits, targets)
    monkeypatch.setattr(module, "MOST", 300)
    with Largest() as ours:
        nats(logits, targets)
    assert torchs.count == 3200
    assert ours.count == 300


@pytest.mark.parametrize("size", [65, 64, 7])
def test_a_padded_vocabulary_changes_nothing(size: int) -> None:
    x, weight = torch.randn(3, 4, 6).double().requires_grad_(), torch.randn(size, 6).double().requires_grad_()
    expected, found = F.linear(x, weight), padded_linear(x, weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert found.stride(1) % 64 == 0
    outer = torch.randn_like(expected)
    for ours, theirs in zip(*(torch.autograd.grad(y, (x, weight), outer) for y in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert torch.equal(vocabulary_linear(x, weight), expected), "a CPU has no use for it"
