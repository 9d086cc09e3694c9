"""The weights of language models of transformers by their names there and in :class:`TokenTransformer`.

Ours are fewer: queries, keys and values are one map, and so are the gate and the value of a SwiGLU. GPT-2's maps are
stored transposed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]

GPT2_BLOCK = {
    "attention_norm": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.expand": "mlp.c_fc",
    "feed_forward.out": "mlp.c_proj",
}
LLAMA_BLOCK = {
    "attention_norm": ["input_layernorm"],
    "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attention.out": ["self_attn.o_proj"],
    "feed_forward_norm": ["post_attention_layernorm"],
    "feed_forward.gate_and_value": ["mlp.gate_proj", "mlp.up_proj"],
    "feed_forward.out": ["mlp.down_proj"],
}
QUERY_KEY_NORMS = {"attention.head_norm": "self_attn.q_norm", "attention.key_norm": "self_attn.k_norm"}  # of Qwen3
_BUFFERS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")  # of older versions


def to_ours(tensors: Weights, config: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Tensor]:
    """Float32, by our names. ``network``: the node for ``config``. Raises ValueError: a tensor is missing, has no
    place, or another shape than ``config`` says."""
    is_gpt2 = config["model_type"] == "gpt2"
    left = _without_prefix(tensors, "transformer." if is_gpt2 else "model.")
    if network["tied"]:
        left.pop("lm_head.weight", None)
    left = {name: value for name, value in left.items() if not name.endswith(_BUFFERS)}
    shapes = _gpt2_shapes(config["vocab_size"], network) if is_gpt2 else _llama_shapes(config["vocab_size"], network)
    for name, shape in shapes.items():
        if name not in left:
            raise ValueError(f"{name} is missing")
        if tuple(left[name].shape) != shape:
            raise ValueError(f"{name} is {tuple(left[name].shape)}, and should be {shape}")
    if unknown := [name for name in left if name not in shapes]:
        raise ValueError(f"{unknown[0]} has no place")
    found = {name: value.float() for name, value in left.items()}
    return from_gpt2(found, network["depth"]) if is_gpt2 else from_llama(found, network["depth"])


def _without_prefix(tensors: Weights, prefix: str) -> dict[str, Tensor]:
    """Also as files have them that hold the network without its last map."""
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def _gpt2_shapes(vocabulary: int, network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, hidden = network["width"], network["feed_forward"]["hidden"]
    maps = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, hidden),
        "mlp.c_proj": (hidden, width),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (vocabulary, width),
        "wpe.weight": (network["positions"]["length"], width),
        **{f"ln_f.{kind}": (width,) for kind in ("weight", "bias")},
    }
    for i in range(network["depth"]):
        shapes |= {f"h.{i}.{norm}.{kind}": (width,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
        for name, shape in maps.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[1:]}
    return shapes if network["tied"] else {**shapes, "lm_head.weight": (vocabulary, width)}


def _llama_shapes(vocabulary: int, network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, hidden, heads = network["width"], network["feed_forward"]["hidden"], network["num_heads"]
    head_width = network["head_width"] or width // heads
    queries, keys = heads * head_width, network["num_kv_heads"] * head_width
    out_bias, mlp_bias = network["bias"], network["feed_forward"]["bias"]
    qkv_bias = out_bias if network["qkv_bias"] is None else network["qkv_bias"]
    maps: dict[str, tuple[tuple[int, int], bool]] = {
        "self_attn.q_proj": ((queries, width), qkv_bias),
        "self_attn.k_proj": ((keys, width), qkv_bias),
        "self_attn.v_proj": ((keys, width), qkv_bias),
        "self_attn.o_proj": ((width, queries), out_bias),
        "mlp.gate_proj": ((hidden, width), mlp_bias),
        "mlp.up_proj": ((hidden, width), mlp_bias),
        "mlp.down_proj": ((width, hidden), mlp_bias),
    }
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (vocabulary, width), "norm.weight": (width,)}
    for i in range(network["depth"]):
        shapes |= {f"layers.{i}.{norm}.weight": (width,) for norm in ("input_layernorm", "post_attention_layernorm")}
        if network["head_norm"] is not None:
            shapes |= {f"layers.{i}.{norm}.weight": (head_width,) for norm in QUERY_KEY_NORMS.values()}
        for name, (shape, bias) in maps.items():
            shapes |= {f"layers.{i}.{name}.weight": shape}
            shapes |= {f"layers.{i}.{name}.bias": shape[:1]} if bias else {}
    return shapes if network["tied"] else {**shapes, "lm_head.weight": (vocabulary, width)}


def from_gpt2(theirs: Weights, depth: int) -> dict[str, Tensor]:
    """``theirs``: without ``transformer.`` before their names."""
    ours = {"embedding.weight": theirs["wte.weight"], "positions.table.weight": theirs["wpe.weight"]}
    ours |= {"head.weight": theirs["lm_head.weight"]} if "lm_head.weight" in theirs else {}
    ours |= {f"norm.{kind}": theirs[f"ln_f.{kind}"] for kind in ("weight", "bias")}
    for i in range(depth):
        for our_name, their_name in GPT2_BLOCK.items():
            for kind in ("weight", "bias"):
                value = theirs[f"h.{i}.{their_name}.{kind}"]
                ours[f"blocks.{i}.{our_name}.{kind}"] = value.t() if value.ndim == 2 else value
    return ours


def to_gpt2(ours: Weights, depth: int) -> dict[str, Tensor]:
    """Biases that ours lack are 0 there."""
    embedding = ours["embedding.weight"]
    theirs = {
        "transformer.wte.weight": embedding,
        "transformer.wpe.weight": ours["positions.table.weight"],
        "lm_head.weight": ours.get("head.weight", embedding),
        "transformer.ln_f.weight": ours["norm.weight"],
        "transformer.ln_f.bias": ours.get("norm.bias", torch.zeros_like(ours["norm.weight"])),
    }
    for i in range(depth):
        for our_name, their_name in GPT2_BLOCK.items():
            weight = ours[f"blocks.{i}.{our_name}.weight"]
            bias = ours.get(f"blocks.{i}.{our_name}.bias", weight.new_zeros(len(weight)))
            theirs[f"transformer.h.{i}.{their_name}.weight"] = weight.t() if weight.ndim == 2 else weight
            theirs[f"transformer.h.{i}.{their_name}.bias"] = bias
    return theirs


def from_llama(theirs: Weights, depth: int) -> dict[str, Tensor]:
    """``theirs``: without ``model.`` before their names."""
    ours = {"embedding.weight": theirs["embed_tokens.weight"], "norm.weight": theirs["norm.weight"]}
    ours |= {"head.weight": theirs["lm_head.weight"]} if "lm_head.weight" in theirs else {}
    for i in range(depth):
        for our_name, their_names in LLAMA_BLOCK.items():
            for kind in ("weight", "bias"):
                parts = [theirs.get(f"layers.{i}.{name}.{kind}") for name in their_names]
                if parts[0] is not None:
                    ours[f"blocks.{i}.{our_name}.{kind}"] = torch.cat([part for part in parts if part is not None])
        for our_name, their_name in QUERY_KEY_NORMS.items():
            if (norm := theirs.get(f"layers.{i}.{their_name}.weight")) is not None:
                ours[f"blocks.{i}.{our_name}.weight"] = norm
    return ours


def to_llama(ours: Weights, depth: int, qkv: Sequence[int]) -> dict[str, Tensor]:
    """``qkv``: channels of queries, keys and values. Norms of queries and keys, if there are any, are named as in
    Qwen3."""
    embedding = ours["embedding.weight"]
    theirs = {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": ours["norm.weight"],
        "lm_head.weight": ours.get("head.weight", embedding),
    }
    for i in range(depth):
        for our_name, their_names in LLAMA_BLOCK.items():
            for kind in ("weight", "bias"):
                value = ours.get(f"blocks.{i}.{our_name}.{kind}")
                if value is not None:
                    count = len(their_names)
                    sizes = list(qkv) if count == 3 else [len(value) // count] * count
                    names = [f"model.layers.{i}.{name}.{kind}" for name in their_names]
                    theirs |= dict(zip(names, value.split(sizes), strict=True))
        both = ours.get(f"blocks.{i}.attention.head_norm.weight")
        if both is not None:
            for our_name, their_name in QUERY_KEY_NORMS.items():
                own = ours.get(f"blocks.{i}.{our_name}.weight", both)
                theirs[f"model.layers.{i}.{their_name}.weight"] = own.clone()
    return theirs
