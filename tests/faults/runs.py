"""The runs that are harmed: one small run of every family, and what it comes to if nobody harms it."""

import csv
import fcntl
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from faults.disk import fill_up
from faults.life import KILLED, Life, Shared, on_ranks
from genlab.budget import Budget
from genlab.checkpoint import read
from genlab.checkpoint.sharded_strategy import ShardedStrategy
from genlab.checkpoint.write import AtomicCheckpointIO
from genlab.config.build import resolve
from genlab.config.tree import PACKAGED, ConfigTree
from text import text_file
from tiny_run import NEEDS_CAPTIONS, NEEDS_TEXT, command, families, same, small

# A grid and an evaluation halfway and at the end, a checkpoint after every step.
EVENTFUL = ("callbacks.checkpoint.every_minutes=0", "callbacks.evaluation.times=2", "callbacks.samples.times=2",
            "callbacks.evaluation.num_samples=4")  # fmt: skip
OF_IMAGES = ("metrics=[kid]", "metrics/extractor=random", "metrics.kid.subset_size=3", "metrics.kid.num_subsets=2")
STEPS, BATCH = 13, 8  # of a whole run
CLOCKS = {"progress/seconds", "speed/data_wait", "speed/mfu"}
SHARDED = ("trainer=fsdp", "trainer.accelerator=cpu", "trainer.precision=32-true",
           "trainer.strategy.process_group_backend=gloo")  # fmt: skip


@cache
def variants() -> tuple[str, ...]:
    """Every family that begins with nothing, on images and on text where it can be, and the consistency objective."""
    return tuple(
        name
        for family in (*families(), "consistency")
        for name in (family, *([f"{family}-text"] if {"tokens", "continuous"} <= kinds(family) else []))
    )


@cache
def kinds(family: str) -> frozenset[str]:
    targets = dict(ConfigTree().targets("model"))
    return resolve(targets.get(family, targets["diffusion"]), "model").kinds  # type: ignore[attr-defined]


