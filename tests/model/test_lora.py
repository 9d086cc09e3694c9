"""LoRA: updates of low rank beside the maps of a network, and their sum."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.budget import OperationCounter
from genlab.errors import ConfigError
from genlab.model.activation_checkpointing import checkpoint_blocks
from genlab.model.adapter.lora import LoRA, LoRALinear, adapted_maps, adapter_names, merged
from genlab.model.condition_kind import Label
from genlab.model.network.dit import DiT
from genlab.model.network.feed_forward import SwiGLU
from genlab.model.network.fused_linear import FusedLinear
from genlab.model.network.mmdit import MMDiT
from genlab.model.network.positions import Rotary
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.network.unet import UNet
from genlab.model.optimizer.groups import parameter_groups

TOKENS = torch.arange(18).view(2, 9) * 7 % 50


def transformer(**more: Any) -> TokenTransformer:
    torch.manual_seed(0)
    sizes = {"num_tokens": 50, "num_outputs": 50, "max_length": 20, "causal": True, "width": 16, "depth": 2}
    made = TokenTransformer(
        **sizes, positions=Rotary, norm=nn.RMSNorm, feed_forward=SwiGLU, num_heads=4, num_kv_heads=2, tied=False, **more
    )
    return scrambled(made)


def scrambled(network: Any, only_trained: bool = False) -> Any:
    for parameter in network.parameters():
        if parameter.requires_grad or not only_trained:
            nn.init.normal_(parameter, std=0.3)
    return network


def of_images(network: nn.Module) -> Tensor:
    torch.manual_seed(1)
    output: Tensor = network(torch.randn(2, 1, 8, 8), torch.tensor([0.1, 0.7]), {"label": torch.tensor([0, 2])})
    return output


def of_text(network: nn.Module) -> Tensor:
    output: Tensor = network(TOKENS)
    return output


LABELS = {"label": Label(3)}
SMALL: dict[str, Any] = {"shape": (1, 8, 8), "told": LABELS}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor]]] = {
    "transformer": (transformer, of_text),
    "dit": (partial(DiT, **SMALL, width=8, depth=1, num_heads=2), of_images),
    "mmdit": (partial(MMDiT, **SMALL, width=8, depth=2, num_heads=2), of_images),
    "unet": (partial(UNet, **SMALL, channels=8, channel_mult=[1, 1], num_blocks=1, num_heads=1), of_images),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_it_starts_as_the_network_and_merges_into_it(kind: str) -> None:
    """Also each part by itself, of maps that are fused."""
    make, answer = NETWORKS[kind]
    network = scrambled(make())
    plain, before = copy.deepcopy(network), answer(network)
    LoRA(rank=2, alpha=3.0).adapt(network)
    torch.testing.assert_close(answer(network), before, rtol=0, atol=1e-5)
    scrambled(network, only_trained=True)
    after = answer(network)
    assert float((after - before).detach().abs().max()) > 0.05
    plain.load_state_dict(merged(network, network.state_dict()))
    torch.testing.assert_close(answer(plain), after, rtol=0, atol=1e-5 * max(1.0, float(after.detach().abs().max())))


@pytest.mark.parametrize(
    "settings", [{"padding": 1}, {"stride": 2, "padding": 2, "dilation": 2}, {"padding_mode": "reflect", "padding": 1}]
)
@pytest.mark.parametrize("size", [1, 3])
def test_a_convolution_is_one_of_few_channels_and_one_of_1x1(size: int, settings: dict[str, Any]) -> None:
    """The sum is the convolution by W + scale * (B A), A and B taken as matrices."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 6, size, **settings)).double()
    plain, x = copy.deepcopy(network), torch.randn(2, 4, 9, 8).double()
    LoRA(rank=2, alpha=3.0, convolutions=True).adapt(network)
    assert torch.equal(network(x), plain(x))
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {*adapter_names(network)}
    scrambled(network, only_trained=True)
    own: Any = network[0].updates.whole
    change = (own.b.view(6, 2) @ own.a.view(2, -1)).view(6, 4, size, size)
    with torch.no_grad():
        plain[0].weight += 1.5 * change  # type: ignore[operator]
    torch.testing.assert_close(network(x), plain(x))
    torch.testing.assert_close(merged(network, network.state_dict())["0.weight"], plain[0].weight.data)


