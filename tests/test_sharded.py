"""Checkpoints that several processes write together: whole on any number of them, or not there."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from genlab.checkpoint import read, sharded_strategy
from genlab.checkpoint.read import load
from genlab.checkpoint.sharded_strategy import ShardedStrategy
from genlab.checkpoint.shards import gathered, shards_of, split
from genlab.errors import CheckpointError, NumericsError, StorageError
from genlab.files.atomic import partial_of, replace_folder
from ranks import on_ranks
from tiny_run import same

NAME = "examples=000000000008.ckpt"


def test_a_folder_takes_the_place_of_one_of_its_name(tmp_path: Path) -> None:
    """As where a step is saved before and after it was judged."""
    for text in ("before", "after"):
        partial = partial_of(tmp_path / NAME)
        partial.mkdir()
        (partial / "shard").write_text(text)
        replace_folder(partial, tmp_path / NAME)
    assert (tmp_path / NAME / "shard").read_text() == "after"
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def content(scale: float = 1.0) -> dict[str, Any]:
    """Rows that two ranks cannot share evenly, one that only the first has, and what is no tensor."""
    weights = {"a": scale * torch.arange(15.0).reshape(5, 3), "b": scale * torch.ones(1, 2), "c": torch.arange(4)}
    moments = {"state": {0: {"exp_avg": weights["a"] + 1, "step": torch.tensor(7.0)}}, "param_groups": [{"lr": 0.1}]}
    return {"state_dict": weights, "ema": {"a": weights["a"] / 2}, "optimizer_states": [moments],
            "progress": {"examples": 8}, "metrics": [{"step": 3, "loss": 0.5}]}  # fmt: skip


def shared_out(node: Any, mesh: Any) -> Any:
    """Float tensors sharded by rows, but for single numbers."""
    if isinstance(node, Tensor):
        if not node.is_floating_point() or node.dim() == 0:
            return node
        return distribute_tensor(node, mesh, [Shard(0)] if len(node) > 1 or len(mesh.mesh) == 2 else [Replicate()])
    if isinstance(node, dict):
        return {key: shared_out(value, mesh) for key, value in node.items()}
    return [shared_out(item, mesh) for item in node] if isinstance(node, list) else node


class Ranks(ShardedStrategy):
    """As it is in the middle of a run."""

    def __init__(self, rank: int):
        super().__init__(save_distributed_checkpoint=True)
        self.rank = rank

    @property
    def global_rank(self) -> int:
        return self.rank

    @property
    def world_size(self) -> int:
        return dist.get_world_size()


def save(rank: int, folder: str) -> list[str]:
    """Save, and twice more with a fault of the last process. -> what each of the three raised."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("data_parallel",))
    strategy = Ranks(rank)

    def attempt(whole: dict[str, Any]) -> str:
        state = shared_out(whole, mesh)
        try:
            strategy.save_checkpoint(state, Path(folder) / NAME)
        except (StorageError, NumericsError) as error:
            return f"{type(error).__name__}: {error}"
        assert same(gathered(state), whole)
        return ""

    said = [attempt(content())]
    not_finite = content(2)
    not_finite["ema"]["a"][4, 2] = torch.nan  # a row of the last rank
    said.append(attempt(not_finite))
    if rank == dist.get_world_size() - 1:
        sharded_strategy.write_flushed = disk_is_full  # type: ignore[assignment]
    return [*said, attempt(content(2))]


def disk_is_full(path: Path, write: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """A checkpoint that three processes have written, and what they said."""
    folder = tmp_path_factory.mktemp("run")
    return folder, on_ranks(3, folder, save, str(folder / "checkpoints"))


def test_saved_whole_by_all_or_by_none(saved: tuple[Path, list[list[str]]]) -> None:
    """What one process cannot write, none does: all say why, and what was there before stays."""
    run, said = saved
    assert all(words == said[0] for words in said)
    done, not_finite, full = said[0]
    assert not done
    assert not_finite.startswith("NumericsError: a shard is not finite after 8 examples, so it was not saved")
    assert full == f"StorageError: cannot write to {run / 'checkpoints'} (no space left on device)."
    path = run / "checkpoints" / NAME
    assert sorted(os.listdir(path)) == ["content.ckpt", *map(shards_of, range(len(said)))]
    assert same(load(path), content())
    assert read.saved(run) == [path]
    assert not list(run.rglob(".*"))


def test_every_damage_is_noticed(saved: tuple[Path, list[list[str]]], tmp_path: Path) -> None:
    path = tmp_path / NAME
    shutil.copytree(saved[0] / "checkpoints" / NAME, path)
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        for bad in (b"", good[: len(good) // 2], good[:300] + bytes([good[300] ^ 1]) + good[301:], None):
            file.unlink()
            if bad is not None:
                file.write_bytes(bad)
            with pytest.raises(CheckpointError):
                load(path)
            file.write_bytes(good)
    first, second = (path / shards_of(rank) for rank in (0, 1))
    second.write_bytes(first.read_bytes())
    with pytest.raises(CheckpointError, match=r"damaged \(a part of a tensor of shape \(5, 3\) is missing\)"):
        load(path)


def test_a_folder_cannot_ask_for_more_memory_than_it_fills(tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    tree = {"state_dict": {"w": {"__shard__": 0, "shape": [1 << 50]}}}
    torch.save({"content": tree, "world_size": 1}, folder / "content.ckpt")
    torch.save({"offsets": [[0]], "tensors": [torch.zeros(4)]}, folder / shards_of(0))
    with pytest.raises(CheckpointError, match="is missing"):
        load(folder)


def test_what_is_not_shared_out_stays_as_it_is() -> None:
    whole = content()
    rest, own = split(whole)
    assert same(rest, whole)
    assert own == {"offsets": [], "tensors": []}
