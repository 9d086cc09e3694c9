"""``genlab export``: the weights of a run for other programs, as a folder."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors.torch import save

from genlab.checkpoint import read
from genlab.checkpoint.tensors import as_bytes
from genlab.config.tree import resolved
from genlab.data.chat_tokens import ChatTokens
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.errors import ConfigError
from genlab.files.atomic import partial_of, replace_folder, take_away, write_flushed, writing
from genlab.files.paths import read_path
from genlab.interop.language_model_export import exported
from genlab.interop.tokenizer_json import as_json
from genlab.redaction import for_terminal
from genlab.run.assemble import load_tokenizer
from genlab.run.load import load_run, load_template

WEIGHTS, CONFIG, TEMPLATE = "model.safetensors", "config.json", "chat_template.jinja"
NETWORK = "network."  # before the names of its weights, in the state dict of a model


def export(config: DictConfig, run: Path, format: str, out: str) -> None:
    """Write a run's weights, its averages where it has any, into the new folder ``out``.

    Raises:
        ConfigError: the folder is not empty, or a part of the model has no equivalent in transformers.
        StorageError: it cannot be written; then nothing is there.
    """
    folder = read_path(out).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"out={out}: this folder is not empty. Name a new one: out={folder}-2")
    model, kind = load_run(config, run)
    plain = resolved(config)
    has_tokenizer = bool(plain["data"].get("tokenizer"))
    tokenizer = load_tokenizer(plain, read.newest(run), run) if has_tokenizer else None
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    if format == "transformers":
        files, told = _for_transformers(plain, weights, tokenizer, run)
    else:
        files, told = _as_safetensors(plain, weights, tokenizer), ""
    _write(folder, files)
    kinds = {"ema": "averaged", "best": "best"}
    print(for_terminal(f"exported:   {kinds.get(kind, 'raw')} weights of {run} to {folder}"))
    if told:
        print(for_terminal(f"tokenizer:  {told}"))


def _as_safetensors(
    plain: Mapping[str, Any], weights: Mapping[str, torch.Tensor], tokenizer: CaptionTokenizer | None
) -> dict[str, bytes]:
    """A file that ``start=`` takes, the config of the model and its data's shape, and what the tokenizer learned."""
    files = {
        WEIGHTS: as_bytes(weights, plain["model"]),
        CONFIG: _json({name: plain[name] for name in ("model", "spec", "pretrained")}),
    }
    return files if tokenizer is None else {**files, "tokenizer.json": tokenizer.state().encode()}


def _for_transformers(
    plain: Mapping[str, Any], weights: Mapping[str, torch.Tensor], tokenizer: CaptionTokenizer | None, run: Path
) -> tuple[dict[str, bytes], str]:
    node, spec = plain["model"].get("network"), plain["spec"]
    if not (isinstance(node, Mapping) and spec["modality"] == "text" and "start_token" in plain["model"]):
        raise ConfigError(
            f"format=transformers: {run} holds no language model that transformers knows. Use format=safetensors"
        )
    own = {name.removeprefix(NETWORK): value for name, value in weights.items() if name.startswith(NETWORK)}
    if str(plain["model"]["_target_"]).rpartition(".")[2] != "Transformer":
        raise ConfigError(
            f"format=transformers: the model of {run} does not predict the next token. Use format=safetensors"
        )
    try:
        config, tensors = exported(node, own, spec["shape"][0])
    except ValueError as error:
        raise ConfigError(
            f"format=transformers: {error} of {run} has no equivalent there. Use format=safetensors"
        ) from error
    assert tokenizer is not None, "text has one"
    end: int | None = getattr(tokenizer, "end", None)
    config |= {"bos_token_id": None, "eos_token_id": end, "pad_token_id": None, "torch_dtype": "float32"}
    files = {CONFIG: _json(config), WEIGHTS: save({n: t.contiguous() for n, t in tensors.items()}, {"format": "pt"})}
    try:
        content, end_token = as_json(tokenizer)
    except ValueError as error:
        return files, f"left out: {error}"
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.get("max_position_embeddings", config.get("n_positions")),
        **({} if end_token is None else {"eos_token": end_token}),
    }
    files |= {"tokenizer.json": _json(content), "tokenizer_config.json": _json(settings)}
    template = load_template(run)
    if template is not None:  # of conversations, whose answers may end otherwise than a text
        ends = sorted({ChatTokens(template, tokenizer).end, *([] if end is None else [end])})  # type: ignore[arg-type]
        files |= {TEMPLATE: template.source.encode(), "generation_config.json": _json({"eos_token_id": ends})}
    return files, ""


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """All of them, or none."""
    partial = partial_of(folder)
    with writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.mkdir(partial)
        try:
            for name, content in files.items():
                write_flushed(partial / name, _writer(content))
            replace_folder(partial, folder)
        except BaseException:
            if partial.exists():
                take_away(partial)
            raise


def _writer(content: bytes) -> Callable[[Any], Any]:
    return lambda file: file.write(content)
