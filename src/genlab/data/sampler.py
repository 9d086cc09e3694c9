"""Batch sampler whose batches are a function of (seed, epoch, position), so that resumed runs and all ranks agree."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from genlab.seeding import derive_seed

Keys = list[tuple[int, int]]  # (epoch, index) of each example: all that augmentation may depend on besides the seed


class ResumableBatchSampler(Sampler[Keys]):
    """Yields, for each global batch, this rank's share of it.

    The order of an epoch is a permutation drawn from (seed, epoch). A global batch is ``batch_size`` consecutive
    entries of it, whatever the number of ranks; rank r takes entries r, r + world_size, ... of the batch. An
    incomplete batch at the end of an epoch is dropped.

    ``start`` batches of the first epoch are skipped, where a resumed run continues. ``len`` stays that of a whole
    epoch, as Lightning expects.
    """

    def __init__(
        self, num_examples: int, batch_size: int, seed: int, rank: int, world_size: int, epoch: int = 0, start: int = 0
    ):
        assert num_examples >= batch_size, "checked by the datamodule, with a remedy"
        assert batch_size % world_size == 0, "checked by the datamodule, with a remedy"
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return self.num_examples // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch, the resumed one included: that one keeps its start."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[Keys]:
        epoch = self.epoch
        order = np.random.default_rng(derive_seed(self.seed, epoch)).permutation(self.num_examples)
        for batch in range(self.start, len(self)):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(epoch, int(index)) for index in indices[self.rank :: self.world_size]]
