"""GPT training: a run of genlab's command beside nanoGPT's loop, and steps of the network beside nanoGPT and GPT-2.

The weights of one side are copied into the other, and logits compared, before anything is timed. Where nanoGPT's folder
is not given, the peer is a plain loop over genlab's own network, written as one writes it.
"""

import copy
import string
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.beside import in_turns_beside, training_beside
from benchmarks.floor import PRECISIONS, autocast, matmul_rate, operations
from benchmarks.gpt_networks import (
    agreement,
    gpt2_parts,
    loss_of,
    nanogpt,
    nanogpt_weights,
    transformers_gpt2,
    transformers_weights,
)
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row
from benchmarks.timing import Side

VOCABULARY = 65  # characters of Tiny Shakespeare


def rows(options: Options) -> Iterator[Row | Skipped]:
    yield from whole_runs(options)
    yield from steps(options)


# --- a whole run ------------------------------------------------------------------------------------------------------


def whole_runs(options: Options) -> Iterator[Row | Skipped]:
    """nanoGPT's recipe for a CPU: with its logging, averaged weights, guards and checkpoints, without evaluation."""
    depth, width, context, batch = (options.size(*sizes) for sizes in ((4, 2), (128, 16), (64, 8), (12, 2)))
    heads = options.size(4, 2)
    with tempfile.TemporaryDirectory() as folder:
        text = write_text(Path(folder) / "text.txt", 200_000 if not options.quick else 4_000)
        for name, dtype in PRECISIONS.items():
            told: dict[str, Any] = {}
            make = partial(_loops, options, (depth, heads, width, context, batch), text, dtype, told)
            measured = training_beside(
                (
                    "data=text_file",
                    f"data.path={text}",
                    "data/tokenizer=characters",
                    "model=transformer",
                    "model/network=gpt2",
                    f"model.network.depth={depth}",
                    f"model.network.num_heads={heads}",
                    f"model.network.width={width}",
                    f"data.context={context}",
                    f"data.batch_size={batch}",
                    "model.network.bias=false",
                    "model.network.feed_forward.bias=false",
                    "model.network.norm.bias=false",
                    "model.optimizer.lr=1e-3",
                    "model.optimizer.betas=[0.9,0.99]",
                    "model.schedule.warmup=1200",
                    "trainer.gradient_clip_val=1.0",
                    f"trainer.precision={'32-true' if name == 'fp32' else 'bf16-mixed'}",
                ),
                make,
                options.rounds,
                options.size(20, 2),
                options.device,
            )
            rate = matmul_rate(dtype, options.device)
            for peer in list(measured)[1:]:
                yield row(
                    "gpt",
                    f"GPT {depth}x{heads}x{width}, a run, {name}",
                    measured,
                    peer,
                    told["agreement"],
                    aim={"fp32": 1.5, "bf16": 2.2}[name] if peer.endswith("fp32") else None,
                    floor=told["flops"] / rate,
                    device=options.device,
                    flops=told["flops"],
                    matmul_rate=rate,
                )


def _loops(
    options: Options, size: tuple[int, ...], text: Path, dtype: torch.dtype, told: dict[str, Any], model: Any
) -> dict[str, Callable[[], object]]:
    """nanoGPT's loop on nanoGPT's network, as its train.py has it: float32 on a CPU, whatever it is asked for; and with
    autocast where genlab has that. In ``told``: what was compared, and the FLOPs of a step."""
    depth, heads, width, context, batch = size
    _, vocabulary = model.network.embedding.weight.shape[::-1]
    try:
        network, name = nanogpt(options, vocabulary, depth, heads, width, context), "nanoGPT"
        nanogpt_weights(model.network, network)
    except peers.Missing:  # which the rows of steps say
        network, name = copy.deepcopy(model.network), "plain loop"
    network = network.to(options.device).train()
    tokens = torch.randint(vocabulary, (batch, context), device=options.device)
    told["agreement"] = agreement(model.network, network, tokens)
    told["flops"] = operations(lambda: loss_of(model.network, tokens, tokens).backward())
    model.zero_grad()
    characters = text.read_text()
    codes = {character: i for i, character in enumerate(sorted(set(characters)))}
    data = np.array([codes[character] for character in characters], dtype=np.uint16)
    sides = {f"{name} fp32": torch.float32, f"{name} bf16": torch.bfloat16}
    return {
        side: loop(copy.deepcopy(network), data, batch, context, precision, options.device)
        for side, precision in sides.items()
        if precision in (dtype, torch.float32)
    }


