"""``cpu.matmul``, ``cpu.attention`` and ``trainer.precision`` where they are ``auto``: the faster way on this machine.

Processors differ: on some, oneDNN multiplies float32 at twice the rate of torch's own library, on others at the same;
some have instructions for bfloat16, and others take longer with it. So both ways are timed for some milliseconds, in
turns, and the quickest of each counts. What is chosen is remembered for the machine, stands in the run's config, and so
is what the run is continued, sampled and evaluated with.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from genlab.data.array_cache import default_folder
from genlab.data.remembered import recall, remember
from genlab.errors import ConfigError
from genlab.files.regular_file import read_text
from genlab.machine.quick_cpu import Attention, Matmul, multiplied_by, quick_cpu
from genlab.model.network.attention import attend

AUTO = "auto"
_CHOSEN = "GENLAB_CPU_CHOICE"  # tells the processes that the first one starts what it chose
_ROUNDS = 6
_CLEARLY = 1.15  # times as fast as what is used otherwise
_BF16_CLEARLY = 1.2  # bfloat16 is also less exact
VALUES = {
    "cpu.matmul": ("onednn", "blas"),
    "cpu.attention": ("fused", "matrices"),
    "trainer.precision": ("32-true", "bf16-mixed"),
}
FIXED_BY = {"cpu.matmul": "GENLAB_MATMUL", "cpu.attention": "GENLAB_ATTENTION"}
# Rows, inputs and outputs of products as networks make them: of tokens, of wide layers, and of many positions.
_PRODUCTS = ((1024, 256, 256), (256, 512, 512), (4096, 64, 64))


def check_cpu(node: Any) -> None:
    """Raises ConfigError unless ``node``, a config's ``cpu``, has values for what can be chosen, and nothing else."""
    known = {path.partition(".")[2]: values for path, values in VALUES.items() if path.startswith("cpu.")}
    if not isinstance(node, Mapping) or not node.keys() <= known.keys():
        raise ConfigError(f"cpu has {' and '.join(known)}, got {node!r}.")
    for name, value in node.items():
        if value not in (AUTO, *known[name]):
            raise ConfigError(f"cpu.{name} must be {' or '.join((*known[name], AUTO))}, got {value!r}.")


@contextmanager
def computed_alike(config: DictConfig, trial: Trainer, model: LightningModule) -> Iterator[None]:
    """Within, all processes of a run compute as its first one chose, which is put into ``config``.

    Where others than this one start processes, the group has been set up (see ``folder_of_all_ranks``).
    """
    on_cpu, told = trial.strategy.root_device.type == "cpu", os.environ.get(_CHOSEN)
    if told is not None:
        chosen = json.loads(told)
    else:
        chosen = chosen_for(config, on_cpu) if trial.is_global_zero else {}
        environment = getattr(trial.strategy, "cluster_environment", None)
        if environment is not None and environment.creates_processes_externally:
            chosen = trial.strategy.broadcast(chosen)
    put(chosen, config)
    if trial.is_global_zero and "trainer.precision" in chosen:
        print(f"precision:  {chosen['trainer.precision']}, chosen for this machine")
    os.environ[_CHOSEN] = json.dumps(chosen)
    try:
        with quick_cpu(on_cpu, **of_run(config)):
            yield
    finally:
        if told is None:
            del os.environ[_CHOSEN]


def put(chosen: Mapping[str, str], config: Any) -> None:
    for path, value in chosen.items():
        node, _, name = path.rpartition(".")
        config[node][name] = value