def test_convolutions_are_adapted_where_that_is_asked_for_and_possible() -> None:
    for asked, expected in ((False, {"2"}), (True, {"0", "2"})):
        network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Linear(4, 4))
        LoRA(rank=1, convolutions=asked).adapt(network)
        assert {name for name, _ in adapted_maps(network)} == expected
    with pytest.raises(ConfigError, match="no linear map of the network is called"):
        LoRA(rank=1, targets=["*"]).adapt(nn.Sequential(nn.Conv2d(4, 4, 3)))


def test_the_convolutions_of_a_unet_are_adapted_and_switched_off() -> None:
    make, answer = NETWORKS["unet"]
    network = scrambled(make())
    before, adapter = answer(network), LoRA(rank=2, convolutions=True)
    plain = copy.deepcopy(network)
    adapter.adapt(network)
    convolutions = {name for name, layer in adapted_maps(network) if isinstance(layer, nn.Conv2d)}
    assert {"stem", "out", "encoder.blocks.0.conv1", "decoder.blocks.2.shortcut"} <= convolutions
    assert torch.equal(answer(network), before)
    scrambled(network, only_trained=True)
    after = answer(network)
    with adapter.switched_off(network):
        assert torch.equal(answer(network), before)
    plain.load_state_dict(merged(network, network.state_dict()))
    torch.testing.assert_close(answer(plain), after, rtol=1e-4, atol=1e-4 * float(after.detach().abs().max()))


def test_it_is_equation_3() -> None:
    """W + alpha / r B A, written out; of a fused map each part by itself, and one of them unchanged."""
    fused = FusedLinear(6, {"query": 4, "key": 3, "value": 3})
    for rslora, scale in ((False, 3.0 / 2), (True, 3.0 / 2**0.5)):
        network = nn.Sequential(copy.deepcopy(fused))
        LoRA(rank=2, alpha=3.0, targets=["*.query", "0.value"], rslora=rslora).adapt(network)
        scrambled(network, only_trained=True)
        own: Any = network[0]
        query, value = own.updates.query, own.updates.value
        weight = fused.weight + scale * torch.cat([query.b @ query.a, torch.zeros(3, 6), value.b @ value.a])
        x = torch.randn(5, 6)
        torch.testing.assert_close(network(x), x @ weight.T + fused.bias, rtol=0, atol=1e-5)


def test_a_merge_in_float64_is_exact() -> None:
    network = transformer().double()
    plain = copy.deepcopy(network)
    LoRA(rank=3).adapt(network)
    scrambled(network, only_trained=True)
    plain.load_state_dict(merged(network, network.state_dict()))
    assert float((plain(TOKENS) - network(TOKENS)).detach().abs().max()) < 1e-9


def test_weights_of_half_precision_are_summed_in_float32() -> None:
    network = nn.Sequential(nn.Linear(64, 64, bias=False))
    LoRA(rank=4).adapt(network)
    scrambled(network, only_trained=True)
    exact = merged(network, network.state_dict())["0.weight"].bfloat16()
    half = network.bfloat16()
    found = merged(half, half.state_dict())["0.weight"]
    assert found.dtype == torch.bfloat16
    wide = {name: value.float() for name, value in half.state_dict().items()}
    assert torch.equal(found, merged(half, wide)["0.weight"].bfloat16())
    assert not torch.equal(found, exact)  # the summands were rounded before


def test_only_updates_are_trained() -> None:
    network = transformer()
    LoRA(rank=2).adapt(network)
    names = adapter_names(network)
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {*names}
    assert len(names) == 2 * 2 * 7  # A and B of seven maps in each of two blocks
    state = network.state_dict()
    assert {*state} - {*names} == {*transformer().state_dict()}
    grouped = [p for group in parameter_groups(network) for p in group["params"]]
    assert len(grouped) == len(names)
    network(TOKENS).square().mean().backward()
    assert all((p.grad is not None) == p.requires_grad for p in network.parameters())


