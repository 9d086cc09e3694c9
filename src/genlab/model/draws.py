"""Random numbers of a training step, the same on any number of ranks."""

from collections.abc import Callable

import torch
from torch import Tensor

from genlab.seeding import derive_seed, to_device


class Draws:
    """The random numbers of a step: those of example i of the global batch are the same on any number of ranks."""

    def __init__(self, seed: int, rank: int, world_size: int, device: torch.device):
        self.rank, self.world_size, self.device = rank, world_size, device
        self.generator = torch.Generator().manual_seed(seed)
        self.there: torch.Generator | None = None  # on the device, for many numbers

    def randn(self, width: int, count: int) -> Tensor:
        """Standard normal, (count, width): this rank's share of the global batch."""
        return self._mine(torch.randn(count * self.world_size, width, generator=self.generator))

    def rand(self, width: int, count: int) -> Tensor:
        """Uniform on [0, 1), (count, width): this rank's share of the global batch."""
        return self._mine(torch.rand(count * self.world_size, width, generator=self.generator))

    def rand_of_all(self, width: int, count: int) -> Tensor:
        """Uniform on [0, 1), (count * ranks, width): the whole global batch, on all ranks."""
        return to_device(torch.rand(count * self.world_size, width, generator=self.generator), self.device)

    def of_batch(self, count: int) -> Tensor:
        """Uniform on [0, 1), (count,): the same for the whole batch, on all ranks."""
        return to_device(torch.rand(count, generator=self.generator), self.device)

    def normal(self, count: int) -> Callable[..., Tensor]:
        """Draws standard normal numbers (count, *shape), where they are used: those of pixels are many."""
        if self.there is None:
            self.there = torch.Generator(self.device).manual_seed(derive_seed(self.generator.initial_seed()))

        def draw(*shape: int) -> Tensor:
            rows = torch.randn(count * self.world_size, *shape, generator=self.there, device=self.device)
            return rows[self.rank :: self.world_size]

        return draw

    def _mine(self, rows: Tensor) -> Tensor:
        return to_device(rows[self.rank :: self.world_size], self.device)


def truncated_normal(uniform: Tensor, bound: float) -> Tensor:
    """Standard normal numbers given that they lie in [-bound, bound], from uniform ones in [0, 1)."""
    edge = torch.special.ndtr(torch.tensor(bound, dtype=torch.float64))
    return torch.special.ndtri((1 - edge) + uniform.double() * (2 * edge - 1)).to(uniform.dtype)
