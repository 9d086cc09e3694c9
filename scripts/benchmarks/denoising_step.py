"""A training step of denoisers, timed: forward, backward and fused AdamW, in each precision."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.beside import in_turns_beside
from benchmarks.floor import PRECISIONS, autocast
from benchmarks.options import Options
from benchmarks.timing import Measured, Side


def timed_steps(
    networks: Mapping[str, nn.Module],  # by side: "genlab" and its peers
    calls: Mapping[str, Callable[[], Tensor]],  # of each: its output for the batch
    target: Tensor,
    options: Options,
) -> Measured:
    """By side and precision, e.g. "genlab bf16"."""
    our_sides: dict[str, Side] = {}
    their_sides: dict[str, Side] = {}
    for name, network in networks.items():
        for precision, dtype in PRECISIONS.items():
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
            run = partial(step, calls[name], target, optimizer, dtype, options.device)
            (our_sides if name == "genlab" else their_sides)[f"{name} {precision}"] = run
    return in_turns_beside(our_sides, their_sides, options.rounds, options.seconds, options.device)


def step(
    call: Callable[[], Tensor], target: Tensor, optimizer: torch.optim.Optimizer, dtype: torch.dtype, device: str
) -> None:
    with autocast(dtype, device):
        loss = F.mse_loss(call().float(), target)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
