"""The vision transformer against transformers' own with the same weights, and what it refuses."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from genlab.model.network.vit import ViT

RECORDED = [
    [
        [-0.10806, -0.35259, -0.71756, -0.58057],
        [-0.10268, -0.36265, -0.27337, -0.98656],
        [-0.1418, -0.32738, -1.08329, -0.43147],
    ],
    [
        [-0.10864, -0.35508, -0.77377, -0.60897],
        [-0.03881, -0.34074, -0.4057, -0.26935],
        [-0.07671, -0.35525, -0.25711, -0.40077],
    ],
]


def small() -> tuple[ViT, Tensor]:
    """A network whose weights a formula gives, the same with any version of torch, and images (2, 3, 8, 12)."""
    vit = ViT((3, 8, 12), patch_size=4, width=16, depth=2, num_heads=4, mlp_ratio=2.0).eval()
    for number, parameter in enumerate(vit.parameters()):
        values = 0.4 * torch.sin(0.37 * torch.arange(parameter.numel(), dtype=torch.float64) ** 1.3 + number)
        parameter.data = values.float().view_as(parameter)
    return vit, torch.cos(torch.arange(2 * 3 * 8 * 12, dtype=torch.float64) ** 1.1).float().view(2, 3, 8, 12)


def by_names_of_transformers(weights: dict[str, Tensor], theirs: Iterable[str], depth: int) -> dict[str, Tensor]:
    """The weights of a ViT by the names of a ``transformers.ViTModel``, of version 4 or 5."""
    found = {
        "embeddings.cls_token": weights["class_token"],
        "embeddings.position_embeddings": weights["positions"],
    }
    maps = {"patches": ["embeddings.patch_embeddings.projection"], "norm": ["layernorm"]}
    new = any("q_proj" in name for name in theirs)
    for i in range(depth):
        block = f"layers.{i}." if new else f"encoder.layer.{i}."
        query_key_value = (
            ("q_proj", "k_proj", "v_proj") if new else ("attention.query", "attention.key", "attention.value")
        )
        maps |= {
            f"blocks.{i}.attention_norm": [f"{block}layernorm_before"],
            f"blocks.{i}.attention.qkv": [f"{block}attention.{name}" for name in query_key_value],
            f"blocks.{i}.attention.out": [f"{block}attention.{'o_proj' if new else 'output.dense'}"],
            f"blocks.{i}.feed_forward_norm": [f"{block}layernorm_after"],
            f"blocks.{i}.feed_forward.expand": [f"{block}{'mlp.fc1' if new else 'intermediate.dense'}"],
            f"blocks.{i}.feed_forward.out": [f"{block}{'mlp.fc2' if new else 'output.dense'}"],
        }
    for name, targets in maps.items():
        for kind in ("weight", "bias"):
            parts = weights[f"{name}.{kind}"].chunk(len(targets))
            found |= {f"{target}.{kind}": part for target, part in zip(targets, parts, strict=True)}
    return found


def test_equals_what_transformers_gave() -> None:
    """Values recorded from the test below, with transformers 5.24."""
    vit, images = small()
    with torch.no_grad():
        found = vit(images)
    assert found.shape == (2, 7, 16)
    torch.testing.assert_close(found[:, ::3, :4], torch.tensor(RECORDED), atol=1e-4, rtol=0)


@pytest.mark.matrix  # imports transformers, which takes seconds
def test_equals_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    ours, images = small()
    config = transformers.ViTConfig(
        image_size=(8, 12), patch_size=4, num_channels=3, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=32,
    )  # fmt: skip
    theirs = transformers.ViTModel(config, add_pooling_layer=False).eval()
    theirs.load_state_dict(by_names_of_transformers(ours.state_dict(), theirs.state_dict(), depth=2))
    with torch.no_grad():
        expected = theirs(images).last_hidden_state
        torch.testing.assert_close(ours(images), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(expected[:, ::3, :4], torch.tensor(RECORDED), atol=1e-4, rtol=0)


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


def test_a_stem_of_convolutions_halves_the_image_and_knows_where_a_shape_is_moved_to() -> None:
    """A move by a whole patch moves what the stem makes by one place; linear patches and convolutions alike."""
    torch.manual_seed(0)
    vit = ViT((3, 16, 48), patch_size=4, width=16, depth=1, num_heads=4, stem="convolutions")
    image = torch.full((1, 3, 16, 48), -1.0)
    image[:, :, 6:9, 21:25] = 1.0
    with torch.no_grad():
        before, after = vit.patches(image), vit.patches(image.roll(4, dims=3))
    assert before.shape == (1, 16, 4, 12)
    torch.testing.assert_close(after[:, :, :, 4:9], before[:, :, :, 3:8])
    assert not torch.allclose(after[:, :, :, 4:9], before[:, :, :, 4:9])
    assert vit(image).shape == (1, 1 + 4 * 12, 16)


@pytest.mark.parametrize(("patch_size", "width"), [(3, 16), (1, 16), (8, 20)])
def test_a_stem_of_convolutions_needs_patches_that_halving_makes(patch_size: int, width: int) -> None:
    with pytest.raises(ValueError, match=rf"patch_size={patch_size} must be 2, 4, 8, ..., and divide width={width}"):
        ViT((3, 24, 24), patch_size=patch_size, width=width, num_heads=4, stem="convolutions")
