"""Random numbers as a function of integers, so that resume is exact and samples are the same on any batch size."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def derive_seed(*keys: int) -> int:
    """A 63-bit seed that depends on every key and on their order, e.g. ``derive_seed(seed, step, rank)``."""
    state = 0x9E3779B97F4A7C15
    for key in keys:
        state = _mix((state ^ (key & _MASK)) + 0x9E3779B97F4A7C15 & _MASK)
    return state >> 1


def _mix(x: int) -> int:
    """The output function of SplitMix64 (Steele et al. 2014): a bijection of 64-bit integers that scatters them."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


def uniform_by_index(seed: int, indices: np.ndarray) -> np.ndarray:
    """One number in [0, 1) for each index, whatever the other indices are. ``indices``: (N,) integers -> (N,)."""
    x = (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(seed & _MASK)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def uniform_columns(keys: Sequence[int], indices: Tensor, columns: range) -> Tensor:
    """For each index and each column a number in [0, 1), made on the device of ``indices`` (N,), int64.

    Row i depends on ``keys`` and index i alone: (N, columns) float32, the first 24 bits of
    ``uniform_by_index(derive_seed(*keys, column), index)``.
    """
    seeds = [derive_seed(*keys, column) for column in columns]
    seed = to_device(torch.tensor(seeds, dtype=torch.int64), indices.device)
    x = (indices[:, None] + 1) * _signed(0x9E3779B97F4A7C15) ^ seed
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return _shifted(x ^ _shifted(x, 31), 40).float() * 2.0**-24


def _signed(x: int) -> int:
    """An unsigned integer of 64 bits as a signed one of equal bits."""
    return x - (1 << 64) if x >> 63 else x


def _shifted(x: Tensor, places: int) -> Tensor:
    """To the right, with zeros from the left."""
    return x >> places & (1 << 64 - places) - 1


def seed_torch(seed: int) -> None:
    """Seed the global generators that this process draws from, the CPU's and that of the GPU in use, as
    ``torch.manual_seed`` does, which takes half a millisecond for every step."""
    if torch.cuda.is_initialized():
        torch.default_generator.manual_seed(seed)
        torch.cuda.manual_seed(seed)
    elif torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on ``device``. A GPU gets it from pinned memory, for which this process does not wait."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


class RandomStream:
    """Random tensors whose row i comes from row i's own generator.

    Row i of every tensor depends on ``seeds[i]`` alone, so a sample is the same in a batch of 1 or 64 and on any number
    of devices. Numbers are drawn on the CPU and then moved, so that they are the same on every kind of device too.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu"):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.device = torch.device(device)

    @classmethod
    def for_samples(cls, seed: int, indices: Sequence[int], device: torch.device | str = "cpu") -> "RandomStream":
        """The stream for the samples ``indices`` of ``seed``."""
        return cls([derive_seed(seed, index) for index in indices], device)

    @classmethod
    def for_examples(cls, seed: int, x: Tensor) -> "RandomStream":
        """A stream for each example of ``x`` (N, ...), seeded by ``seed`` and its content: independent from example
        to example, and the same in any batch and order. On the device of ``x``."""
        rows = x.detach().float().cpu().contiguous()
        return cls([derive_seed(seed, zlib.crc32(row.numpy().tobytes())) for row in rows], x.device)

    def __len__(self) -> int:
        return len(self.generators)

    def randn(self, *shape: int) -> Tensor:
        """Standard normal, (len(self), \\*shape)."""
        return to_device(torch.stack([torch.randn(shape, generator=g) for g in self.generators]), self.device)

    def randn_like(self, x: Tensor) -> Tensor:
        """Standard normal of the shape of ``x``, whose first dimension is ``len(self)``."""
        return self.randn(*x.shape[1:]).to(x.dtype)

    def randint(self, high: int, *shape: int) -> Tensor:
        """Integers in [0, high), (len(self), \\*shape)."""
        return to_device(torch.stack([torch.randint(high, shape, generator=g) for g in self.generators]), self.device)

    def rand(self, *shape: int) -> Tensor:
        """Uniform on [0, 1), (len(self), \\*shape)."""
        return to_device(torch.stack([torch.rand(shape, generator=g) for g in self.generators]), self.device)
