"""Weights in 8 and 4 bits: the numbers of bitsandbytes, as far from the weights as they may be, and multiplied by."""

import copy
from statistics import NormalDist
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_lora import NETWORKS, TOKENS, scrambled, transformer
from torch import Tensor, nn

from genlab.errors import ConfigError
from genlab.model.activation_checkpointing import checkpoint_blocks
from genlab.model.adapter.lora import LoRA, adapted_maps, adapter_names, dense, merged, quantizations, quantized
from genlab.model.network.quantized_weight import (
    BLOCK,
    NF4,
    Quantization,
    QuantizedWeight,
    dequantize,
    number_of_weights,
    quantize,
)

KINDS: tuple[Quantization, ...] = ("int8", "nf4")


def wave(rows: int = 3, columns: int = 64) -> Tensor:
    """Weights that are the same on every machine."""
    places = torch.arange(rows * columns, dtype=torch.float64)
    return (0.2 * torch.sin(places * 0.61 + 1) * (1 + places / 50)).float().view(rows, columns)


def back(weight: Tensor, kind: Quantization) -> Tensor:
    return dequantize(*quantize(weight, kind), tuple(weight.shape), kind)


def test_nf4_has_quantiles_of_the_normal_distribution() -> None:
    """Of 8 and of 9 shares of its halves, by the offset that appendix E works out, over the largest of them."""
    offset = 0.9677083

    def half(count: int) -> list[float]:
        return [NormalDist().inv_cdf(offset + (0.5 - offset) * i / (count - 1)) for i in range(count - 1)]

    values = sorted([*half(9), 0.0, *(-quantile for quantile in half(8))])
    exact = torch.tensor([value / values[-1] for value in values])
    torch.testing.assert_close(torch.tensor(sorted(-v for v in NF4)), exact.flip(0).neg(), rtol=0, atol=1e-6)


def test_they_are_the_numbers_of_bitsandbytes() -> None:
    """Recorded with bitsandbytes 0.50 (quantize_4bit with a blocksize of 64, int8_vectorwise_quant)."""
    scales = torch.tensor([0.44622012972831726, 0.6725488901138306, 0.9236271977424622])
    numbers, found = quantize(wave(), "nf4")
    assert torch.equal(found.flatten(), scales)
    assert bytes(numbers.flatten().tolist()).hex() == (
        "bcb9532358cdca632247bddc831126bded941114adeeb520138dffd720016cff"
        "c942125adeda521138deec721127ceed831015befea410139effc610027dffe8"
        "31126beed941114aeeeb520138deed720026cefe931014befeb510039effd610"
    )
    assert float(dequantize(numbers, found, (3, 64), "nf4").sum()) == pytest.approx(-0.2576867341995239, abs=1e-6)
    numbers, found = quantize(wave(), "int8")
    torch.testing.assert_close(found.flatten(), scales / 127)
    assert numbers.sum(dim=1).tolist() == [173, 145, -160]
    assert numbers[:, :8].tolist() == [
        [48, 58, 47, 18, -18, -49, -64, -55],
        [62, 16, -36, -76, -89, -70, -25, 29],
        [-50, -90, -97, -69, -16, 44, 88, 101],
    ]


@pytest.mark.matrix
@pytest.mark.parametrize("shape", [(96, 64), (100, 128), (7, 9)])
def test_they_are_those_of_bitsandbytes_itself(shape: tuple[int, int]) -> None:
    """Where it is installed."""
    functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    theirs, state = functional.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
    numbers, scales = quantize(weight, "nf4")
    assert torch.equal(numbers.flatten()[: theirs.numel()], theirs.flatten())
    assert torch.equal(scales.flatten(), state.absmax)
    assert torch.equal(back(weight, "nf4"), functional.dequantize_4bit(theirs, state))
    theirs, largest, _ = functional.int8_vectorwise_quant(weight)
    assert torch.equal(quantize(weight, "int8")[0], theirs)
    torch.testing.assert_close(back(weight, "int8"), functional.int8_vectorwise_dequant(theirs, largest))


