"""The network without causality, beside ESM of transformers, which is bidirectional, pre-norm and rotary (Lin et al.
2022): the same weights give the same hidden states, and the same losses of masked tokens."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.masked_language import MaskedLanguage
from genlab.model.network.feed_forward import FeedForward
from genlab.model.network.positions import Rotary
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.schedule import Constant

pytestmark = pytest.mark.matrix  # transformers takes seconds to import
VOCABULARY, LENGTH, DEPTH = 31, 20, 3
BLOCK = {
    "attention_norm": ["attention.LayerNorm"],
    "attention.qkv": [f"attention.self.{name}" for name in ("query", "key", "value")],
    "attention.out": ["attention.output.dense"],
    "feed_forward_norm": ["LayerNorm"],
    "feed_forward.expand": ["intermediate.dense"],
    "feed_forward.out": ["output.dense"],
}


def esm() -> Any:
    """With weights far from their start."""
    transformers = pytest.importorskip("transformers")
    config = transformers.EsmConfig(
        vocab_size=VOCABULARY + 1, mask_token_id=VOCABULARY, pad_token_id=0, hidden_size=32, num_hidden_layers=DEPTH,
        num_attention_heads=4, intermediate_size=72, position_embedding_type="rotary", token_dropout=False,
        emb_layer_norm_before=False, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-5,
        max_position_embeddings=LENGTH, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(5)
    theirs = transformers.EsmForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return theirs


def from_esm(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names, but for the head, which is larger there."""
    after = "esm.encoder.emb_layer_norm_after"
    found = {"embedding.weight": theirs["esm.embeddings.word_embeddings.weight"]}
    for kind in ("weight", "bias"):
        found[f"norm.{kind}"] = theirs[f"{after}.{kind}"]
        for i in range(DEPTH):
            for ours, names in BLOCK.items():
                parts = [theirs[f"esm.encoder.layer.{i}.{name}.{kind}"] for name in names]
                found[f"blocks.{i}.{ours}.{kind}"] = torch.cat(parts)
    return found


def language() -> MaskedLanguage:
    network = partial(
        TokenTransformer, positions=Rotary, norm=partial(nn.LayerNorm, eps=1e-5), width=32, depth=DEPTH, num_heads=4,
        feed_forward=partial(FeedForward, activation=nn.GELU(), bias=True, hidden=72), bias=True,
    )  # fmt: skip
    model = MaskedLanguage(network, partial(torch.optim.SGD, lr=0.1), Constant(), (LENGTH,), VOCABULARY)
    model.configure_model()
    return model.eval()


@torch.no_grad()
def test_hidden_states_and_losses_are_those_of_esm() -> None:
    theirs, model = esm(), language()
    model.network.load_state_dict(from_esm(theirs.state_dict()), strict=True)
    tokens = torch.randint(1, VOCABULARY + 1, (4, LENGTH))  # 0 is their padding
    states = theirs.esm(tokens).last_hidden_state
    torch.testing.assert_close(model.network(tokens, hidden=True), states, rtol=0, atol=1e-5)
    labels = tokens.masked_fill(torch.rand(tokens.shape) > 0.3, -100).masked_fill(tokens == VOCABULARY, -100)
    logits = theirs.lm_head(model.network(tokens, hidden=True))  # by their head, which has a layer more
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(loss, theirs(tokens, labels=labels).loss, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(states[0], states[1], atol=1e-2)
