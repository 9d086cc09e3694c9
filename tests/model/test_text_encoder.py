"""CLIP's text tower, against transformers' and against itself."""

from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.model.network.text_encoder import TextEncoder

WORDS, LENGTH, WIDTH, DEPTH, HEADS = 30, 9, 32, 2, 4
BLOCK = {
    "attention_norm": ("layer_norm1",),
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.out_proj",),
    "feed_forward_norm": ("layer_norm2",),
    "feed_forward.expand": ("mlp.fc1",),
    "feed_forward.out": ("mlp.fc2",),
}


def tower(**options: Any) -> TextEncoder:
    return TextEncoder(**{"num_words": WORDS, "length": LENGTH, "width": WIDTH, "depth": DEPTH, "num_heads": HEADS}
                       | options).eval()  # fmt: skip


def captions() -> Tensor:
    """Of every length from no word to all."""
    rows = torch.randint(1, WORDS, (LENGTH + 1, LENGTH), generator=torch.Generator().manual_seed(0))
    return torch.where(torch.arange(LENGTH) < torch.arange(LENGTH + 1)[:, None], rows, 0)


def from_clip(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    ours = {
        "embedding.weight": theirs["embeddings.token_embedding.weight"],
        "positions.table.weight": theirs["embeddings.position_embedding.weight"],
    }
    names = {"norm": ("final_layer_norm",)}
    for i in range(DEPTH):
        names |= {f"blocks.{i}.{own}": tuple(f"encoder.layers.{i}.{n}" for n in of) for own, of in BLOCK.items()}
    for kind in ("weight", "bias"):
        ours |= {f"{own}.{kind}": torch.cat([theirs[f"{n}.{kind}"] for n in of]) for own, of in names.items()}
    return ours


@torch.no_grad()
def test_it_is_that_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.CLIPTextConfig(
        vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=DEPTH,
        num_attention_heads=HEADS, max_position_embeddings=LENGTH + 1, hidden_act="gelu", eos_token_id=0,
        bos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    theirs = transformers.CLIPTextModel(config).eval()
    theirs = getattr(theirs, "text_model", theirs)  # earlier versions have it inside
    for parameter in theirs.parameters():  # far from their start, gains and biases too: a part that is left out shows
        parameter.add_(0.2 * torch.randn_like(parameter))
    ours = tower()
    ours.load_state_dict(from_clip(theirs.state_dict()), strict=True)
    expected = theirs(input_ids=torch.cat([captions(), torch.zeros(LENGTH + 1, 1, dtype=torch.long)], 1)).pooler_output
    assert expected.std() > 0.5
    torch.testing.assert_close(ours(captions()), expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_what_fills_up_is_not_seen_and_words_and_their_order_are() -> None:
    ours, rows = tower(), captions()[1:-1]
    for row in rows:
        length = int((row != 0).sum())
        torch.testing.assert_close(ours(row[None]), ours(row[None, :length]), rtol=0, atol=1e-5)
    turned = rows[2:].clone()
    turned[:, [0, 1]] = turned[:, [1, 0]]
    assert ((ours(turned) - ours(rows[2:])).norm(dim=1) > 1e-3).all()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="num_heads=5 must divide width=32"):
        tower(num_heads=5)
