"""Networks that read captions word by word: cross-attention and joint attention."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.model.condition_kind import Caption, Label
from genlab.model.network.attention import CrossAttention
from genlab.model.network.dit import DiT
from genlab.model.network.mmdit import JointBlock, MMDiT
from genlab.model.network.unet import UNet

TOLD = {"label": Label(3), "caption": Caption(9, 5)}
CAPTIONS = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]])


def spread(module: nn.Module, std: float = 0.2) -> nn.Module:
    """Weights of which none is zero, a function of their order."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return module.eval()


def networks(**options: Any) -> dict[str, nn.Module]:
    shape = (3, 8, 8)
    return {
        "unet": UNet(shape, TOLD, channels=8, channel_mult=(1, 2), num_blocks=1, attention_resolutions=(4,),
                     attends_to_words=True),
        "dit": DiT(shape, TOLD, width=16, depth=2, num_heads=2, attends_to_words=True),
        "mmdit": MMDiT(shape, TOLD, width=16, depth=2, num_heads=2),
    }  # fmt: skip


def run(network: nn.Module, condition: dict[str, Tensor] | None) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 8, 8, generator=generator)
    return network(x, torch.tensor([0.3, 0.7]), condition)  # type: ignore[no-any-return]


def test_cross_attention_is_torchs() -> None:
    ours = spread(CrossAttention(16, 12, 4))
    theirs = nn.MultiheadAttention(16, 4, kdim=12, vdim=12, batch_first=True)
    state = ours.state_dict()
    weights = dict(zip(("q", "k", "v"), (state["query.weight"], *state["key_value.weight"].chunk(2)), strict=True))
    theirs.load_state_dict(
        {f"{name}_proj_weight": value for name, value in weights.items()}
        | {"in_proj_bias": torch.cat([state["query.bias"], state["key_value.bias"]])}
        | {"out_proj.weight": state["out.weight"], "out_proj.bias": state["out.bias"]}
    )
    x, context = torch.randn(2, 7, 16), torch.randn(2, 5, 12)
    seen = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    expected, _ = theirs(x, context, context, key_padding_mask=~seen)
    torch.testing.assert_close(ours(x, context, seen), expected)


@pytest.mark.parametrize("name", ["unet", "dit", "mmdit"])
def test_a_word_counts_and_padding_does_not(name: str) -> None:
    network = spread(networks()[name])
    label = torch.tensor([0, 1])
    told = run(network, {"label": label, "caption": CAPTIONS})
    other = CAPTIONS.clone()
    other[0, 1] = 8
    swapped = run(network, {"label": label, "caption": other})
    assert (told[0] - swapped[0]).abs().max() > 1e-4
    torch.testing.assert_close(told[1], swapped[1])
    shorter = run(network, {"label": label[:1].expand(2), "caption": CAPTIONS[:1, :3].expand(2, -1)})
    torch.testing.assert_close(shorter[0], told[0])


@pytest.mark.parametrize("name", ["unet", "dit", "mmdit"])
def test_no_caption_is_an_empty_one(name: str) -> None:
    network = spread(networks()[name])
    nothing = {key: kind.nothing(2) for key, kind in TOLD.items()}
    torch.testing.assert_close(run(network, None), run(network, nothing))


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_a_fresh_network_does_not_read_yet(name: str) -> None:
    """What reads begins as a residual of zero, so that words can be added to trained weights."""
    network = networks()[name].eval()
    for part, parameter in network.named_parameters():
        if "reading.attention.out" not in part and "reading.out" not in part and "told" not in part:
            nn.init.normal_(parameter, std=0.2)
    before = run(network, {"caption": CAPTIONS})
    for part, parameter in network.named_parameters():
        if "reading" in part and ("query" in part or "key_value" in part):
            nn.init.normal_(parameter, std=5.0)
    assert torch.equal(run(network, {"caption": CAPTIONS}), before)