def test_a_step_costs_what_it_needs() -> None:
    """No gradients of weights that are frozen, nor of what is before the first update."""

    def cost(adapter: LoRA | None) -> int:
        network = transformer()
        if adapter is not None:
            adapter.adapt(network)
        with OperationCounter() as counter:
            network(TOKENS).square().mean().backward()
        return counter.total

    full, low, late = cost(None), cost(LoRA(rank=1)), cost(LoRA(rank=1, targets=["blocks.1.feed_forward.out"]))
    assert low < 0.9 * full
    assert late < 0.6 * low


def test_blocks_that_are_computed_twice_have_the_same_gradients() -> None:
    """Dropout included; nothing before the first block has a gradient."""
    gradients = []
    for twice in (False, True):
        network = transformer(dropout=0.1)
        LoRA(rank=2, dropout=0.5).adapt(network)
        scrambled(network, only_trained=True)
        assert not twice or checkpoint_blocks(network) == 2
        network.train()
        torch.manual_seed(3)
        network(TOKENS).square().mean().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.requires_grad})
    assert all(torch.equal(gradients[0][name], value) for name, value in gradients[1].items())
    assert all(bool(value.any()) for value in gradients[1].values())


def test_dropout_is_of_what_an_update_reads() -> None:
    network = nn.Sequential(nn.Linear(400, 1, bias=False))
    LoRA(rank=1, dropout=0.25).adapt(network)
    own: Any = network[0]
    with torch.no_grad():
        own.updates.whole.a.fill_(1.0)
        own.updates.whole.b.fill_(1.0)
        own.weight.zero_()
        x = torch.ones(2000, 400)
        network.train()
        drawn = network(x)[:, 0] / 16  # 400 times 4/3 with a chance of 3/4: 400 on average
        assert abs(float(drawn.mean()) - 400) < 2
        assert abs(float(drawn.std()) - (400 / 3) ** 0.5) < 1
        assert torch.equal(network.eval()(x), torch.full((2000, 1), 6400.0))


def test_text_is_written_with_it() -> None:
    """A token at a time, by the quick way too."""
    network = transformer().eval()
    LoRA(rank=2, targets=["*.value", "*.out"]).adapt(network)
    scrambled(network, only_trained=True)
    with torch.no_grad():
        cache = network.cache(2, 9)
        pieces = [network(some, None, cache) for some in TOKENS.split([4, 1, 1, 1, 1, 1], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), network(TOKENS), rtol=0, atol=1e-4)
    assert cache.one_token is not None


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (["*"], 14),
        (["*.qkv"], 6),
        (["*.qkv.value", "blocks.1.attention.out"], 3),
        (["blocks.0.feed_forward.gate_and_value.gate"], 1),
    ],
)
def test_targets(targets: Sequence[str], names: int) -> None:
    network = transformer()
    LoRA(targets=targets).adapt(network)
    assert sum(len(layer.updates) for _, layer in adapted_maps(network)) == names


def test_what_is_frozen_or_not_called_has_none() -> None:
    network = transformer()
    network.blocks[0].requires_grad_(False)
    LoRA().adapt(network)
    assert {name.split(".")[1] for name, _ in adapted_maps(network)} == {"1"}
    assert not isinstance(network.head, LoRALinear)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"targets": ["*.qkv", "*.q_proj"]},
            r"targets: no linear map of the network is called \*\.q_proj\. There are "
            r"blocks\.\*\.attention\.qkv\.query, blocks\.\*\.attention\.qkv\.key, .*blocks\.\*\.feed_forward\.out; "
            r"\* stands for any characters",
        ),
        ({"targets": ["head"]}, r"no linear map of the network is called head"),
        ({"targets": []}, r"targets=\[\] names no map to adapt\. Use targets=\['\*'\]"),
        ({"rank": 0}, "rank=0 must be 1 or more"),
        ({"alpha": 0.0}, "alpha=0.0 must be finite and above 0"),
        ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=said):
        LoRA(**options).adapt(transformer())
    with pytest.raises(ConfigError, match="There are none at all"):
        LoRA().adapt(nn.Sequential(nn.Conv2d(1, 1, 1)))
