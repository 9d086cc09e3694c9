"""The vision transformer against transformers' own with the same weights, and what it refuses."""

import pytest
import torch
from torch import Tensor

from genlab.model.network.vit import ViT


def of_hugging_face(weights: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The weights of a ``transformers.ViTModel`` by this ViT's names."""
    ours = {
        "class_token": weights["embeddings.cls_token"],
        "positions": weights["embeddings.position_embeddings"],
    }
    maps = {
        "patches": ("embeddings.patch_embeddings.projection",),
        "norm": ("layernorm",),
    }
    for i in range(depth):
        theirs = next(p for p in (f"encoder.layer.{i}.", f"layers.{i}.") if any(k.startswith(p) for k in weights))
        new = f"{theirs}attention.q_proj.weight" in weights  # the names of transformers 5
        asked = [f"{theirs}attention.{n}_proj" for n in "qkv"]
        if not new:
            asked = [f"{theirs}attention.attention.{n}" for n in ("query", "key", "value")]
        maps |= {
            f"blocks.{i}.attention_norm": (f"{theirs}layernorm_before",),
            f"blocks.{i}.attention.qkv": tuple(asked),
            f"blocks.{i}.attention.out": (f"{theirs}attention.{'o_proj' if new else 'output.dense'}",),
            f"blocks.{i}.feed_forward_norm": (f"{theirs}layernorm_after",),
            f"blocks.{i}.feed_forward.expand": (f"{theirs}{'mlp.fc1' if new else 'intermediate.dense'}",),
            f"blocks.{i}.feed_forward.out": (f"{theirs}{'mlp.fc2' if new else 'output.dense'}",),
        }
    for name, sources in maps.items():
        for kind in ("weight", "bias"):
            ours[f"{name}.{kind}"] = torch.cat([weights[f"{source}.{kind}"] for source in sources])
    return ours


def test_equals_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=(8, 12), patch_size=4, num_channels=3, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=32,
    )  # fmt: skip
    theirs = transformers.ViTModel(config, add_pooling_layer=False).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = ViT((3, 8, 12), patch_size=4, width=16, depth=2, num_heads=4, mlp_ratio=2.0).eval()
    ours.load_state_dict(of_hugging_face(theirs.state_dict(), depth=2))
    images = torch.rand(3, 3, 8, 12) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images).last_hidden_state, atol=1e-4, rtol=0)


def test_tokens_are_patches_row_by_row() -> None:
    """A change in one patch changes the embedding at its place alone, before attention mixes them."""
    vit = ViT((1, 8, 12), patch_size=4, width=8, depth=0, num_heads=2)
    image = torch.zeros(1, 1, 8, 12)
    changed = image.clone()
    changed[..., 4:, 8:] = 1  # the last of two rows and three columns
    with torch.no_grad():
        different = (vit(image) != vit(changed)).any(dim=2)[0]
    assert different.tolist() == [False] * 6 + [True]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": (3, 10, 8)}, "patch_size=4 does not divide both sides of images of 10 x 8 pixels"),
        ({"shape": (5,)}, "sees images"),
        ({"num_heads": 3}, "num_heads=3 must divide width=8"),
    ],
)
def test_refuses(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViT(**{"shape": (3, 8, 8), "patch_size": 4, "width": 8, "depth": 1, "num_heads": 2, **wrong})  # type: ignore[arg-type]
