"""Loads the model of a trained run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from genlab.checkpoint import read
from genlab.config.tree import resolved
from genlab.data import chat_template
from genlab.errors import CheckpointError, DataError
from genlab.files.regular_file import read_text
from genlab.model.base import Model
from genlab.run import run_folder
from genlab.run.assemble import build_model, load_tokenizer
from genlab.run.elsewhere import put_parts


def load_run(config: DictConfig, run: Path) -> tuple[Model, str]:
    """A run's model with the weights of its newest checkpoint, on the fastest device, and which weights they are."""
    plain = resolved(config)
    last = read.newest(run)
    caption = plain["spec"]["condition"].get("caption") or {}
    tokenizer = load_tokenizer(plain, last, run) if caption.get("tokenized") else None
    model = build_model(plain, tokenizer=tokenizer)
    model.configure_model()
    put_parts(model, plain["pretrained"], run)
    weights = read.load_for_sampling(model, last, run)
    model.progress = last.progress
    use_gpu = torch.cuda.is_available() and plain["trainer"].get("accelerator") != "cpu"
    return model.to("cuda" if use_gpu else "cpu").eval(), weights


def without_adapter(plain: Mapping[str, Any], run: Path) -> Model:
    """The model of a run's resolved config, whose adapter has been taken out: its parts from elsewhere have their
    weights, the rest is random."""
    model = build_model(plain)
    model.configure_model()
    put_parts(model, plain["pretrained"], run)
    return model


def load_template(run: Path) -> chat_template.ChatTemplate | None:
    """The chat template of a run; None: it was not trained on conversations. Raises CheckpointError if it cannot be
    read."""
    path = run / run_folder.TEMPLATE
    if not path.exists():
        return None
    try:
        return chat_template.of_state(read_text(path))
    except (OSError, ValueError, DataError) as error:
        raise CheckpointError(
            f"{path} does not hold the chat template of the run ({error}). Restore it, or start a new run."
        ) from error
