"""One model on all ranks, also in what it keeps beside its weights."""

from pathlib import Path

import torch
from torch import nn

from genlab.callbacks.shared_buffers import share_buffers
from ranks import on_ranks


def of_rank(rank: int) -> dict[str, torch.Tensor]:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm1d(5), nn.Linear(2, 2))
    for number, buffer in enumerate(model.buffers(), 1):
        buffer.fill_(number + 10 * rank)
    nn.init.constant_(model[2].weight, rank)
    share_buffers(model)
    return dict(model.state_dict())


def test_the_first_ranks_buffers_are_everyones(tmp_path: Path) -> None:
    first, second = on_ranks(2, tmp_path, of_rank)
    names = [name for name in first if "running" in name or "batches" in name]
    assert [int(second[name].flatten()[0]) for name in names] == [1, 2, 3, 4, 5, 6]
    assert all(torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in names)
    assert second["2.weight"][0, 0] == 1, "weights are left alone"
