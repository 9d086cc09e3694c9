"""A few training steps in a process of its own: prints their seconds and memory as JSON."""

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import genlab  # noqa: F401  before torchvision, which it mends beside a CPU build of torch

STEPS, LONG = 4, 5.0  # after the first, which makes what is kept; of steps of so many seconds, one


def measure(overrides: list[str], batch: int, checkpointed: bool, device: str) -> dict[str, float]:
    """Memory is what the process has at most, above what it has once the model is made: gradients, the optimizer's
    state, activations. The times are those of a step: forward, backward and fused AdamW."""
    import torch
    import torch._dynamo  # which checkpointing asks whether something is compiled: its import is no step's memory

    from benchmarks.floor import operations
    from benchmarks.product import built, settings
    from benchmarks.timing import once

    torch.set_num_threads(1)
    with settings(device):
        model = built(*overrides, f"trainer.activation_checkpointing={str(checkpointed).lower()}").to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        given = {key: value.to(device) for key, value in examples(model, batch).items()}

        def step() -> None:
            optimizer.zero_grad()
            model.losses(given)["loss"].backward()
            optimizer.step()

        model.zero_grad()
        before = memory(device)
        spent = [once(step, device)]
        while len(spent) < 1 + (1 if spent[0].cpu > LONG else STEPS):
            spent.append(once(step, device))
        peak = peak_memory(device)
    return {
        "cpu": statistics.median(one.cpu for one in spent[1:]),
        "wall": statistics.median(one.wall for one in spent[1:]),
        "memory": peak - before,
        "parameters": sum(p.numel() for p in model.parameters()),
        "flops": operations(step),
    }


def examples(model: Any, count: int) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    if model.key == "image":
        return {"image": torch.rand(count, *model.shape) * 2 - 1, "index": torch.arange(count)}
    return {"tokens": torch.randint(model.vocab_size, (count, model.shape[0] + 1)), "index": torch.arange(count)}


def memory(device: str) -> int:
    return _status("VmRSS") if device == "cpu" else _of_gpu("memory_allocated")


def peak_memory(device: str) -> int:
    return _status("VmHWM") if device == "cpu" else _of_gpu("max_memory_allocated")


def _of_gpu(what: str) -> int:
    import torch

    return int(getattr(torch.cuda, what)())


def _status(name: str) -> int:
    """Bytes, of Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
