"""Weights of our network under the names, and in the layout, of Hugging Face's GPT-2 and Llama; and back."""

import torch
from torch import Tensor

Weights = dict[str, Tensor]

GPT2_BLOCK = {
    "attention_norm": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.expand": "mlp.c_fc",
    "feed_forward.out": "mlp.c_proj",
}  # its linear maps are stored transposed
LLAMA_BLOCK = {
    "attention_norm": ["input_layernorm"],
    "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attention.out": ["self_attn.o_proj"],
    "feed_forward_norm": ["post_attention_layernorm"],
    "feed_forward.gate_and_value": ["mlp.gate_proj", "mlp.up_proj"],
    "feed_forward.out": ["mlp.down_proj"],
}  # fused maps of ours are several there


def from_gpt2(theirs: Weights, depth: int) -> Weights:
    ours = {
        "embedding.weight": theirs["transformer.wte.weight"],
        "positions.table.weight": theirs["transformer.wpe.weight"],
    }
    ours |= {f"norm.{kind}": theirs[f"transformer.ln_f.{kind}"] for kind in ("weight", "bias")}
    for i in range(depth):
        for our_name, their_name in GPT2_BLOCK.items():
            for kind in ("weight", "bias"):
                value = theirs[f"transformer.h.{i}.{their_name}.{kind}"]
                ours[f"blocks.{i}.{our_name}.{kind}"] = value.t() if value.ndim == 2 else value
    return ours


def to_gpt2(ours: Weights, depth: int) -> Weights:
    theirs = {
        "transformer.wte.weight": ours["embedding.weight"],
        "transformer.wpe.weight": ours["positions.table.weight"],
        "lm_head.weight": ours["embedding.weight"],
    }
    theirs |= {f"transformer.ln_f.{kind}": ours[f"norm.{kind}"] for kind in ("weight", "bias")}
    for i in range(depth):
        for our_name, their_name in GPT2_BLOCK.items():
            for kind in ("weight", "bias"):
                value = ours[f"blocks.{i}.{our_name}.{kind}"]
                theirs[f"transformer.h.{i}.{their_name}.{kind}"] = value.t() if value.ndim == 2 else value
    return theirs


def from_llama(theirs: Weights, depth: int) -> Weights:
    ours = {
        "embedding.weight": theirs["model.embed_tokens.weight"],
        "norm.weight": theirs["model.norm.weight"],
        "head.weight": theirs["lm_head.weight"],
    }
    for i in range(depth):
        for our_name, their_names in LLAMA_BLOCK.items():
            parts = [theirs[f"model.layers.{i}.{name}.weight"] for name in their_names]
            ours[f"blocks.{i}.{our_name}.weight"] = torch.cat(parts)
    return ours


def to_llama(ours: Weights, depth: int, like: Weights) -> Weights:
    """``like``: says how long each part of a fused map is."""
    theirs = {
        "model.embed_tokens.weight": ours["embedding.weight"],
        "model.norm.weight": ours["norm.weight"],
        "lm_head.weight": ours["head.weight"],
    }
    for i in range(depth):
        for our_name, their_names in LLAMA_BLOCK.items():
            names = [f"model.layers.{i}.{name}.weight" for name in their_names]
            parts = ours[f"blocks.{i}.{our_name}.weight"].split([len(like[name]) for name in names])
            theirs |= dict(zip(names, parts, strict=True))
    return theirs
