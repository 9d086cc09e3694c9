"""Reads a run's checkpoints, without running any code in them. There is no other loader."""

import os
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genlab.checkpoint.shards import CONTENT, joined, shards_of
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.errors import CheckpointError
from genlab.files.regular_file import (
    LARGEST_CHECKPOINT,
    LONGEST_NAME,
    IrregularFileError,
    is_folder,
    open_regular,
    read_text,
)
from genlab.model.averages import load_averages
from genlab.model.base import Model, Progress
from genlab.model.elsewhere import own_weights
from genlab.model.renamed_weights import renamed
from genlab.redaction import one_line

FOLDER = "checkpoints"
NEWEST = "newest"  # a file that holds the name of the newest checkpoint, so that its absence is noticed

_NAME = re.compile(r"examples=\d{12,}\.ckpt")
_MOST_TRIED = 100  # damaged checkpoints to skip before giving up


def file_name(examples: int) -> str:
    return f"examples={examples:012d}.ckpt"


def saved(run_dir: Path) -> list[Path]:
    """A run's checkpoints, the newest first."""
    return sorted((run_dir / FOLDER).glob("examples=*.ckpt"), reverse=True) if is_folder(run_dir / FOLDER) else []


def load(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint, a file or a folder of shards. The only loader: weights and plain values, no code, no
    fallback.

    Raises:
        CheckpointError: missing, damaged (one flipped bit is found), or holding anything but tensors and plain values.
    """
    if not is_folder(path):
        return _load_file(path, map_location)
    content = _load_file(path / CONTENT, map_location)
    try:
        return joined(content["content"], (_load_file(path / shards_of(rank)) for rank in range(content["world_size"])))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged ({one_line(error)}).") from error


def _load_file(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_regular(path, largest=LARGEST_CHECKPOINT) as file:
                if zipfile.is_zipfile(file):
                    with zipfile.ZipFile(file) as archive:
                        declared = sum(member.file_size for member in archive.infolist())
                        # torch.save does not compress, and torch.load does not look at the checksums
                        if declared > os.fstat(file.fileno()).st_size or archive.testzip() is not None:
                            raise zipfile.BadZipFile
                file.seek(0)
                return torch.load(file, map_location=map_location, weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}.") from error
    except IrregularFileError as error:
        raise CheckpointError(f"{path} {error.strerror}.") from error
    except Exception as error:  # damaged and malicious files fail in any way
        named = re.search(r"(?:GLOBAL|[Gg]lobal):?\s+(?:GLOBAL\s+)?([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and named:
            raise CheckpointError(
                f"{path.name} contains code (global '{named[1]}'); genlab loads weights only."
            ) from error
        raise CheckpointError(f"{path} is damaged ({path.stat().st_size} bytes).") from error


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read."""

    path: Path
    content: Mapping[str, Any]

    @property
    def state(self) -> Mapping[str, torch.Tensor]:
        return self.content["state_dict"]

    @property
    def progress(self) -> Progress:
        return Progress(**self.content["progress"])

    @property
    def epochs(self) -> int:
        """Completed epochs."""
        loops = self.content["loops"]["fit_loop"]
        last_batch = loops["epoch_loop.batch_progress"]["is_last_batch"]  # saved before Lightning counts its epoch
        return loops["epoch_progress"]["current"]["completed"] + bool(last_batch)

    @property
    def step(self) -> int:
        """Batches logged before it was written."""
        return self.content["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] + 1

    @property
    def data(self) -> dict[str, str]:
        """The fingerprint of the data it was trained on; empty where none was saved. Earlier versions saved only that
        of text."""
        found = self.content.get("data", {"text": self.content["text"]} if "text" in self.content else {})
        return {str(part): str(value) for part, value in found.items()}


def newest(run: Path) -> Saved:
    """The newest checkpoint of a run that can be read; damaged or missing ones are skipped with a warning.

    Raises:
        CheckpointError: there is none among the newest 100.
    """
    found = saved(run)
    if not found:
        raise CheckpointError(f"run folder {run} holds no checkpoint.")
    if found[0].name < (named := _noted(run / FOLDER / NEWEST)):
        print(
            one_line(f"warning: checkpoint {run / FOLDER / named} is missing. Using {found[0].name} instead."),
            file=sys.stderr,
        )
    found = found[:_MOST_TRIED]
    for path, earlier in zip(found, [*found[1:], None], strict=True):
        try:
            return _checked(Saved(path, load(path)))
        except CheckpointError as error:
            if earlier is None:
                raise
            print(one_line(f"warning: checkpoint {error} Using {earlier.name} instead."), file=sys.stderr)
    raise AssertionError("the loop returns or raises")


def _noted(record: Path) -> str:
    """The name in ``newest``; "" if there is none, with a warning if something else is there."""
    try:
        name = read_text(record, largest=LONGEST_NAME, errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        print(one_line(f"warning: {record} {error.strerror}; it is ignored."), file=sys.stderr)
        return ""
    if not _NAME.fullmatch(name):
        print(one_line(f"warning: {record} does not name a checkpoint; it is ignored."), file=sys.stderr)
        return ""
    return name


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is a dense tensor: not sparse, quantized or on the meta device."""
    return tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_meta


def _checked(last: Saved) -> Saved:
    """Raises CheckpointError if what was read is not what a run saves."""
    try:
        ema = last.content.get("ema", {})
        for name, tensor in (*last.state.items(), *ema.items()):
            if not (isinstance(name, str) and isinstance(tensor, torch.Tensor) and _is_plain(tensor)):
                raise ValueError(f"{name} is not a tensor")
            if last.state.get(name, tensor).shape != tensor.shape:
                raise ValueError(f"the average of {name} has another shape")
        _ = last.data
        for row in last.content.get("metrics", []):
            _ = int(row["step"]), [float(value) for value in row.values()]  # values from the file are text
        counts = {**asdict(last.progress), "epochs": last.epochs, "step": last.step}
        for name, count in counts.items():
            whole = name not in ("flops", "seconds", "fraction")
            if not (type(count) is int or (type(count) is float and not whole)) or not 0 <= count < float("inf"):
                raise ValueError(f"{name} is {count!r}")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        cause = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{last.path} is not what a run saves ({cause}).") from error
    return last


def check_same_model(model: nn.Module, state: Mapping[str, torch.Tensor], run: Path) -> None:
    """Raises CheckpointError if the weights in ``state`` are not those of a model like ``model``."""
    own = model.state_dict()
    state = renamed(own_weights(model, state), own)
    for name in [*own, *state]:
        if name not in own or name not in state or own[name].shape != state[name].shape:
            theirs = tuple(state[name].shape) if name in state else "missing"
            ours = tuple(own[name].shape) if name in own else "missing"
            raise CheckpointError(
                f"the checkpoint of {run} was made by another model ({name} is {theirs} there and {ours} here). "
                "Change model.* back, or start a new run."
            )


def check_same_tokenizer(last: Saved, tokenizer: CaptionTokenizer, run: Path) -> None:
    """Raises CheckpointError if ``tokenizer`` does not give the tokens that the model in ``last`` was trained on."""
    theirs, ours = last.content.get("tokenizer"), tokenizer.fingerprint()
    if theirs != ours:
        raise CheckpointError(
            f"the tokenizer is not that of the checkpoint of {run} (fingerprint {ours}, there {theirs}). "
            "Change data.* back, restore the run's tokenizer.json, or start a new run."
        )


def load_for_sampling(model: Model, last: Saved, run: Path) -> str:
    """Load a checkpoint's weights into a model, averages replacing them where there are any. Returns "ema",
    "best" (``callbacks.best``) or "raw"."""
    check_same_model(model, last.state, run)
    own = model.state_dict()
    model.load_state_dict(renamed(own_weights(model, last.state), own))
    averages = renamed(last.content.get("ema", {}), own)
    load_averages(model, averages)
    return last.content.get("ema_kind", "ema") if averages else "raw"
