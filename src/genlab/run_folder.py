"""A run on disk: what was asked for, by which code on what machine, and what came of it.

``outputs/<model>-<data>/<time>-<id>/`` holds

    config.yaml     the resolved config: rebuilds the run without its data
    command.txt     every command that trained it, in order
    versions.json   code revision, package versions, hardware
    overrides.yaml  the choices and values typed, for continuing with another part
    tokenizer.json  of text: what the tokenizer has learnt
    metrics.csv, samples/, checkpoints/, summary.json
"""

import datetime
import json
import os
import platform
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml

from genlab.checkpoint import remove_partial_files, write_atomically
from genlab.config import redact
from genlab.errors import ConfigError, StorageError

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "torchmetrics", "torch-fidelity",
            "wandb", "numpy", "scikit-learn", "pillow", "safetensors")  # fmt: skip


TOKENIZER = "tokenizer.json"


def create(outputs: str, name: str) -> Path:
    """Make a new folder ``outputs/name/<time>-<id>``. Never one that exists. Raises StorageError."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    while True:
        folder = Path(outputs) / name / f"{stamp}-{secrets.token_hex(3)}"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(exist_ok=False)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"cannot write to {outputs} ({(error.strerror or str(error)).lower()}).") from error


def name_of(config: Mapping[str, Any]) -> str:
    """``<model>-<data>``, from the classes that are built."""
    model, data = (str(config[part]["_target_"]).rpartition(".")[2] for part in ("model", "data"))
    return f"{_snake(model)}-{_snake(data)}"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def find(run: str, option: str = "run") -> Path:
    """The folder of a finished or unfinished run that ``option`` names. Raises ConfigError."""
    folder = Path(run)
    if not (folder / "config.yaml").exists():
        raise ConfigError(
            f"{option}={run}: there is no run here (no config.yaml). Runs are in outputs/<model>-<data>/."
        )
    return folder


def show(config: Any) -> None:
    """Print the config once, as a tree."""
    from omegaconf import OmegaConf
    from rich.console import Console
    from rich.tree import Tree

    def grow(tree: Tree, node: Mapping[str, Any]) -> None:
        for key, value in node.items():
            if isinstance(value, Mapping) and value:
                name = str(value.get("_target_", "")).rpartition(".")[2]
                grow(tree.add(f"[bold]{key}[/]" + (f"  {name}" if name else "")), value)
            elif not str(key).startswith("_") and value != "???":
                tree.add(f"{key}: {value}")

    tree = Tree("[bold]config[/]", guide_style="dim")
    grow(tree, OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]
    Console(highlight=False, soft_wrap=True).print(tree)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(redact(text).encode("utf-8")))


def write_start(
    folder: Path, config: Mapping[str, Any], overrides: Sequence[str], tokenizer: str | None = None
) -> None:
    """What stands in the folder before the first step; what an earlier end of the run had left is no longer true."""
    remove_partial_files(folder)
    (folder / "summary.json").unlink(missing_ok=True)
    write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    write_text(folder / "overrides.yaml", yaml.safe_dump(list(overrides), allow_unicode=True))
    write_text(folder / "versions.json", json.dumps(versions(), indent=2))
    if tokenizer is not None:
        write_text(folder / TOKENIZER, tokenizer)
    commands = folder / "command.txt"
    before = commands.read_text(encoding="utf-8") if commands.exists() else ""
    write_text(commands, before + shlex.join(["python", *sys.argv]) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


def read_overrides(folder: Path) -> list[str]:
    return yaml.safe_load((folder / "overrides.yaml").read_text(encoding="utf-8"))


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    write_text(folder / "summary.json", json.dumps(summary, indent=2))


def versions() -> dict[str, Any]:
    """Code revision, package versions and hardware of this process."""
    import torch

    installed = {d.metadata["Name"].lower(): d.version for d in distributions() if d.metadata["Name"]}
    return {
        "genlab": installed.get("genlab"),
        "revision": _revision(),
        "python": platform.python_version(),
        "packages": {name: installed.get(name) for name in PACKAGES},
        "hardware": {
            "host": platform.node(),
            "platform": platform.platform(),
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "float32_matmul": torch.get_float32_matmul_precision(),  # medium: oneDNN's, found to be exact
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    }


def _revision() -> str | None:
    """The commit of a clone, marked if files differ from it; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changed.strip() else commit