def of_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for :func:`quick_cpu`. Runs from before these could be chosen do not say."""
    asked = {"matmul": "onednn", "attention": "fused"} | dict(config.get("cpu") or {})
    chosen = chosen_for({"cpu": asked, "trainer": {}}, on_cpu=True)  # files are measured without a run
    return {name: chosen.get(f"cpu.{name}", value) for name, value in asked.items()}


def chosen_for(config: Mapping[str, Any], on_cpu: bool) -> dict[str, str]:
    """Values by path for what is ``auto`` in ``config``."""
    asked = config.get("cpu") or {}
    found = {f"cpu.{name}": value for name, value in asked.items() if value == AUTO}
    if config["trainer"].get("precision") == AUTO:
        found["trainer.precision"] = AUTO
    if not found:
        return {}
    fixed = {path: _fixed(path) for path in found}
    if not on_cpu:
        usual = {"cpu.matmul": "onednn", "cpu.attention": "fused", "trainer.precision": _of_gpu()}
        return {path: usual[path] for path in found}
    best = {} if all(fixed.values()) else remembered()
    return {path: value or best[path] for path, value in fixed.items()}


def _fixed(path: str) -> str | None:
    """What the environment says, for all runs of a shell or a test."""
    variable = FIXED_BY.get(path, "")
    value = os.environ.get(variable)
    if value and value not in VALUES[path]:
        raise ConfigError(f"{variable}={value}: it must be {' or '.join(VALUES[path])}.")
    return value or None


def _of_gpu() -> str:
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(False) else "32-true"


def remembered() -> dict[str, str]:
    """The faster ways on this machine, timed once for each version of torch and number of threads."""
    said = [_processor(), torch.__version__, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()]
    key = f"cpu-{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]}"
    found = recall(default_folder(), key) or {}
    if not all(found.get(path) in values for path, values in VALUES.items()):
        found = timed()
        remember(default_folder(), key, found)
    return found


def timed() -> dict[str, str]:
    """The faster ways now: takes a fifth of a second."""
    matmul = faster_matmul()
    precision = "bf16-mixed" if bfloat16_is_faster(matmul) else "32-true"
    return {"cpu.matmul": matmul, "cpu.attention": faster_attention(matmul), "trainer.precision": precision}


def faster_matmul() -> Matmul:
    """oneDNN, unless torch's own library is clearly faster, or it is not exact here."""
    with multiplied_by("onednn"):
        precision = torch.get_float32_matmul_precision()

    def by(precision: str, a: Tensor, b: Tensor) -> Callable[[], Tensor]:
        def way() -> Tensor:
            torch.set_float32_matmul_precision(precision)
            return a @ b

        return way

    if precision == (before := torch.get_float32_matmul_precision()):
        return "blas"
    try:
        spent = [_quickest([by(before, a, b), by(precision, a, b)]) for a, b in _factors()]
    finally:
        torch.set_float32_matmul_precision(before)
    blas, onednn = map(sum, zip(*spent, strict=True))
    return "blas" if blas * _CLEARLY < onednn else "onednn"


def faster_attention(matmul: Matmul) -> Attention:
    """Torch's fused kernel, which needs no memory for scores, unless products and a softmax are clearly faster."""
    query, key, value = torch.randn(3, 4, 4, 256, 32, generator=torch.Generator().manual_seed(0)).unbind()

    def by(fused: bool) -> Callable[[], Tensor]:
        def way() -> Tensor:
            torch.backends.cuda.enable_flash_sdp(fused)
            return attend(query, key, value)

        return way

    with quick_cpu(True, matmul):
        fused, matrices = _quickest([by(True), by(False)])
    return "matrices" if matrices * _CLEARLY < fused else "fused"


def bfloat16_is_faster(matmul: Matmul) -> bool:
    """Whether autocast makes products clearly faster, the conversion of both factors included."""

    def in_bfloat16(a: Tensor, b: Tensor) -> Tensor:
        return a.bfloat16() @ b.bfloat16()

    with multiplied_by(matmul):
        spent = [_quickest([partial(torch.matmul, a, b), partial(in_bfloat16, a, b)]) for a, b in _factors()]
    whole, half = map(sum, zip(*spent, strict=True))
    return half * _BF16_CLEARLY < whole


def _factors() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for rows, inputs, outputs in _PRODUCTS:
        yield torch.randn(rows, inputs, generator=generator), torch.randn(inputs, outputs, generator=generator)


def _quickest(ways: Sequence[Callable[[], Tensor]]) -> list[float]:
    """Seconds of each way, at its quickest, in turns."""
    spent = [float("inf")] * len(ways)
    with torch.no_grad():
        for _ in range(_ROUNDS):
            for i, way in enumerate(ways):
                began = time.perf_counter()
                way()
                spent[i] = min(spent[i], time.perf_counter() - began)
    return spent


def _processor() -> str:
    """Its model, as the system names it."""
    try:
        lines = read_text(Path("/proc/cpuinfo")).splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.processor())
