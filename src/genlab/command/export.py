"""``genlab export``: the weights of a run for other programs, as a folder."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors.torch import save
from torch import Tensor

from genlab.checkpoint import read
from genlab.checkpoint.tensors import as_bytes, sha256_of
from genlab.config.tree import resolved
from genlab.data.chat_tokens import ChatTokens
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.data.tokenizer.byte_level import ByteLevel
from genlab.errors import ConfigError
from genlab.files.atomic import partial_of, replace_folder, take_away, write_flushed, writing
from genlab.files.paths import read_path
from genlab.interop import peft
from genlab.interop.language_model_export import exported
from genlab.interop.tokenizer_json import as_json
from genlab.model.adapter.lora import adapter_names, dense, merged
from genlab.model.base import Model
from genlab.model.elsewhere import copied, put_weights
from genlab.model.float32 import exact_float32
from genlab.model.parts import TakesAdapter
from genlab.redaction import for_terminal
from genlab.run.adapter import NETWORK
from genlab.run.assemble import load_tokenizer
from genlab.run.load import load_run, load_template, without_adapter
from genlab.run.origin import HUB, is_of_another_library

WEIGHTS, CONFIG, TEMPLATE = "model.safetensors", "config.json", "chat_template.jinja"


def export(config: DictConfig, run: Path, format: str, out: str) -> None:
    """Write a run's weights, its averages where it has any, into the new folder ``out``; those of an adapter merged
    into the network's, or as ``peft`` by themselves.

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
    updates = adapter_names(model)
    told = []
    if format == "peft":
        files, line = _for_peft(plain, dense(model, weights), updates, run, model.base_is_reference)
        told.append(line)
    else:
        if updates:
            base = {name: value for name, value in dense(model, weights).items() if name not in updates}
            plain = {**plain, "model": {**plain["model"], "adapter": None}}
            without = without_adapter(plain, run)
            weights = merged(model, weights) | (copied(without.copies, base) if model.base_is_reference else {})
            told.append(f"merged:     {_difference(model, without, weights)}")
        if format == "transformers":
            files, left_out = _for_transformers(plain, weights, tokenizer, run)
            told += [f"tokenizer:  {left_out}"] if left_out else []
        else:
            files = _as_safetensors(plain, weights, tokenizer)
    _write(folder, files)
    kinds = {"ema": "averaged", "best": "best"}
    print(for_terminal(f"exported:   {kinds.get(kind, 'raw')} weights of {run} to {folder}"))
    for line in told:
        print(for_terminal(line))


def _difference(model: Model, plain: Model, weights: Mapping[str, Tensor]) -> str:
    """What the merged ``weights`` change, put into ``plain``, a model like ``model`` without its adapter."""
    put_weights(plain, weights)
    plain.to(model.device).eval()
    assert isinstance(model, TakesAdapter)
    assert isinstance(plain, TakesAdapter)
    with torch.no_grad(), exact_float32(model.device):
        before, after = (each.outputs_of_random_inputs(torch.Generator().manual_seed(0)) for each in (model, plain))
    worst = float((after - before).abs().max())
    return (
        f"the adapter, in float32; of {before.numel():,} outputs up to {float(before.abs().max()):.3g}, none differs "
        f"by more than {worst:.2g}"
    )


def _as_safetensors(
    plain: Mapping[str, Any], weights: Mapping[str, Tensor], tokenizer: CaptionTokenizer | None
) -> dict[str, bytes]:
    """A file that ``start=`` takes, the config of the model and its data's shape, and what the tokenizer learned."""
    files = {
        WEIGHTS: as_bytes(weights, plain["model"]),
        CONFIG: _json({name: plain[name] for name in ("model", "spec", "pretrained")}),
    }
    return files if tokenizer is None else {**files, "tokenizer.json": tokenizer.state().encode()}


def _for_peft(
    plain: Mapping[str, Any], weights: Mapping[str, Tensor], updates: list[str], run: Path, merges: bool
) -> tuple[dict[str, bytes], str]:
    """The adapter, and a line about the model that it is put on. ``merges``: that model has ``start.adapter`` in it."""
    if not updates:
        raise ConfigError(
            f"format=peft: {run} has no adapter (model/adapter=lora). Use format=transformers, or format=safetensors"
        )
    base = {name: value for name, value in weights.items() if name not in updates}
    config, _ = _language_model(plain, base, run, "peft")
    begun = plain.get("start") or {}
    start, earlier = begun.get("where") or "", merges and begun.get("adapter")
    is_from_transformers = start.startswith(HUB) and not earlier
    files = peft.written(
        plain["model"]["adapter"],
        {name.removeprefix(NETWORK): weights[name] for name in updates},
        {name.removeprefix(NETWORK): value for name, value in base.items()},
        config["model_type"] == "gpt2",
        start.removeprefix(HUB) if is_from_transformers else "",
        _base_sha256(plain, base),
    )
    if is_from_transformers:
        return files, f"base:       {start.removeprefix(HUB)}"
    if earlier:
        return files, f"base:       {start} with the adapter {earlier} merged"
    return files, f"base:       {start}, which format=transformers writes as a folder"


def _base_sha256(plain: Mapping[str, Any], base: Mapping[str, Tensor]) -> str | None:
    """Of the weights that the adapter is put on; None: it is not known, since they were quantized."""
    if plain["model"]["adapter"].get("quantization") is None:
        return sha256_of(as_bytes(base, {}))
    start = plain["start"]
    is_whole = is_of_another_library(start["where"]) and not (start["only"] or start.get("adapter"))
    return str(start["sha256"]) if is_whole else None


def _language_model(
    plain: Mapping[str, Any], weights: Mapping[str, Tensor], run: Path, format: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content of config.json, and the tensors by their names in transformers. Raises ConfigError."""
    node, spec = plain["model"].get("network"), plain["spec"]
    if not (isinstance(node, Mapping) and spec["modality"] == "text" and "start_token" in plain["model"]):
        raise ConfigError(
            f"format={format}: {run} holds no language model that transformers knows. Use format=safetensors"
        )
    own = {name.removeprefix(NETWORK): value for name, value in weights.items() if name.startswith(NETWORK)}
    if str(plain["model"]["_target_"]).rpartition(".")[2] not in ("Transformer", "Preference"):
        raise ConfigError(
            f"format={format}: the model of {run} does not predict the next token. Use format=safetensors"
        )
    try:
        return exported(node, own, spec["shape"][0])
    except ValueError as error:
        raise ConfigError(
            f"format={format}: {error} of {run} has no equivalent there. Use format=safetensors"
        ) from error


def _for_transformers(
    plain: Mapping[str, Any], weights: Mapping[str, Tensor], tokenizer: CaptionTokenizer | None, run: Path
) -> tuple[dict[str, bytes], str]:
    config, tensors = _language_model(plain, weights, run, "transformers")
    assert tokenizer is not None, "text has one"
    end: int | None = getattr(tokenizer, "end", None)
    begin: int | None = getattr(tokenizer, "begin", None)
    config |= {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": None, "torch_dtype": "float32"}
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
        **({"bos_token": tokenizer.begin_token} if isinstance(tokenizer, ByteLevel) and begin is not None else {}),
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
