"""VAE training: a run of genlab's command beside a plain loop over the same networks and loss."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.beside import training_beside
from benchmarks.floor import matmul_rate, operations
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Steps of a run with all that it does beside, but for samples and evaluation."""
    side, batch = options.size(32, 8), options.size(32, 4)
    with tempfile.TemporaryDirectory() as folder:
        images = np.random.default_rng(0).integers(0, 256, (options.size(2_000, 40), side, side, 3), dtype=np.uint8)
        np.save(Path(folder) / "images.npy", images)
        told: dict[str, Any] = {}
        measured = training_beside(
            (
                "data=array",
                f"data.path={folder}/images.npy",
                f"data.cache_dir={folder}/cache",
                f"data.batch_size={batch}",
                "model=vae",
            ),
            partial(_peer, images, batch, told, options.device),
            options.rounds,
            options.size(15, 2),
            options.device,
        )
    rate = matmul_rate(torch.float32, options.device)
    yield row(
        "vae",
        f"VAE, {side} px",
        measured,
        "plain loop",
        told["agreement"],
        aim=1.1,
        floor=told["flops"] / rate,
        device=options.device,
        flops=told["flops"],
        matmul_rate=rate,
        batch=batch,
    )


def _peer(
    images: np.ndarray, batch: int, told: dict[str, Any], device: str, model: Any
) -> dict[str, Callable[[], object]]:
    """The family's own networks and loss, its optimizer, and nothing else."""
    plain = copy.deepcopy(model)
    optimizer = plain.configure_optimizers()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    made = 0

    def step() -> None:
        nonlocal made
        rows = torch.randint(len(pixels), (batch,))
        real = pixels[rows].to(device).float() / 127.5 - 1
        (loss,) = (value for name, value in plain.losses({"image": real, "index": rows}).items() if name == "loss")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        made += 1
        if made % 50 == 0:
            print(f"step {made}: {loss.item():.4f}")

    told["agreement"] = "the same networks and loss"
    told["flops"] = operations(step)
    return {"plain loop": step}
