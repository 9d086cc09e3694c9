"""What a bad input gets: its one line and its exit code, nothing else on stderr, and no run folder before training.

The numbers are those of the list in the specification. 13 (a token outside of the vocabulary) cannot come about on a
command line: a model has the tokens of its tokenizer, and goes on with no other; tests/data/test_tokenizers.py has it.
"""

import os
import re
import shutil
import urllib.error
import warnings
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger

from genlab import cli
from genlab.checkpoint.read import saved
from genlab.run import assemble
from tiny_run import BARE, MLP, SHORT, only_run, train

HERE = __name__
IMAGES = (*SHORT, *MLP, "metrics/extractor=random", "data.cache_dir=cache")
TEXT = (*SHORT, "model=transformer", "data=text_file", "data.path=text.txt", "data.cache_dir=cache")
FOLDER = (*IMAGES, "data=image_folder", "data.root=images")
DIGITS = (*BARE, *MLP)
EARLY = "{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: train/los}"


class Raises(Callback):
    """Does to a run, in its third step, what is hard to have happen."""

    def __init__(self, what: str):
        self.what = what

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2 and self.what == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to\nallocate 2 GiB")
        if batch_idx == 2 and self.what == "poison":
            batch["image"][:] = float("nan")
        if batch_idx == 2 and self.what == "fault":
            raise LookupError("password=hunter2hunter2\nand more")

    @classmethod
    def override(cls, what: str) -> str:
        return f"+callbacks.raises={{_target_: {HERE}.Raises, what: {what}}}"


def picture(path: Path, width: int = 16, height: int = 16, **options: Any) -> bytes:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path.read_bytes()


def pictures() -> None:
    for i in range(12):
        picture(Path(f"images/{i:02}.jpg"), quality=95)


def truncated() -> None:
    pictures()
    for i in range(12):  # on either side of what is held out
        path = Path(f"images/{i:02}.jpg")
        path.write_bytes(path.read_bytes()[:700] if i in (3, 7) else path.read_bytes())


def of_other_size() -> None:
    pictures()
    picture(Path("images/99.png"), 30, 40)


def of_16_bits() -> None:
    pictures()
    Image.fromarray(np.zeros((16, 16), np.uint16)).save("images/11.png")


def no_network(*_: Any, **__: Any) -> Any:
    raise urllib.error.URLError("unreachable")


def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10, 10, 1000))


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(Path.cwd()))
    monkeypatch.setattr("urllib.request.urlopen", no_network)


def nothing() -> None:
    pass


