"""Loads the model of a trained run."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from genlab.checkpoint import read
from genlab.config.tree import resolved
from genlab.model.base import Model
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