class Runs:
    """Makes the references, once, under a folder that all trials share."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def overrides(self, variant: str, ranks: int = 1) -> tuple[str, ...]:
        """What gives the run of ``variant``."""
        return (*self._of_variant(variant), *(["trainer=ddp_cpu"] if ranks > 1 else []))

    def sharded(self) -> tuple[str, ...]:
        """What gives a run whose weights two processes share."""
        network = ("model/network=dit", "model.network.width=16", "model.network.depth=2", "model.network.num_heads=1")
        return (*small("model=diffusion", *network), *EVENTFUL, *OF_IMAGES, *SHARDED)

    def sharded_reference(self) -> Path:
        return self._run("sharded-2", self.sharded(), ranks=2)

    def _of_variant(self, variant: str) -> tuple[str, ...]:
        family, _, on_text = variant.partition("-")
        if on_text:
            return (*small(f"model={family}", *text_file(self.folder / "text")), *EVENTFUL, "metrics=[perplexity]")
        if family == "consistency":
            choices = ("model=diffusion", "model/objective=consistency", "model/sampler=consistency")
        else:
            choices = (f"model={family}",)
        written = "" if family == "consistency" else (PACKAGED / "model" / f"{family}.yaml").read_text()
        if "[no_samples]" in written:  # it makes none
            silent = (line for line in EVENTFUL if not line.startswith("callbacks.samples."))
            judged = "retrieval" if family in NEEDS_CAPTIONS else "accuracy"
            judged = "pseudo_perplexity" if family in NEEDS_TEXT else judged
            return (*small(*choices), *silent, f"metrics=[{judged}]")
        if "callbacks: [reconstructions]" in written:
            shown = (line for line in EVENTFUL if not line.startswith("callbacks.samples.rows"))
            return (*small(*choices), *shown, "metrics=[]")
        if "callbacks: [captions]" in written:
            return (*small(*choices), *EVENTFUL, "metrics=[cider]")
        if "tokens" in kinds(family):  # it draws pixel by pixel
            choices = (*choices, *self._few_pixels())
        if "autoencoder: ???" in written:
            choices = (*choices, f"model.autoencoder={self._autoencoder()}")
        return (*small(*choices), *EVENTFUL, *OF_IMAGES)

    def _few_pixels(self) -> tuple[str, ...]:
        path = self.folder / "tiny.npz"
        with self._once(path) as is_new:
            if is_new:
                images = np.random.default_rng(0).integers(0, 256, (80, 4, 4), dtype=np.uint8)
                np.savez(path, images=images, labels=np.arange(80) % 4)
        return ("data=array", f"data.path={path}", f"data.cache_dir={self.folder / 'cache'}")

    def _autoencoder(self) -> Path:
        return self._run("autoencoder", small("model=vae", "model.latent_shape=[2,4,4]"))

    def reference(self, variant: str, ranks: int = 1) -> Path:
        """The run folder of ``variant`` that nobody harmed."""
        return self._run(f"{variant}-{ranks}", self.overrides(variant, ranks), ranks)

    def half(self, variant: str) -> Path:
        """The run folder of ``variant`` that died in its tenth step."""
        return self._run(f"{variant}-half", self.overrides(variant), prepare=partial(dying_in, 10), code=KILLED)

    def _run(
        self,
        name: str,
        overrides: Sequence[str],
        ranks: int = 1,
        prepare: Callable[[], None] = lambda: None,
        code: int = 0,
    ) -> Path:
        folder = self.folder / name
        with self._once(folder) as is_new:
            if is_new:
                shutil.rmtree(partly := folder.with_name(f"{name}.unfinished"), ignore_errors=True)
                partly.mkdir()
                written = Shared()

                def first() -> None:
                    prepare()
                    fill_up(partly, None, written)

                def start(env: Mapping[str, str]) -> Life:
                    log = partly / f"life{env.get('RANK', '')}"
                    return Life(
                        ["train", *command(*overrides, outputs=partly)], log, {**self.env(partly), **env}, first
                    )

                began = time.monotonic()
                codes = on_ranks(ranks, start)
                assert codes == [code] * ranks, (codes, sorted(partly.glob("*.err"))[0].read_text())
                length = {"seconds": time.monotonic() - began, "bytes": written.get()}
                (partly / "length.json").write_text(json.dumps(length))
                partly.rename(folder)
        return next(folder.glob("*/*/config.yaml")).parent

    def env(self, temporary: Path) -> dict[str, str]:
        return {"TMPDIR": str(temporary), "GENLAB_CACHE": str(self.folder / "cache"), "WANDB_MODE": "offline"}

    @contextmanager
    def _once(self, path: Path) -> Iterator[bool]:
        """Under a lock: whether ``path`` is still to be made."""
        with path.with_name(f"{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield not path.exists()


def dying_in(step: int) -> None:
    """In a child: no more than that."""
    begin = Budget.on_train_batch_start

    def die(self: Budget, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if pl_module.progress.examples == (step - 1) * BATCH:
            os._exit(KILLED)
        begin(self, trainer, pl_module, batch, batch_idx)

    Budget.on_train_batch_start = die  # type: ignore[method-assign]


def length_of(reference: Path) -> dict[str, float]:
    """What a life is that nobody ends early: seconds, and bytes written."""
    return json.loads((reference.parents[1] / "length.json").read_text())


def end_state(run: Path) -> dict[str, Any]:
    """All of the newest checkpoint that must be equal: not its clock, nor how Lightning keeps its
    place; what was logged is compared apart."""
    content = dict(read.newest(run).content)
    content["progress"] = content["progress"] | {"seconds": None}
    return {key: value for key, value in content.items() if key not in ("loops", "callbacks", "metrics")}


def logged(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]


def summary(run: Path) -> Any:
    return json.loads((run / "summary.json").read_text())


def check_same_end(run: Path | None, reference: Path) -> None:
    """Bit for bit: weights, averages, optimizer state, what was logged, what was measured."""
    assert run is not None
    assert (run / "summary.json").exists(), "no summary.json"
    mine, theirs = end_state(run), end_state(reference)
    different = [key for key in mine.keys() | theirs.keys() if not same(mine.get(key), theirs.get(key))]
    assert not different, f"the end differs in {', '.join(sorted(different))}"
    mine_rows, their_rows = logged(run), logged(reference)
    steps = [row["step"] for row in their_rows]
    assert [row["step"] for row in mine_rows] == steps, f"metrics.csv has steps {[r['step'] for r in mine_rows]}"
    wrong = [row["step"] for row, other in zip(mine_rows, their_rows, strict=True) if row != other]
    assert not wrong, f"metrics.csv differs at steps {', '.join(wrong)}"
    assert summary(run)["metrics"] == summary(reference)["metrics"]
    assert not list(run.rglob("*.partial")), "partial files were left"


def temporary_folder(folder: Path, pid: int) -> Path:
    """TMPDIR of a trial's lives: on another disk than ``folder``, if there is one."""
    memory = Path("/dev/shm")
    return (memory if os.access(memory, os.W_OK) else folder) / f"faults-{pid}"


