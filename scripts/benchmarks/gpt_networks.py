"""GPT-2's network as genlab, nanoGPT and transformers have it, weights from one to the other, and what both put out."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers, product
from benchmarks.options import Options
from genlab.model.network.feed_forward import FeedForward
from genlab.model.network.positions import Learned
from genlab.model.network.token_transformer import TokenTransformer


def gpt2_parts(vocabulary: int, depth: int, heads: int, width: int, context: int) -> TokenTransformer:
    """model/network=gpt2 without biases, as in nanoGPT's recipe."""
    return TokenTransformer(
        num_tokens=vocabulary,
        num_outputs=vocabulary,
        max_length=context,
        causal=True,
        positions=Learned,
        norm=partial(nn.LayerNorm, bias=False),
        feed_forward=partial(FeedForward, activation=nn.GELU()),
        width=width,
        depth=depth,
        num_heads=heads,
    )


def nanogpt(options: Options, vocabulary: int, depth: int, heads: int, width: int, context: int) -> nn.Module:
    """Raises Missing."""
    code = peers.module(options, "nanogpt", "model")
    with product.silence():
        return code.GPT(
            code.GPTConfig(
                block_size=context,
                vocab_size=vocabulary,
                n_layer=depth,
                n_head=heads,
                n_embd=width,
                dropout=0.0,
                bias=False,
            )
        )


def transformers_gpt2(vocabulary: int, depth: int, heads: int, width: int, context: int) -> nn.Module:
    """Raises Missing."""
    transformers = peers.package("transformers")
    config = transformers.GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=width,
        n_layer=depth,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu",
        bos_token_id=0,
        eos_token_id=None,
        use_cache=False,
    )
    return transformers.GPT2LMHeadModel(config)


@torch.no_grad()
def nanogpt_weights(ours: Any, theirs: Any) -> None:
    """Ours into nanoGPT's network."""
    body = theirs.transformer
    body.wte.weight.copy_(ours.embedding.weight)
    body.wpe.weight.copy_(ours.positions.table.weight)
    body.ln_f.weight.copy_(ours.norm.weight)
    for mine, block in zip(ours.blocks, body.h, strict=True):
        block.ln_1.weight.copy_(mine.attention_norm.weight)
        block.attn.c_attn.weight.copy_(mine.attention.qkv.weight)
        block.attn.c_proj.weight.copy_(mine.attention.out.weight)
        block.ln_2.weight.copy_(mine.feed_forward_norm.weight)
        block.mlp.c_fc.weight.copy_(mine.feed_forward.expand.weight)
        block.mlp.c_proj.weight.copy_(mine.feed_forward.out.weight)


@torch.no_grad()
def transformers_weights(ours: Any, theirs: Any) -> None:
    """Ours into GPT-2, whose maps are transposed and have biases: those stay 0."""
    body = theirs.transformer
    body.wte.weight.copy_(ours.embedding.weight)
    body.wpe.weight.copy_(ours.positions.table.weight)
    body.ln_f.weight.copy_(ours.norm.weight)
    for mine, block in zip(ours.blocks, body.h, strict=True):
        block.ln_1.weight.copy_(mine.attention_norm.weight)
        block.attn.c_attn.weight.copy_(mine.attention.qkv.weight.T)
        block.attn.c_proj.weight.copy_(mine.attention.out.weight.T)
        block.ln_2.weight.copy_(mine.feed_forward_norm.weight)
        block.mlp.c_fc.weight.copy_(mine.feed_forward.expand.weight.T)
        block.mlp.c_proj.weight.copy_(mine.feed_forward.out.weight.T)


def loss_of(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    logits = logits_of(network, x, y)
    return F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())


def logits_of(network: Any, x: Tensor, y: Tensor | None = None) -> Tensor:
    """(N, T, V), of any of the three."""
    if hasattr(network, "lm_head") and not hasattr(network, "generation_config"):  # nanoGPT: all logits with targets
        return network(x, x if y is None else y)[0]
    made = network(x)
    return made if isinstance(made, Tensor) else made.logits


def agreement(ours: nn.Module, theirs: nn.Module, tokens: Tensor) -> str:
    """Logits of both in evaluation mode. Raises AssertionError if they are apart."""
    modes = [network.training for network in (ours, theirs)]
    with torch.no_grad():
        a, b = (logits_of(network.eval(), tokens).double() for network in (ours, theirs))
    for network, mode in zip((ours, theirs), modes, strict=True):
        network.train(mode)
    apart = float((a - b).abs().max() / b.abs().max())
    assert apart < 1e-4, f"with the same weights, logits are apart by {apart:.1e} of the largest"
    return f"same weights: logits within {apart:.0e} of the largest" if apart else "same weights: logits equal"
