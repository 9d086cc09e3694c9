"""Run folders as genlab leaves them, written by hand: a few numbers, a grid of one color."""

import json
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

METRICS = {"fid_digits64_1k": 1.25, "kid_digits64_1k": 0.01, "kid_std_digits64_1k": 0.002,
           "precision_digits64_1k": 0.75, "nn_distance_ratio_1k": 1.1}  # fmt: skip
DIRECTIONS = {"fid": "lower", "kid": "lower", "kid_std": None, "precision": "higher", "nn_distance_ratio": "one"}
PROTOCOL = {"extractor": "digits64", "extractor_fingerprint": "7c4f", "shape": [1, 16, 16], "reference": "val",
            "reference_sha256": "39a3", "num_reference": 500, "num_samples": 1000, "seed": 0,
            "metrics": {"fid": {}, "kid": {"subset_size": 500}}, "weights": "ema"}  # fmt: skip
COSTS = {"examples": 64000, "flops": 2e12, "seconds": 152.26, "wall_seconds": 200.0, "parameters": 827745,
         "peak_memory_bytes": 852664320, "samples_per_second": 80.3}  # fmt: skip
BASELINES = {"floor": {"fid_digits64_1k": 0.76, "kid_digits64_1k": -0.01, "precision_digits64_1k": 0.92,
                       "nn_distance_ratio_1k": 0.0},
             "uniform_noise": {"fid_digits64_1k": 185.75, "kid_digits64_1k": 39.345, "precision_digits64_1k": 0.0,
                               "nn_distance_ratio_1k": 8.23}}  # fmt: skip


def config(**changes: Any) -> dict[str, Any]:
    """A diffusion run's config; ``model__optimizer__lr=1e-3`` changes a value of it."""
    made: dict[str, Any] = {
        "model": {"_target_": "genlab.model.diffusion.Diffusion", "seed": 0,
                  "network": {"_target_": "genlab.model.network.unet.UNet", "channels": 32},
                  "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.002}},
        "data": {"_target_": "genlab.data.digits.Digits", "batch_size": 64, "seed": 0},
        "budget": {"_target_": "genlab.budget.Examples", "value": 64000},
        "seed": 0,
    }  # fmt: skip
    for path, value in changes.items():
        *above, name = path.split("__")
        node = made
        for part in above:
            node = node[part]
        node[name] = value
    return made


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def measured(metrics: dict[str, float] | None, protocol: dict[str, Any] | None) -> dict[str, Any]:
    """METRICS and PROTOCOL with changes; names say the sample count that the protocol has."""
    changed = PROTOCOL | (protocol or {})
    count = changed["num_samples"]
    short = f"{count // 1000}k" if count % 1000 == 0 else str(count)
    values = {name.replace("_1k", f"_{short}"): value for name, value in (METRICS | (metrics or {})).items()}
    directions = {name: DIRECTIONS[base] for name in values for base in DIRECTIONS if name.startswith(f"{base}_")}
    return {"metrics": values, "protocol": changed, "directions": directions}


def make_run(
    folder: Path,
    metrics: dict[str, float] | None = None,  # instead of METRICS' own
    protocol: dict[str, Any] | None = None,  # likewise
    protocol_id: str | None = "aaaa1111",
    costs: dict[str, float] | None = None,
    finished: bool = True,
    color: str | None = "red",
    size: tuple[int, int] = (40, 30),
    gpus: tuple[str, ...] = (),
    **changes: Any,
) -> Path:
    """A run folder; ``changes`` are of its config."""
    write(folder / "config.yaml", yaml.safe_dump(config(**changes)))
    write(folder / "versions.json", {"hardware": {"cpu": "x86_64", "cores": 2, "gpus": list(gpus)}})
    numbers = measured(metrics, protocol) if protocol_id else {"metrics": {}, "protocol": {}}
    if finished:
        write(folder / "summary.json", {**numbers, "protocol_id": protocol_id, **COSTS, **(costs or {})})
    if color is not None:
        (folder / "samples").mkdir()
        Image.new("L", size).save(folder / "samples" / "examples=000000006400.png")
        Image.new("RGB", size, color).save(folder / "samples" / "examples=000000064000.png")
        Image.new("L", size).save(folder / "samples" / "seed=1-n=64.png")  # of `sample`: not of training
    return folder


def add_evaluation(
    run: Path,
    metrics: dict[str, float] | None = None,
    protocol: dict[str, Any] | None = None,
    protocol_id: str = "aaaa1111",
    baselines: dict[str, dict[str, float]] | None = None,
) -> None:
    """What scripts/evaluate.py leaves in a run's folder."""
    content = measured(metrics, protocol) | {"protocol_id": protocol_id, "baselines": baselines or {}}
    write(run / f"evaluation-{protocol_id}.json", content | {"samples_per_second": 80.0})
