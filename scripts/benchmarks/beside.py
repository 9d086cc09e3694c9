"""genlab in a process of its own, beside peers in this one, which stays as torch started it.

What genlab sets holds for a whole process: the library that multiplies matrices, the memory that is kept. A peer in the
same process would have it too. On a GPU, where a process cannot be forked, all is in one.
"""

import io
import multiprocessing
import os
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks import product
from benchmarks.time_by_kind import time_by_kind
from benchmarks.timing import Measured, Side, in_turns, once

Begin = Callable[[Any], Mapping[str, Side]]  # from what a model is, its weights or None to what peers do in a turn


def in_turns_beside(
    ours: Mapping[str, Side],
    theirs: Mapping[str, Side],
    rounds: int,
    seconds: float,
    device: str = "cpu",
    profiled: bool = True,
) -> Measured:
    """As :func:`in_turns`, with genlab's sides under the settings of its commands. ``profiled``: on a CPU it is seen
    afterwards where their time goes."""

    def work(begin: Begin) -> Measured:
        with product.settings(device):
            measured = in_turns({**ours, **begin(None)}, rounds, seconds, device)
            if device == "cpu" and profiled:
                measured.by_kind = {name: time_by_kind(run) for name, run in ours.items()}
            return measured

    return beside(work, lambda _: theirs, device)


def training_beside(
    overrides: tuple[str, ...], peers: Begin, rounds: int, steps: int, device: str = "cpu", apart: bool = True
) -> Measured:
    """A training by genlab's command, with a step of each peer between its steps. -> seconds a step.

    ``apart``: peers are in this process; else in that of the training, under its settings.
    """

    if device == "cuda" or not apart:
        here = partial(product.training_in_turns, overrides, peers, rounds, steps, device, peers_are_here=True)
        return beside(lambda _: here(), peers, device)

    def work(begin: Begin) -> Measured:
        return product.training_in_turns(overrides, lambda model: begin(model.state_dict()), rounds, steps, device)

    def make_peers(weights: Any) -> Mapping[str, Side]:
        model = product.built(*overrides)
        model.load_state_dict(weights)
        return peers(model)

    return beside(work, make_peers, device)


def beside(work: Callable[[Begin], Measured], make_peers: Begin, device: str) -> Measured:
    """What ``work`` returns, which is done in a process of its own and calls for the peers' turns, which are made here.

    Raises RuntimeError, with the traceback, if that process fails.
    """
    if device == "cuda":
        return work(make_peers)
    here, there = multiprocessing.Pipe()
    child = os.fork()
    if child == 0:
        here.close()
        _work(work, there)
    there.close()
    try:
        with product.silence():
            return _serve(here, make_peers, device)
    finally:
        here.close()
        os.waitpid(child, 0)


def _work(work: Callable[[Begin], Measured], asked: Connection) -> None:
    """In the process of genlab, which ends with this."""

    def turn(name: str) -> Any:
        asked.send(("turn", name))
        return asked.recv()

    def begin(given: Any) -> Mapping[str, Side]:
        asked.send(("begin", _packed(given)))
        return {name: partial(turn, name) for name in asked.recv()}

    try:
        try:
            told: tuple[str, Any] = "end", work(begin)
        except BaseException:
            told = "failed", traceback.format_exc()
        asked.send(told)
    finally:
        os._exit(0)  # nothing of the process that it was forked from is flushed or cleaned up twice


def _serve(asked: Connection, make_peers: Begin, device: str) -> Measured:
    sides: Mapping[str, Side] = {}
    while True:
        kind, given = asked.recv()
        if kind == "begin":
            sides = make_peers(_unpacked(given))
            asked.send(list(sides))
        elif kind == "turn":
            asked.send(once(sides[given], device))
        elif kind == "end":
            assert isinstance(given, Measured)
            return given
        else:
            raise RuntimeError(f"genlab's side failed: {given}")


def _packed(given: Any) -> bytes:
    """None, or a state dict."""
    file = io.BytesIO()
    torch.save(given, file)
    return file.getvalue()


def _unpacked(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=True)
