"""A function on several real processes, joined by gloo.

They are forked from a process that has imported what they need and computed nothing: to import it anew would take each
of them several seconds.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing


def on_ranks(world: int, folder: Path, body: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``body(rank, *arguments)`` returns on each of ``world`` ranks: plain values and tensors."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["genlab.planning.probe"])  # as plans do: there is one such process, the first's
    multiprocessing.start_processes(  # type: ignore[no-untyped-call]
        _rank, (world, str(folder), body, arguments), nprocs=world, start_method="forkserver"
    )
    return [torch.load(folder / f"result.{rank}", weights_only=True) for rank in range(world)]


def _rank(rank: int, world: int, folder: str, body: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    torch.save(body(rank, *arguments), f"{folder}/result.{rank}")
    dist.barrier()
    os._exit(0)  # gloo's threads outlive their group, and now and then abort an interpreter that winds down