def loop(
    network: nn.Module, data: np.ndarray, batch: int, context: int, dtype: torch.dtype, device: str
) -> Callable[[], object]:
    """A step of nanoGPT's train.py: windows drawn with replacement, AdamW as it configures it, gradients clipped, a
    learning rate of each step, the loss printed every 10."""
    decayed = [p for p in network.parameters() if p.dim() >= 2]
    others = [p for p in network.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    fused = {"fused": True} if device == "cuda" else {}
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), **fused)
    made = 0

    def windows() -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(data) - context, (batch,)).tolist()
        x = torch.stack([torch.from_numpy(data[i : i + context].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + context].astype(np.int64)) for i in starts])
        if device == "cuda":
            return x.pin_memory().to(device, non_blocking=True), y.pin_memory().to(device, non_blocking=True)
        return x, y

    x, y = windows()

    def step() -> None:
        nonlocal made, x, y
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (made + 1) / 101)
        with autocast(dtype, device):
            loss = loss_of(network, x, y)
        x, y = windows()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if made % 10 == 0:
            print(f"iter {made}: loss {loss.item():.4f}")
        made += 1

    return step


# --- steps of the network ---------------------------------------------------------------------------------------------


def steps(options: Options) -> Iterator[Row | Skipped]:
    """Forward, backward and AdamW as each side configures it, on batches that are there."""
    depth, heads, width, context, batch = (
        options.size(*sizes) for sizes in ((6, 2), (6, 2), (384, 16), (256, 8), (16, 2))
    )
    work = f"GPT {depth}x{heads}x{width}, a step"
    ours = gpt2_parts(VOCABULARY, depth, heads, width, context).to(options.device).train()
    tokens = torch.randint(VOCABULARY, (batch, context + 1), device=options.device)
    x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    others: dict[str, nn.Module] = {}
    for name, make, copy_weights in (
        ("nanoGPT", partial(nanogpt, options), nanogpt_weights),
        ("transformers", transformers_gpt2, transformers_weights),
    ):
        try:
            network = make(VOCABULARY, depth, heads, width, context).to(options.device).train()
        except peers.Missing as missing:
            yield Skipped("gpt", f"{work}, {name}", str(missing))
            continue
        copy_weights(ours, network)
        others[name] = network
    if not others:
        others["plain loop"] = copy.deepcopy(ours)
    flops = operations(lambda: loss_of(ours, x, y).backward())
    agreements = {name: agreement(ours, network, x) for name, network in others.items()}

    our_sides: dict[str, Side] = {}
    their_sides: dict[str, Side] = {}
    for name, dtype in PRECISIONS.items():
        fused = torch.optim.AdamW(ours.parameters(), lr=1e-4, fused=True)
        our_sides[f"genlab {name}"] = partial(step, ours, fused, x, y, dtype, options.device)
        for peer, network in others.items():
            plain = torch.optim.AdamW(network.parameters(), lr=1e-4, **_fused(options.device))
            their_sides[f"{peer} {name}"] = partial(step, network, plain, x, y, dtype, options.device)
    measured = in_turns_beside(our_sides, their_sides, options.rounds, options.seconds, options.device)
    for name, dtype in PRECISIONS.items():
        rate = matmul_rate(dtype, options.device)
        for peer in others:
            for theirs in dict.fromkeys(("fp32", name)):
                aim = {"fp32": 1.3, "bf16": 2.5}[name] if peer == "nanoGPT" and theirs == "fp32" else None
                yield row(
                    "gpt",
                    f"{work}, {name}",
                    measured,
                    f"{peer} {theirs}",
                    agreements[peer],
                    ours=f"genlab {name}",
                    aim=aim,
                    floor=flops / rate,
                    device=options.device,
                    flops=flops,
                    matmul_rate=rate,
                )


def _fused(device: str) -> dict[str, bool]:
    return {"fused": True} if device == "cuda" else {}


def step(
    network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, dtype: torch.dtype, device: str
) -> None:
    with autocast(dtype, device):
        loss = loss_of(network, x, y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def write_text(path: Path, length: int) -> Path:
    """Text of 65 different characters: what Python's own documentation has, the rest of it replaced by spaces."""
    from pydoc_data.topics import topics

    kept = set((string.ascii_letters + string.digits + " .\n")[:VOCABULARY])
    joined = "\n".join(topics[key] for key in sorted(topics))[:length]
    path.write_text("".join(sorted(kept)) + "".join(c if c in kept else " " for c in joined), encoding="utf-8")
    return path
