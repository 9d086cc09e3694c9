"""LoRA adapters of peft for causal language models, read and written: a folder with adapter_config.json and
adapter_model.safetensors.

peft has an A and a B for each linear map of a model of transformers, of which ours are fused; an update of each of
their parts is the same. GPT-2 fuses queries, keys and values too: three updates are one there, of three times the rank.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from genlab.checkpoint.tensors import description_in, read_file, tensors_in
from genlab.errors import ConfigError
from genlab.files.paths import read_path
from genlab.files.regular_file import read_text
from genlab.interop.language_model_weights import GPT2_BLOCK, LLAMA_BLOCK
from genlab.model.adapter.lora import UPDATES, WHOLE

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_LORA = "genlab.model.adapter.lora.LoRA"
_PREFIX = "base_model.model."
_PARTS = {"attention.qkv": ("query", "key", "value"), "feed_forward.gate_and_value": ("gate", "value")}
_QKV = ("attn.c_attn", "attention.qkv")  # of GPT-2, and ours
# What changes the function beside rank, alpha and targets, and is not built: as it is where it does nothing.
_OFF: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "layer_replication": (),
    "lora_bias": (),
    "megatron_config": (),
    "modules_to_save": ([],),
    "target_parameters": ([],),
    "trainable_token_indices": ([],),
    "use_bdlora": (),
    "use_dora": (),
    "use_qalora": (),
    "alora_invocation_tokens": (),
    "arrow_config": (),
    "monteclora_config": (),
    "velora_config": (),
}


class PeftFolder:
    """An adapter that peft has saved, or ``genlab export format=peft``."""

    def __init__(self, where: str, option: str):
        self.where, self.option = where, option
        self.folder = read_path(where.removeprefix("hf:"))
        if not (self.folder / CONFIG).is_file():
            raise ConfigError(
                f"{option}={where}: there is no {CONFIG}. Name the folder of an adapter, as peft's save_pretrained or "
                "genlab export format=peft writes it."
            )

    @cached_property
    def config(self) -> Mapping[str, Any]:
        try:
            content = json.loads(read_text((self.folder / CONFIG).resolve()))
            if not isinstance(content, dict) or content["peft_type"] != "LORA":
                raise ValueError("it is no LoRA")
            for name, off in _OFF.items():
                if content.get(name) and content[name] not in off:
                    raise ValueError(f"{name}={json.dumps(content[name])[:60]} is not supported")
            if type(content["r"]) is not int or content["r"] < 1 or not isinstance(content["lora_alpha"], int | float):
                raise ValueError(f"r={content['r']} and lora_alpha={content['lora_alpha']} are not a rank and a number")
            patterns = content.get("rank_pattern") or {}, content.get("alpha_pattern") or {}
            if patterns not in (({}, {}), _patterns(content["r"], content["lora_alpha"], content.get("use_rslora"))):
                raise ValueError(f"rank_pattern and alpha_pattern {json.dumps(patterns)[:60]} are not supported")
        except (OSError, ValueError, KeyError, RecursionError) as error:
            said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(f"{self.option}={self.where}: its {CONFIG} cannot be used ({said}).") from error
        return content

    @property
    def base(self) -> str:
        """The name of its base; "": it does not say."""
        return str(self.config.get("base_model_name_or_path") or "")

    @cached_property
    def _content(self) -> bytes:
        path = self.folder / WEIGHTS
        if not path.is_file():
            raise ConfigError(
                f"{self.option}={self.where}: there is no {WEIGHTS}, and no other file is read. Save the adapter with "
                "peft's save_pretrained."
            )
        return read_file(path.resolve())

    @property
    def base_sha256(self) -> str | None:
        """Of the base's weights here; None: peft wrote the folder."""
        found = description_in(self._content)
        return str(found["base"]) if isinstance(found, dict) and "base" in found else None

    def weights(self) -> dict[str, Tensor]:
        """Float32, by their names in our network. Raises ConfigError: one of them has no place there."""
        try:
            return to_ours(tensors_in(self._content, self.folder / WEIGHTS), self.config["r"])
        except ValueError as error:
            raise ConfigError(f"{self.option}={self.where}: {error}.") from error

    def node(self) -> dict[str, Any]:
        """The config node of the adapter."""
        return {
            "_target_": _LORA,
            "rank": self.config["r"],
            "alpha": float(self.config["lora_alpha"]),
            "dropout": float(self.config.get("lora_dropout") or 0.0),
            "targets": _targets(self.weights()),
            "rslora": bool(self.config.get("use_rslora", False)),
            "quantization": None,
        }


