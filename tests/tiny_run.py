"""Runs of seconds, for the tests of everything around training."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

import genlab
from genlab.command import train as train_command
from genlab.config.build import resolve
from genlab.config.tree import PACKAGED, ConfigTree, check_complete
from genlab.data.image import to_float
from genlab.model.base import (
    Classifies,
    ComparesCaptions,
    GenerativeModel,
    HasCaptionLikelihood,
    HasFeatures,
    HasPseudoLikelihood,
    Model,
)
from genlab.run import run_folder
from genlab.run.assemble import check_config
from genlab.sampling.draw import sample_images
from genlab.seeding import RandomStream

REPOSITORY = Path(__file__).parents[1]
# AdamW, whose steps are quicker than Muon's on networks as small as this.
MLP = ("model/network=mlp", "model.network.width=8", "model.network.depth=1", "model.sampler.num_steps=2",
       "model/optimizer=adamw", "model.optimizer.betas=[0.9,0.99]")  # fmt: skip
UNET = ("model/network=unet", "model.network.channels=8", "model.network.channel_mult=[1,2]",
        "model.network.num_blocks=1", "model.network.attention_resolutions=[8]",
        "model.network.num_heads=1", "model.sampler.num_steps=2")  # fmt: skip
# 40 examples in batches of 8: 5 steps an epoch, 13 steps in all; nothing but the steps.
SHORT = ("trainer=cpu", "logger=[none]", "data.limit=40", "data.batch_size=8", "budget.value=104", "metrics=[]",
         "evaluation.num_samples=4", "callbacks.samples.times=0", "callbacks.evaluation.times=0",
         "trainer.log_every_n_steps=1")  # fmt: skip
BARE = ("data=digits", *SHORT, "callbacks.samples.rows=1", "callbacks.samples.columns=2")
# Of pictures with captions, for families that need some.
BARE_CAPTIONS = ("data=shapes", *SHORT, "data.image_size=16", "data.max_objects=1", "data.num_val=8",
                 "callbacks.samples.count=2")  # fmt: skip
BARE_TEXT = (*SHORT, "data.context=16", "callbacks.samples.count=2")
# Scenes with captions, for families that are trained on nothing else.
CAPTIONS = ("data=shapes", "data.image_size=16", "data.max_objects=1", "data.num_val=8")
NEEDS_CAPTIONS = ("contrastive_text",)
# Families that are put on the run of another.
ON_A_BASE = ("control", "concept")
NEEDS_TEXT = ("masked_language",)
# What makes a part small, by the name of the argument, wherever it stands below the model.
SMALL = {"width": 8, "channels": 8, "num_blocks": 1, "depth": 1, "num_heads": 1, "num_kv_heads": 1, "num_steps": 2,
         "latent_dim": 8, "shared_width": 4, "sample_length": 20, "num_likelihood_samples": 2, "style_width": 8,
         "channel_base": 64, "channel_max": 8, "widths": [8, 4], "prototypes": 16, "bottleneck": 4}  # fmt: skip


@cache
def families() -> tuple[str, ...]:
    """Those that begin with nothing, and learn from what nobody has judged: tests/test_judged.py and
    tests/test_on_a_base.py have the others."""
    known: list[tuple[str, Any]] = [(name, resolve(target, name)) for name, target in ConfigTree().targets("model")]
    return tuple(
        name for name, family in known if not family.learns_from and not family.begins_trained and name not in ON_A_BASE
    )


def bare(overrides: Sequence[str]) -> tuple[str, ...]:
    """What makes a run of the data that ``overrides`` choose tiny."""
    writes = any(f"/callbacks: [{kind}]" in _file("data", overrides) for kind in ("text", "conversations"))
    lines = BARE_TEXT if writes else BARE
    if "callbacks: [captions]" in _file("model", overrides):
        lines = BARE_CAPTIONS
    draws_nothing = "[no_samples]" in _file("model", overrides)
    if any(f"model={family}" in overrides for family in NEEDS_CAPTIONS) and not _file("data", overrides):
        lines = (*CAPTIONS, *lines[1:])
    if any(f"model={family}" in overrides for family in NEEDS_TEXT) and not _file("data", overrides):
        lines = ("data=python_docs", *BARE_TEXT)
    if {"model=captioner", "model/guidance=classifier_free"} <= {*overrides}:  # it begins without dropped pictures
        lines = (*lines, "model.condition_dropout=0.1")
    if "callbacks: [reconstructions]" in _file("model", overrides):
        lines = tuple(line for line in lines if not line.startswith("callbacks.samples.rows"))
    return tuple(line for line in lines if not (draws_nothing and line.startswith("callbacks.samples.")))


def _file(group: str, overrides: Sequence[str]) -> str:
    """What stands in the packaged file that ``overrides`` choose, if they do."""
    chosen = [override.removeprefix(f"{group}=") for override in overrides if override.startswith(f"{group}=")]
    path = PACKAGED / group / f"{chosen[-1] if chosen else ''}.yaml"
    return path.read_text() if path.exists() else ""


@cache
def small(*choices: str) -> tuple[str, ...]:
    """``choices``, and the overrides that make the model they choose small."""
    config = ConfigTree().compose([*bare(choices), *choices])
    return (*choices, *(f"{path}={value}".replace(" ", "") for path, value in shrunk(config.model, "model")))


def shrunk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The values that are to be small at ``path`` and below."""
    for key in node if isinstance(node, DictConfig) else ():
        below = f"{path}.{key}"
        if isinstance(node._get_node(key), DictConfig):
            yield from shrunk(node[key], below)
        elif key == "channel_mult":
            yield below, [1] * len(node[key])
        elif key in SMALL and not node._get_node(key)._is_interpolation():
            yield below, SMALL[str(key)]


