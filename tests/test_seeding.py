"""Randomness is a function of integers."""

import numpy as np
import pytest
import torch

from genlab.seeding import RandomStream, derive_seed, seed_torch, uniform_by_index


def test_derived_seeds_are_pinned() -> None:
    """They decide what a run draws: another value would make old runs irreproducible."""
    assert [derive_seed(), derive_seed(0), derive_seed(0, 0), derive_seed(1, 2, 3)] == PINNED


PINNED = [5700357409661599242, 3980143261097177850, 2547805098422156800, 2623250113353451629]


def test_torch_is_seeded_as_by_itself() -> None:
    torch.manual_seed(derive_seed(3))
    expected = torch.rand(5)
    seed_torch(derive_seed(3))
    assert torch.equal(torch.rand(5), expected)


def test_of_gpus_that_in_use_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "manual_seed", seeds.append)
    seed_torch(7)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(7))
    assert seeds == [7]
    assert torch.equal(torch.rand(3), expected)


def test_a_gpu_gets_its_numbers_from_pinned_memory_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def to(x: torch.Tensor, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
        asked.append((device.type, non_blocking))
        return x

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: asked.append("pinned") or x)
    monkeypatch.setattr(torch.Tensor, "to", to)
    drawn = RandomStream([1, 2], "cuda").randn(3)
    assert asked == ["pinned", ("cuda", True)]
    asked.clear()
    assert torch.equal(drawn, RandomStream([1, 2], "cpu").randn(3)), "the same numbers on every device"
    assert asked == [("cpu", False)]


def test_every_key_and_their_order_count() -> None:
    keys = [(), (0,), (0, 0), (0, 1), (1, 0), (1,), (-1,), (2**64,), (2**63,), (1, 2, 3), (3, 2, 1)]
    seeds = [derive_seed(*key) for key in keys]
    assert all(0 <= seed < 2**63 for seed in seeds)
    same = seeds[1] == seeds[7]  # keys are taken modulo 2**64
    assert same
    assert len(set(seeds)) == len(seeds) - 1
    assert len({derive_seed(0, step, rank) for step in range(300) for rank in range(30)}) == 9000


def test_neighboring_seeds_differ_in_half_of_their_bits() -> None:
    flips = [(derive_seed(5, i) ^ derive_seed(5, i + 1)).bit_count() for i in range(2000)]
    assert abs(np.mean(flips) - 31.5) < 0.5  # 5 standard errors


def test_uniform_numbers_belong_to_their_index() -> None:
    indices = np.arange(10_000)
    numbers = uniform_by_index(7, indices)
    picked = np.array([9_999, 3, 77])
    np.testing.assert_array_equal(uniform_by_index(7, picked), numbers[picked])
    assert not np.array_equal(uniform_by_index(8, indices), numbers)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert ((counts - 500) ** 2 / 500).sum() < 50  # chi-squared, 19 degrees of freedom: p = 1e-4
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.05


def test_a_row_does_not_know_its_batch() -> None:
    together = RandomStream.for_samples(3, range(6))
    alone = [RandomStream.for_samples(3, [i]) for i in range(6)]
    assert len(together) == 6
    for draw in (lambda s: s.randn(2, 3), lambda s: s.rand(4), lambda s: s.randint(10, 5),
                 lambda s: s.randn_like(torch.zeros(len(s), 3))):  # fmt: skip
        assert torch.equal(draw(together), torch.cat([draw(stream) for stream in alone]))


def test_draws_go_on_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    stream = RandomStream.for_samples(0, range(2))
    first, second = stream.randn(4), stream.randn(4)
    assert not torch.equal(first, second)
    assert torch.equal(torch.rand(3), expected)
    assert stream.randn_like(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64