# number: what is there, what is typed, the exit code, the line, whether training had begun
REFUSALS: dict[str, tuple[Callable[..., None], tuple[str, ...], int, str, bool]] = {
    "1": (nothing, (*DIGITS, "model=difusion"), 2,
          r"error: unknown model 'difusion'\. Did you mean 'diffusion'\? Available: (\w+, )*diffusion, .*\.", False),
    "2": (nothing, (*DIGITS, "modle=diffusion"), 2, r"error: unknown option 'modle'\. Did you mean 'model'\?", False),
    "3": (nothing, (*DIGITS, "trainer.max_epochs=ten"), 2,
          r"error: trainer\.max_epochs must be a whole number >= 1 or null, got 'ten'\.", False),
    "4": (nothing, (*SHORT, *MLP, "data=image_folder"), 2,
          r"error: data\.root has no value\. Set it: data\.root=/path/to/images", False),
    "5": (one_gpu, (*DIGITS, "trainer=auto", "trainer.accelerator=gpu", "trainer.devices=2"), 7,
          r"error: trainer\.devices=2 but this machine has 1 GPU\. Use trainer\.devices=1, or trainer=ddp_cpu for CPU "
          r"processes\.", False),
    "6": (nothing, (*DIGITS, "data.batch_size=64", "data.limit=10"), 2,
          r"error: data\.batch_size=64 is too large: the training set has 10 items\. Use data\.batch_size<=10\.",
          False),
    "7": (lambda: Path("images").mkdir(), FOLDER, 5,
          r"error: no images found in images \(looked for \.png .* \.webp .*, including subfolders\)\.", False),
    "8": (truncated, FOLDER, 5, r"error: cannot read image images/0[37]\.jpg \(truncated JPEG, 700 bytes\)\. Remove "
          r"it, or set data\.on_bad=skip \(max 0\.1 %\)\.", False),
    "9": (of_other_size, FOLDER, 5,
          r"error: images differ in size: images/99\.png is 30x40, expected 16x16\. Set data\.image_size=16\.", False),
    "10": (of_16_bits, FOLDER, 5, r"error: images/11\.png is 16-bit; only 8-bit images are read unless asked for\. Set "
           r"data\.bits=16 data\.channels=1\.", False),
    "11": (lambda: Path("text.txt").write_bytes(b"a\xe9bc" * 99), TEXT, 5, r"error: text\.txt is not UTF-8: byte 0xE9 "
           r"at offset 1 \(line 1\)\. Convert with: iconv -f LATIN1 -t UTF-8\.", False),
    "12": (lambda: Path("text.txt").touch(), TEXT, 5,
           r"error: text\.txt has 0 tokens; at least 65 are needed for data\.context=64\.", False),
    "14": (nothing, (*DIGITS, Raises.override("poison")), 6, r"error: the loss is not finite \(loss=nan; batch of "
           r"examples [\d, ]+\) at step 3, after 16 examples\. This step was not saved; the last good state: none\. "
           r"Lower model\.optimizer\.lr, or set trainer\.gradient_clip_val=1\.0\.", True),
    "15": (nothing, (*DIGITS, Raises.override("memory")), 7, r"error: out of GPU memory at step 3 \(batch 8\)\. Try "
           r"data\.batch_size=4 trainer\.accumulate_grad_batches=2 \(same effective batch\), or "
           r"trainer\.activation_checkpointing=true\.", True),
    "19": (lambda: Path("file").touch(), (*DIGITS, "outputs=file/x"), 4,
           r"error: cannot write to file/x \(not a directory\)\.", False),
    "19b": (full_disk, DIGITS, 4, r"error: \S+ has 0\.0 MB free; this run's checkpoints need about [\d.]+ MB\. Make "
            r"room, or choose another place with outputs=<folder>\.", False),
    "20": (offline, (*SHORT, *MLP, "data=cifar10", "data.root=data"), 5, r"error: CIFAR-10 is not in data/ and cannot "
           r"be downloaded \(no network\)\. Put cifar-10-python\.tar\.gz \(md5 c58f30108f718f92721af3b95e74349a\) "
           r"there\.", False),
    "21": (offline, (*DIGITS, "metrics=[fid]", "metrics/extractor=inception"), 7, r"error: the Inception weights for "
           r"FID are not here and cannot be downloaded\. Put weights-inception-[\w-]+\.pth into \S+, or use "
           r"metrics/extractor=random \(no download\)\.", False),
    "23": (nothing, (*DIGITS, f"+callbacks.early={EARLY}"), 2, r"error: the callback EarlyStopping monitors 'train/los'"
           r", which nothing logs\. Did you mean 'train/loss'\?", True),
    "unforeseen": (nothing, (*DIGITS, Raises.override("fault")), 1, r"error: LookupError: password=\*\*\* and more "
                   r"\(test_bad_input\.py, line \d+\)\. genlab did not expect this; GENLAB_TRACE=1 shows the "
                   r"traceback\.", True),
    "control characters": (nothing, (*DIGITS, r'outputs="a\x1b[31m"', "outputs='\x1b[31m'"), 2,
                           r"error: outputs must be a path without control characters, got '\\x1b\[31m'\.", False),
    "an error in two lines": (nothing, (*DIGITS, "seed=a\nerror: b"), 2, r"error: .*a error: b.*", False),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # cli.main sets it: put it back afterwards


def said(capfd: pytest.CaptureFixture[str], *arguments: str, exit_code: int) -> list[str]:
    """The lines on stderr, all but the progress of a training."""
    code = 0
    try:
        cli.main(["train", *arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("training ")]
    assert code == exit_code, lines
    return lines


@pytest.mark.parametrize("number", REFUSALS)
def test_a_bad_input_gets_one_line(
    number: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, typed, exit_code, line, begun = REFUSALS[number]
    prepare(monkeypatch) if prepare.__code__.co_argcount else prepare()
    (found,) = said(capfd, *typed, exit_code=exit_code)
    assert re.fullmatch(line, found), found
    assert (tmp_path / "outputs").exists() == begun
    assert not saved(only_run(tmp_path / "outputs")) if begun else True


def test_a_good_run_says_nothing_but_its_own(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor on a machine with SLURM, where Lightning has an advice for everyone."""
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert said(capfd, *DIGITS, "callbacks.samples.times=1", "callbacks.evaluation.times=1", exit_code=0) == []


# --- a run that is there ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*MLP, "callbacks.checkpoint.every_minutes=0", outputs=tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


class Evil:
    def __reduce__(self) -> Any:
        return shutil.rmtree, ("run",)


def test_16_damage_is_passed_over_with_a_warning(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    last, before = saved(run)
    last.write_bytes(last.read_bytes()[:41])
    lines = said(capfd, "run=run", "budget.value=112", exit_code=0)
    assert lines == [
        f"warning: checkpoint run/checkpoints/{last.name} is damaged (41 bytes). Using {before.name} instead."
    ]


def test_17_another_model(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (line,) = said(capfd, "run=run", "model.network.width=16", "budget.value=112", exit_code=3)
    assert line.startswith("error: the checkpoint of run was made by another model (network.")
    assert line.endswith(" there and (16, 16) here). Change model.* back, or start a new run.")


def test_18_a_finished_run(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert said(capfd, "run=run", exit_code=2) == [
        "error: run folder run already holds a finished run. Continue with a larger budget (budget.value=...), or "
        "start a new run."
    ]


def test_24_code(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in saved(run):
        torch.save({"state_dict": Evil()}, path)
    *warned, line = said(capfd, "run=run", "budget.value=112", exit_code=3)
    name = saved(run)[-1].name
    assert line == f"error: {name} contains code (global 'shutil.rmtree'); genlab loads weights only."
    assert [text.startswith("warning: checkpoint ") for text in warned] == [True]


class Silent(Logger):
    name, version, experiment = "silent", "", None

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...
    def log_metrics(self, *_: Any, **__: Any) -> None: ...


def test_22_no_wandb(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "_build_logger", lambda *_: Silent())
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://someone:canary-password@127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "")  # so that what is set meanwhile is undone
    monkeypatch.delenv("WANDB_MODE")
    (line,) = said(capfd, *DIGITS, "logger=[wandb]", exit_code=0)
    assert line.startswith("warning: W&B is unreachable at http://someone:***@127.0.0.1:9 (")
