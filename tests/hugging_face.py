"""Hugging Face's GPT-2 and Llama, and our network with the same weights."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.interop import language_model_weights
from genlab.model.network.feed_forward import FeedForward, SwiGLU
from genlab.model.network.positions import Learned, Rotary
from genlab.model.network.token_transformer import TokenTransformer

transformers = pytest.importorskip("transformers")

Weights = dict[str, Tensor]

VOCABULARY, LENGTH, DEPTH = 97, 24, 3
SIZES = {"num_tokens": VOCABULARY, "num_outputs": VOCABULARY, "max_length": LENGTH, "causal": True}
GELU = partial(FeedForward, activation=nn.GELU(approximate="tanh"), bias=True)


def to_gpt2(ours: Weights, depth: int) -> Weights:
    return language_model_weights.to_gpt2(ours, depth)


def to_llama(ours: Weights, depth: int) -> Weights:
    return language_model_weights.to_llama(ours, depth, (32, 16, 16))


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
    take = language_model_weights.from_gpt2 if kind == "gpt2" else language_model_weights.from_llama
    given = {name.removeprefix("transformer.").removeprefix("model."): t for name, t in theirs.state_dict().items()}
    ours.load_state_dict(
        {name: t for name, t in take(given, DEPTH).items() if kind != "gpt2" or name != "head.weight"}, strict=True
    )
    return theirs, ours
