"""Hugging Face's GPT-2 and Llama, and our network with the same weights: the names and the layout there, and ours."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.model.network.feed_forward import FeedForward, SwiGLU
from genlab.model.network.positions import Learned, Rotary
from genlab.model.network.token_transformer import TokenTransformer

transformers = pytest.importorskip("transformers")

Weights = dict[str, Tensor]

VOCABULARY, LENGTH, DEPTH = 97, 24, 3
SIZES = {"num_tokens": VOCABULARY, "num_outputs": VOCABULARY, "max_length": LENGTH, "causal": True}
GELU = partial(FeedForward, activation=nn.GELU(approximate="tanh"), bias=True)


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


def gpt2() -> tuple[Any, TokenTransformer]:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=32, n_layer=DEPTH, n_head=4, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    ours = TokenTransformer(
        **SIZES, positions=Learned, norm=partial(nn.LayerNorm, eps=1e-5), feed_forward=GELU, width=32, depth=DEPTH,
        num_heads=4, bias=True,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval(), ours.eval()


def llama() -> tuple[Any, TokenTransformer]:
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=LENGTH, hidden_size=32, intermediate_size=88,
        num_hidden_layers=DEPTH, num_attention_heads=4, num_key_value_heads=2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    ours = TokenTransformer(
        **SIZES, positions=Rotary, norm=partial(nn.RMSNorm, eps=1e-6), feed_forward=SwiGLU, width=32, depth=DEPTH,
        num_heads=4, num_kv_heads=2, tied=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval(), ours.eval()


def scrambled(module: nn.Module) -> None:
    """Weights far from their start, gains and biases too: a part that is left out shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))


def same_weights(kind: str) -> tuple[Any, TokenTransformer]:
    """Theirs with random weights, and ours with the same."""
    torch.manual_seed(3)
    theirs, ours = gpt2() if kind == "gpt2" else llama()
    scrambled(theirs)
    take = from_gpt2 if kind == "gpt2" else from_llama
    ours.load_state_dict(take(theirs.state_dict(), DEPTH), strict=True)
    return theirs, ours