def compose_small(*choices: str, outputs: Path) -> DictConfig:
    """What ``compose(*small(*choices))`` gives, in half the time."""
    config = ConfigTree().compose(command(*choices, outputs=outputs))
    for path, value in list(shrunk(config.model, "model")):
        OmegaConf.update(config, path, value)
    check_complete(config)
    check_config(config)
    return config


def command(*overrides: str, outputs: Path) -> list[str]:
    """A tiny run's overrides."""
    return [*bare(overrides), f"outputs={outputs}", *overrides]


def compose(*overrides: str, outputs: Path) -> DictConfig:
    config = ConfigTree().compose(command(*overrides, outputs=outputs))
    check_complete(config)
    check_config(config)
    return config


def train(*overrides: str, outputs: Path) -> Path:
    """Train in this process. -> the run folder."""
    config = compose(*overrides, outputs=outputs)
    train_command.train(config, command(*overrides, outputs=outputs))
    return Path(config.run_dir)


def resume(run: Path, *overrides: str, allow_changes: bool = False) -> None:
    """What ``train.py run=...`` does."""
    typed = run_folder.read_overrides(run)
    config = ConfigTree().change(run_folder.read_config(run), typed, overrides)
    check_config(config)
    train_command.train(config, [*typed, *overrides], run, allow_changes=allow_changes)


def answers(model: Model, data: Any) -> Tensor:
    """What a model that was trained on ``data`` is for: four samples, or captions, logits, vectors or features of
    images, or probabilities of tokens."""
    if isinstance(model, HasPseudoLikelihood):
        tokens = data.tokens("val")[: 4 * data.context].astype(np.int64).reshape(4, data.context)
        return model.pseudo_log_probs(torch.from_numpy(tokens))
    if isinstance(model, HasCaptionLikelihood):
        assert isinstance(model, GenerativeModel)
        pictures = {"image": to_float(torch.from_numpy(data.table("val").images[:4]))}
        return model.sample(4, pictures, RandomStream.for_samples(1, range(4)))
    if isinstance(model, GenerativeModel):
        return sample_images(model, range(4), seed=1)
    assert isinstance(model, HasFeatures)
    with torch.no_grad():
        images = to_float(torch.from_numpy(data.table("val").images[:4]))
        if isinstance(model, ComparesCaptions):
            return model.embed_images(images)
        return model.logits(images) if isinstance(model, Classifies) else model.features(images)


def only_run(outputs: Path) -> Path:
    (run,) = outputs.glob("*/*")
    return run


def start(*overrides: str, outputs: Path, **env: str) -> "subprocess.Popen[str]":
    """Train in another process, through train.py."""
    return popen([sys.executable, str(REPOSITORY / "train.py"), *command(*overrides, outputs=outputs)], **env)


def popen(command: list[str], **env: str) -> "subprocess.Popen[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    path = os.pathsep.join([str(Path(genlab.__file__).parents[1]), str(Path(__file__).parent)])
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=inherited | own | env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def same(a: Any, b: Any) -> bool:
    """Nested values, tensors to the last bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


class SignalAt(Callback):
    """Sends this process a signal during the step that starts at ``examples``."""

    def __init__(self, examples: int, number: int = signal.SIGINT):
        self.examples, self.number = examples, number

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if pl_module.progress.examples == self.examples and trainer.is_global_zero:
            os.kill(os.getpid(), self.number)

    @classmethod
    def override(cls, examples: int, number: int = signal.SIGINT) -> str:
        return f"+callbacks.signal={{_target_: tiny_run.SignalAt, examples: {examples}, number: {int(number)}}}"


class Fault(Callback):
    """What goes wrong on one rank, in the step that starts at ``examples``: it is killed, raises, or stalls."""

    def __init__(self, rank: int, kind: str, examples: int = 48):
        self.rank, self.kind, self.examples = rank, kind, examples

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank != self.rank or pl_module.progress.examples != self.examples:
            return
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "raises":
            raise ValueError("a bad day")
        time.sleep(600)

    @classmethod
    def override(cls, rank: int, kind: str) -> str:
        return f"+callbacks.fault={{_target_: tiny_run.Fault, rank: {rank}, kind: {kind}}}"


class Order(Callback):
    """Appends the indices of each batch to ``order.<rank>.txt`` in the run folder."""

    OVERRIDE = "+callbacks.order={_target_: tiny_run.Order}"

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        with (Path(trainer.default_root_dir) / f"order.{trainer.global_rank}.txt").open("a") as file:
            print(*batch["index"].tolist(), file=file)


def plain(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]