class Place:
    """Where a trial happens, and the lives that it starts there."""

    def __init__(self, folder: Path, runs: Runs, name: str):
        self.folder, self.runs, self.chance = folder, runs, random.Random(name)
        self.temporary = temporary_folder(folder, os.getpid())
        self.temporary.mkdir(parents=True)
        self.examples_saved = Shared()
        self._lives = 0

    def close(self) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)

    def outputs(self) -> Path:
        self._lives += 1
        folder = self.folder / f"outputs-{self._lives}"
        folder.mkdir()
        return folder

    def begin(self, outputs: Path, *overrides: str, **more: Any) -> Life:
        """Start a new run under ``outputs``."""
        self.examples_saved.set(0)
        return self.life(["train", *command(*overrides, outputs=outputs)], **more)

    def go_on(self, run: Path, *overrides: str, **more: Any) -> Life:
        return self.life(["train", f"run={run}", *overrides], **more)

    def life(
        self,
        arguments: Sequence[str],
        prepare: Callable[[], None] = lambda: None,
        env: Mapping[str, str] | None = None,
    ) -> Life:
        self._lives += 1

        def first() -> None:
            self._note_saves()
            prepare()

        env = self.runs.env(self.temporary) | dict(env or {})
        return Life(arguments, self.folder / f"life-{self._lives}", env, first)

    def _note_saves(self) -> None:
        """In a child: tell how many examples the newest checkpoint holds as soon as it is written."""
        save = AtomicCheckpointIO.save_checkpoint

        def noted(io: AtomicCheckpointIO, content: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            save(io, content, path, storage_options)
            self.examples_saved.set(content["progress"]["examples"])

        AtomicCheckpointIO.save_checkpoint = noted  # type: ignore[method-assign]
        save_shards = ShardedStrategy.save_checkpoint

        def noted_by_all(
            strategy: ShardedStrategy, content: dict[str, Any], path: Any, storage_options: Any = None
        ) -> None:
            save_shards(strategy, content, path, storage_options)
            self.examples_saved.set(content["progress"]["examples"])

        ShardedStrategy.save_checkpoint = noted_by_all  # type: ignore[method-assign]

    def check_saved(self, run: Path | None) -> None:
        """The newest checkpoint loads, and is the last one that was written; at most one file is half written."""
        examples = self.examples_saved.get()
        found = [] if run is None else read.saved(run)
        if examples:
            assert run is not None
            assert found, "a checkpoint had been written, and there is none"
            assert read.load(found[0])["progress"]["examples"] >= examples
        assert run is None or len(list(run.rglob("*.partial"))) <= 1, "partial files pile up"


def newest_run(outputs: Path) -> Path | None:
    """The run folder under ``outputs``, if there is one yet."""
    return next(outputs.glob("*/*"), None)


def finished(outputs: Path) -> bool:
    """Whether the run under ``outputs`` has come to its end."""
    return any(outputs.glob("*/*/summary.json"))


def begun(outputs: Path) -> Path | None:
    """The run under ``outputs`` that can be gone on with, if there is one yet."""
    for config in outputs.glob("*/*/config.yaml"):
        if read.saved(config.parent) and yaml.safe_load(config.read_text()):
            return config.parent
    return None
