"""Processes that load data and cannot hand it on end, where they used to be waited for without end."""

import pytest
from torch.utils.data import DataLoader, Dataset

from genlab.data.workers import begin_worker
from genlab.errors import ResourceError
from genlab.machine.memory import enough_memory


class NobodyCanSend(Dataset):
    """Items that cannot be pickled, as tensors cannot where shared memory is full."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int):
        return lambda: index


def test_a_batch_that_cannot_be_handed_on_ends_its_worker(capfd) -> None:
    loader = DataLoader(NobodyCanSend(), batch_size=None, num_workers=1, worker_init_fn=begin_worker)
    with pytest.raises(RuntimeError, match=r"DataLoader worker .* exited unexpectedly"):
        next(iter(loader))
    assert capfd.readouterr() == ("", "")


def test_without_workers_nothing_is_handed_on() -> None:
    """What is advised where a worker has died."""
    with (
        pytest.raises(
            ResourceError, match=r"a process that loads data died at step 1, usually .* Try data\.num_workers=0"
        ),
        enough_memory("at step 1", "a smaller model"),
    ):
        next(iter(DataLoader(NobodyCanSend(), batch_size=None, num_workers=1, worker_init_fn=begin_worker)))
    with enough_memory("at step 1", "a smaller model"):
        assert len(list(DataLoader(NobodyCanSend(), batch_size=None, num_workers=0))) == 4