@pytest.mark.parametrize("shape", [(96, 64), (7, 9), (1, 1)])
def test_each_weight_becomes_the_nearest_number(shape: tuple[int, int]) -> None:
    """Of those that its scale allows."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    error = (back(weight, "int8") - weight).abs()
    assert bool((error <= weight.abs().amax(dim=1, keepdim=True) / 254 * 1.0001).all())
    found, flat = back(weight, "nf4").flatten(), weight.flatten()
    for begin in range(0, len(flat), BLOCK):
        some = flat[begin : begin + BLOCK]
        allowed = some.abs().max() * torch.tensor(NF4)
        nearest = allowed[(some[:, None] - allowed).abs().argmin(dim=1)]
        torch.testing.assert_close(found[begin : begin + BLOCK], nearest)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_0_are_0(kind: Quantization) -> None:
    weight = torch.randn(4, 64)
    weight[1] = 0
    assert torch.equal(back(weight, kind)[1], torch.zeros(64))
    assert bool(back(weight, kind).isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_quantized_stays_as_it_is(kind: Quantization) -> None:
    """The second time."""
    once = back(torch.randn(50, 64), kind)
    torch.testing.assert_close(back(once, kind), once, rtol=1e-6, atol=0)
    assert torch.equal(quantize(back(once, kind), kind)[0], quantize(once, kind)[0])


@pytest.mark.parametrize(("kind", "share"), [("int8", 4 / (1 + 4 / 256)), ("nf4", 4 / (1 / 2 + 4 / 64))])
def test_it_needs_the_memory_that_it_should(kind: Quantization, share: float) -> None:
    """3.9 and 7.1 times less than float32."""
    kept = QuantizedWeight(torch.randn(128, 256), kind)
    assert 4 * 128 * 256 / sum(p.nbytes for p in kept.parameters()) == pytest.approx(share)
    assert not any(True for _ in kept.buffers())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_products_and_their_gradients_are_those_of_the_floats(kind: Quantization, dtype: torch.dtype) -> None:
    kept, bias = QuantizedWeight(torch.randn(12, 20), kind), torch.randn(12, dtype=dtype)
    x = torch.randn(2, 3, 20, dtype=dtype, requires_grad=True)
    y = kept(x, bias)
    expected = F.linear(x, kept.dense().to(dtype), bias)
    assert y.dtype == dtype
    assert torch.equal(y, expected)
    slope = torch.randn_like(y)
    (found,), (exact,) = (torch.autograd.grad(each, x, slope) for each in (y, expected))
    torch.testing.assert_close(found, exact)


def test_mixed_precision_is_that_of_a_linear_map() -> None:
    kept, x = QuantizedWeight(torch.randn(12, 20), "nf4"), torch.randn(3, 20, requires_grad=True)
    plain = nn.Linear(20, 12, bias=False)
    plain.weight.data = kept.dense()
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = kept(x, None), plain(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    (found,), (exact,) = (torch.autograd.grad(each.float().square().sum(), x) for each in (y, expected))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("kind", KINDS)
def test_no_floats_are_kept_for_the_backward_pass(kind: Quantization) -> None:
    network = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4)))
    LoRA(rank=1, quantization=kind).adapt(network)
    kept: dict[int, int] = {}

    def count(x: Tensor) -> Tensor:
        kept[x.data_ptr()] = x.nbytes
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        network(torch.randn(2, 64)).sum()
    assert sum(kept.values()) < 4 * (64 * 64 * 1.2 + 4 * 64 * 8)  # of float32 weights these would be four times as many


def test_half_precision_leaves_scales_alone() -> None:
    kept = QuantizedWeight(torch.randn(12, 20), "nf4")
    before = kept.dense()
    kept.to(torch.bfloat16).double().float()
    assert torch.equal(kept.dense(), before)


# --- under an adapter ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("quantization", KINDS)
def test_a_network_is_that_of_its_dequantized_weights(kind: str, quantization: Quantization) -> None:
    """Before its updates are trained, and, merged, after."""
    make, answer = NETWORKS[kind]
    network = scrambled(make())
    plain, state = copy.deepcopy(network), network.state_dict()
    LoRA(rank=2, alpha=3.0, quantization=quantization).adapt(network)
    assert {*dense(network, network.state_dict())} - {*adapter_names(network)} == {*state}
    plain.load_state_dict(merged(network, network.state_dict()))
    torch.testing.assert_close(answer(plain), answer(network), rtol=0, atol=1e-5)
    scrambled(network, only_trained=True)
    plain.load_state_dict(merged(network, network.state_dict()))
    after = answer(network)
    torch.testing.assert_close(answer(plain), after, rtol=0, atol=1e-5 * max(1.0, float(after.detach().abs().max())))


def test_all_maps_are_quantized_whatever_is_adapted() -> None:
    """And nothing else: no norm, no embedding, no head; nor what was frozen before."""
    network = transformer()
    network.blocks[0].feed_forward.requires_grad_(False)
    LoRA(rank=2, targets=["*.qkv.value"], quantization="nf4").adapt(network)
    maps = {f"blocks.{i}.{name}" for i in range(2) for name in ("attention.qkv", "attention.out", "feed_forward.out")}
    maps |= {"blocks.1.feed_forward.gate_and_value", "blocks.0.feed_forward.gate_and_value"}
    frozen_before = {name for name in maps if name.startswith("blocks.0.feed_forward")}
    assert {*quantizations(network)} == maps - frozen_before
    assert sum(len(layer.updates) for _, layer in adapted_maps(network)) == 2
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {*adapter_names(network)}
    assert number_of_weights(network) == number_of_weights(transformer()) + sum(
        p.numel() for p in network.parameters() if p.requires_grad
    )


def test_a_state_is_quantized_once() -> None:
    network = transformer()
    state = copy.deepcopy(network.state_dict())
    LoRA(rank=2, quantization="nf4").adapt(network)
    own = network.state_dict()
    found = quantized(network, state)
    assert {*found} == {*own} - {*adapter_names(network)}
    assert all(torch.equal(value, own[name]) for name, value in found.items())
    again = quantized(network, found)
    assert all(torch.equal(again[name], value) for name, value in found.items())


def test_blocks_that_are_computed_twice_have_the_same_gradients() -> None:
    gradients = []
    for twice in (False, True):
        network = transformer()
        LoRA(rank=2, quantization="nf4").adapt(network)
        torch.manual_seed(4)
        scrambled(network, only_trained=True)
        assert not twice or checkpoint_blocks(network) == 2
        network(TOKENS).square().mean().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.requires_grad})
    assert all(torch.equal(gradients[0][name], value) for name, value in gradients[1].items())
    assert all(bool(value.any()) for value in gradients[1].values())


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_written_with_it(kind: Quantization) -> None:
    """A token at a time, by the quick way too, which makes floats of it once."""
    network = transformer().eval()
    LoRA(rank=2, targets=["*.value", "*.out"], quantization=kind).adapt(network)
    scrambled(network, only_trained=True)
    with torch.no_grad():
        cache = network.cache(2, 9)
        pieces = [network(some, None, cache) for some in TOKENS.split([4, 1, 1, 1, 1, 1], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), network(TOKENS), rtol=0, atol=1e-4)
    assert cache.one_token is not None
    bare: Any = cache.one_token.network.blocks[0].attention.out.quantized
    assert bare.kept.shape == (16, 16)
    assert network.blocks[0].attention.out.quantized.kept is None


def test_a_network_may_ask_for_the_weight() -> None:
    network = nn.Sequential(nn.Linear(64, 8))
    LoRA(rank=1, quantization="int8").adapt(network)
    own: Any = network[0]
    assert torch.equal(own.weight, own.quantized.dense())
    with pytest.raises(AttributeError, match="nothing"):
        _ = own.nothing


def test_what_has_no_maps_is_refused_as_without() -> None:
    with pytest.raises(ConfigError, match="There are none at all"):
        LoRA(quantization="nf4").adapt(nn.Sequential(nn.Conv2d(1, 1, 1)))