def test_a_joint_transformer_without_captions_reads_what_else_it_is_told() -> None:
    network = spread(MMDiT((3, 8, 8), {"label": Label(3)}, width=16, depth=2, num_heads=2))
    first, second = (run(network, {"label": torch.tensor([label, 2])}) for label in (0, 1))
    assert (first[0] - second[0]).abs().max() > 1e-4
    torch.testing.assert_close(first[1], second[1])
    assert run(MMDiT((3, 8, 8), {}, width=16, depth=1, num_heads=2), None).shape == (2, 3, 8, 8)


def joint_inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return (torch.randn(2, 6, 16, generator=generator), torch.randn(2, 4, 16, generator=generator),
            torch.randn(2, 16, generator=generator))  # fmt: skip


def as_theirs(block: JointBlock) -> dict[str, Tensor]:
    """A block's weights by diffusers' names: shift before scale, and queries, keys and values apart."""
    found = {}
    for stream, name, added in ((block.image, "norm1", ""), (block.text, "norm1_context", "added")):
        state = stream.state_dict()
        for kind in ("weight", "bias"):
            parts = list(state[f"modulation.{kind}"].chunk(2 if stream.is_read_alone else 6))
            if stream.is_read_alone:  # theirs is AdaLayerNormContinuous: scale, then shift
                found[f"{name}.linear.{kind}"] = torch.cat(parts)
            else:
                scale1, shift1, gate1, scale2, shift2, gate2 = parts
                found[f"{name}.linear.{kind}"] = torch.cat([shift1, scale1, gate1, shift2, scale2, gate2])
            for letter, part in zip("qkv", state[f"qkv.{kind}"].chunk(3), strict=True):
                found[f"attn.add_{letter}_proj.{kind}" if added else f"attn.to_{letter}.{kind}"] = part
            if not stream.is_read_alone:
                out, mlp = ("attn.to_add_out", "ff_context") if added else ("attn.to_out.0", "ff")
                found[f"{out}.{kind}"] = state[f"out.{kind}"]
                found[f"{mlp}.net.0.proj.{kind}"] = state[f"mlp.0.{kind}"]
                found[f"{mlp}.net.2.{kind}"] = state[f"mlp.2.{kind}"]
        for ours, theirs in (("query_norm", "q"), ("key_norm", "k")):
            if f"{ours}.weight" in state:
                found[f"attn.norm_{'added_' * bool(added)}{theirs}.weight"] = state[f"{ours}.weight"]
    return found


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_joint_block_is_that_of_diffusers(is_last: bool, qk_norm: bool) -> None:
    attention = pytest.importorskip("diffusers.models.attention", reason="diffusers is not installed")
    ours = spread(JointBlock(16, 2, 4.0, qk_norm, is_last))
    assert isinstance(ours, JointBlock)
    theirs = attention.JointTransformerBlock(
        16, 2, 8, context_pre_only=is_last, qk_norm="rms_norm" if qk_norm else None
    ).eval()
    theirs.load_state_dict(as_theirs(ours))
    image, text, embedding = joint_inputs()
    found = ours(image, text, torch.ones(2, 4, dtype=torch.bool), nn.functional.silu(embedding))
    text_theirs, image_theirs = theirs(image, text, embedding)
    torch.testing.assert_close(found[0], image_theirs, rtol=1e-4, atol=1e-4)
    if not is_last:
        torch.testing.assert_close(found[1], text_theirs, rtol=1e-4, atol=1e-4)


# Of diffusers 0.42.1's JointTransformerBlock, by the test above: sums of the image's and of the text's tokens.
RECORDED = {False: (184.949219, 123.022224), True: (164.560013, 128.387802)}


@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_joint_block_is_as_recorded(qk_norm: bool) -> None:
    block = spread(JointBlock(16, 2, 4.0, qk_norm))
    image, text, embedding = joint_inputs()
    found = block(image, text, torch.ones(2, 4, dtype=torch.bool), nn.functional.silu(embedding))
    assert [each.abs().sum().item() for each in found] == pytest.approx(RECORDED[qk_norm], rel=1e-4)