def _targets(names: Iterable[str]) -> list[str]:
    """Patterns of the maps that have updates: one for all blocks where all have them."""
    maps = [re.sub(rf"\.{WHOLE}$", "", name.rpartition(".")[0].replace(f".{UPDATES}.", ".")) for name in names]
    blocks: dict[str, set[str]] = {}
    for name in maps:
        _, number, rest = name.split(".", 2)
        blocks.setdefault(rest, set()).add(number)
    every = {number for numbers in blocks.values() for number in numbers}
    found: list[str] = []
    for rest, numbers in blocks.items():
        is_all = numbers == every == {str(number) for number in range(len(every))}
        found += [f"blocks.*.{rest}"] if is_all else [f"blocks.{number}.{rest}" for number in sorted(numbers, key=int)]
    return found


def to_ours(theirs: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """``rank``: of all but GPT-2's fused map. Raises ValueError: a name that has no place."""
    places = {their: (our, part) for our, part, their in _llama_names()}
    places |= {their: (our, WHOLE) for our, their in GPT2_BLOCK.items() if our != _QKV[1]}
    found: dict[str, Tensor] = {}
    for name, value in theirs.items():
        match = re.fullmatch(
            rf"{re.escape(_PREFIX)}(?:model\.layers|transformer\.h)\.(\d+)\.([\w.]+)\.lora_([AB])\.weight", name
        )
        if match is None or not (match[2] in places or match[2] == _QKV[0]) or value.ndim != 2:
            raise ValueError(f"{name} has no place in a language model here")
        number, their, matrix = match.groups()
        if their == _QKV[0]:
            a, b = (value if matrix == m else theirs.get(f"{name[: -len('A.weight')]}{m}.weight") for m in "AB")
            if a is None or b is None:
                raise ValueError(f"{name} is alone")
            parts = _unfused(a.float(), b.float(), rank)
            own = {part: pair["AB".index(matrix)] for part, pair in parts.items()}
            beginning = f"blocks.{number}.{_QKV[1]}"
        else:
            our, part = places[their]
            own, beginning = {part: value.float()}, f"blocks.{number}.{our}"
        found |= {f"{beginning}.{UPDATES}.{part}.{matrix.lower()}": tensor for part, tensor in own.items()}
    return found


def _unfused(a: Tensor, b: Tensor, rank: int) -> dict[str, tuple[Tensor, Tensor]]:
    """An update of queries, keys and values, for each of them. One that :func:`_fused` made is taken apart; else all
    three have the same A. Raises ValueError: it has another rank."""
    names = _PARTS[_QKV[1]]
    if len(b) % len(names) or a.shape[0] != b.shape[1] or len(a) not in (rank, len(names) * rank):
        raise ValueError(f"an update of {_QKV[0]} is {tuple(b.shape)} times {tuple(a.shape)}, and r is {rank}")
    if len(a) == rank:
        return {name: (a.clone(), rows) for name, rows in zip(names, b.chunk(len(names)), strict=True)}
    pairs = [(some, rows) for some, rows in zip(a.chunk(len(names)), b.chunk(len(names)), strict=True)]
    own = [(some, rows[:, i * rank : (i + 1) * rank]) for i, (some, rows) in enumerate(pairs)]
    if any(rows.count_nonzero() != some.count_nonzero() for (_, rows), (_, some) in zip(pairs, own, strict=True)):
        raise ValueError(f"rank_pattern: an update of {_QKV[0]} of rank {len(a)} is not supported beside r={rank}")
    return dict(zip(names, own, strict=True))


def _patterns(rank: int, alpha: float, rslora: Any) -> tuple[dict[str, int], dict[str, float]]:
    """Of :func:`_fused` updates: three times the rank, and an alpha with which its ratio to the rank is the same."""
    return {_QKV[0]: 3 * rank}, {_QKV[0]: (math.sqrt(3) if rslora else 3.0) * alpha}


def _fused(parts: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """A, one above the other, and B, in blocks: those of parts that have none are 0."""
    return torch.cat([a for a, _ in parts.values()]), torch.block_diag(*(b for _, b in parts.values()))


def _llama_names() -> list[tuple[str, str, str]]:
    """Our map, its part, and their name, within a block."""
    return [
        (our, part, their)
        for our, names in LLAMA_BLOCK.items()
        for part, their in zip(_PARTS.get(our, (WHOLE,)), names, strict=True)
    ]


def written(
    adapter: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    network: Mapping[str, Tensor],
    is_gpt2: bool,
    base: str,
    base_sha256: str | None,
) -> dict[str, bytes]:
    """The files of the folder.

    Args:
        adapter: the config node of a LoRA, resolved
        weights: its weights, by their names in our network
        network: the weights of the network without it
        base: the folder, or the name, of the model that it is put on; "": unknown
        base_sha256: of the base's weights here; None: not known
    """
    found: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}  # by our map: of its parts
    for name in weights:
        if name.endswith(".a"):
            layer, _, part = name[:-2].rpartition(f".{UPDATES}.")
            found.setdefault(layer, {})[part] = (weights[name], weights[f"{name[:-1]}b"])
    theirs: dict[str, tuple[Tensor, Tensor]] = {}
    rank, alpha = adapter["rank"], float(adapter["alpha"])
    fused = False
    for layer, parts in found.items():
        _, number, our = layer.split(".", 2)
        if is_gpt2 and our == _QKV[1]:
            width = len(network[f"{layer}.weight"]) // 3
            a = torch.zeros(rank, network[f"{layer}.weight"].shape[1])
            every = {part: parts.get(part, (a, torch.zeros(width, rank))) for part in _PARTS[our]}
            theirs[f"transformer.h.{number}.{_QKV[0]}"] = _fused(every)
            fused = True
        elif is_gpt2:
            theirs[f"transformer.h.{number}.{GPT2_BLOCK[our]}"] = parts[WHOLE]
        else:
            names = {part: their for one, part, their in _llama_names() if one == our}
            theirs |= {f"model.layers.{number}.{names[part]}": pair for part, pair in parts.items()}
    depth = sum(name.endswith("attention.qkv.weight") for name in network)
    ranks, alphas = _patterns(rank, alpha, adapter["rslora"]) if fused else ({}, {})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or None,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": adapter["dropout"],
        "use_rslora": adapter["rslora"],
        "target_modules": _their_targets(theirs, depth),
        "bias": "none",
        "fan_in_fan_out": is_gpt2,
        "inference_mode": True,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
    }
    tensors = {
        f"{_PREFIX}{name}.lora_{matrix}.weight": value.contiguous()
        for name, pair in theirs.items()
        for matrix, value in zip("AB", pair, strict=True)
    }
    description = {"format": "pt"} | ({} if base_sha256 is None else {"genlab": json.dumps({"base": base_sha256})})
    return {CONFIG: (json.dumps(config, indent=2) + "\n").encode(), WEIGHTS: save(tensors, description)}


def _their_targets(names: Iterable[str], depth: int) -> list[str]:
    """Names of maps alone where all blocks have them, whole names otherwise."""
    of: dict[str, list[str]] = {}
    for name in names:
        of.setdefault(name.rpartition(".")[2], []).append(name)
    # c_proj of GPT-2 is the name of two maps
    wanted = {short: (2 if short == "c_proj" else 1) * depth for short in of}
    return [one for short, full in of.items() for one in ([short] if len(full) == wanted[short] else full)]
