"""The network of transformers over tokens, against Hugging Face's implementations and against itself."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.model.network import one_token as one_token_module
from genlab.model.network import token_transformer
from genlab.model.network.feed_forward import FeedForward, SquaredReLU, SwiGLU
from genlab.model.network.one_token import OneToken, OneTokenOfFixedShapes
from genlab.model.network.positions import Rotary
from genlab.model.network.token_transformer import TokenTransformer
from hugging_face import DEPTH, LENGTH, SIZES, VOCABULARY, gpt2, llama, same_weights, scrambled, to_gpt2, to_llama


@pytest.fixture(params=["gpt2", "llama"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, TokenTransformer]:
    return same_weights(request.param)


@torch.no_grad()
def test_logits_are_those_of_transformers(pair: tuple[Any, TokenTransformer]) -> None:
    theirs, ours = pair
    tokens = torch.randint(VOCABULARY, (5, LENGTH))
    expected = theirs(tokens).logits
    assert expected.std() > 1
    torch.testing.assert_close(ours(tokens), expected, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_our_weights_go_into_transformers(kind: str) -> None:
    torch.manual_seed(4)
    theirs, ours = gpt2() if kind == "gpt2" else llama()
    scrambled(ours)
    own = ours.state_dict()
    theirs.load_state_dict(to_gpt2(own, DEPTH) if kind == "gpt2" else to_llama(own, DEPTH))
    tokens = torch.randint(VOCABULARY, (5, LENGTH))
    torch.testing.assert_close(theirs(tokens).logits, ours(tokens), rtol=0, atol=1e-4)


@torch.no_grad()
def test_padding_on_the_left_is_not_seen(pair: tuple[Any, TokenTransformer]) -> None:
    theirs, ours = pair
    tokens, padding = torch.randint(VOCABULARY, (4, 12)), torch.tensor([0, 3, 7, 11])
    logits = ours(tokens, padding)
    mask = (torch.arange(12) >= padding[:, None]).long()
    positions = (torch.arange(12) - padding[:, None]).clamp(min=0)
    expected = theirs(tokens, attention_mask=mask, position_ids=positions).logits
    for row, skipped in enumerate(padding.tolist()):
        torch.testing.assert_close(logits[row, skipped:], expected[row, skipped:], rtol=0, atol=1e-4)
        alone = ours(tokens[row : row + 1, skipped:])
        torch.testing.assert_close(logits[row : row + 1, skipped:], alone, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_a_cache_changes_nothing(pair: tuple[Any, TokenTransformer], padded: bool) -> None:
    _, ours = pair
    tokens = torch.randint(VOCABULARY, (3, 20))
    padding = torch.tensor([0, 2, 5]) if padded else None
    cache = ours.cache(3, LENGTH)
    pieces, done = [], 0
    for count in (6, 1, 1, 5, 1, 6):  # a prompt, single tokens, and several at once
        pieces.append(ours(tokens[:, done : done + count], padding, cache))
        done += count
    assert cache.used == done == 20
    whole = ours(tokens, padding)
    for row in range(3):
        first = 0 if padding is None else int(padding[row])
        torch.testing.assert_close(torch.cat(pieces, dim=1)[row, first:], whole[row, first:], rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["cpu", "few", "by columns", "many", "fixed shapes"])
def test_one_token_is_the_whole_text_again(
    pair: tuple[Any, TokenTransformer], kind: str, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By each library that multiplies, and with shapes as they are on a GPU."""
    _, ours = pair
    made: list[OneToken] = []
    chosen = OneTokenOfFixedShapes if kind == "fixed shapes" else OneToken

    def one_token(*given: Any) -> OneToken:
        made.append(chosen(*given))
        return made[-1]

    monkeypatch.setattr(token_transformer, "OneToken", one_token)
    monkeypatch.setattr(one_token_module, "_SMALL", {"few": 2**40, "by columns": 2**40, "many": 0}.get(kind, 2**20))
    monkeypatch.setattr(one_token_module, "_FEW", {"by columns": 1}.get(kind, 4))
    monkeypatch.setattr(one_token_module, "_LONG", 1)
    tokens, padding = torch.randint(VOCABULARY, (3, 15)), torch.tensor([0, 2, 4]) if padded else None
    cache = ours.cache(3, LENGTH)
    for kept in (*cache.keys, *cache.values):
        kept.fill_(torch.nan)  # as memory may hold that nobody has written to
    ours(tokens[:, :5], padding, cache)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        logits = torch.cat([ours(tokens[:, i : i + 1], padding, cache) for i in range(5, 15)], dim=1)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(precision)
    assert len(made) == 1
    assert cache.used == 15
    asked, kept_weight = (network.blocks[0].attention.qkv.weight for network in (made[0].network, ours))
    assert asked.is_contiguous() == (kind != "by columns")
    assert kept_weight.is_contiguous()
    assert torch.equal(asked, kept_weight)
    torch.testing.assert_close(logits, ours(tokens, padding)[:, 5:], rtol=0, atol=1e-4)


def test_one_token_keeps_gradients_dropout_and_hooks() -> None:
    """With the first two, a single token goes the way of many; hooks are called."""
    network, tokens, seen = modern(dropout=0.5), torch.randint(VOCABULARY, (2, 6)), []
    nn.init.normal_(network.blocks[0].feed_forward.out.weight)
    network.blocks[1].feed_forward.register_forward_hook(lambda module, given, made: seen.append(made.shape))
    cache = network.eval().cache(2, 6)
    with torch.no_grad():
        network(tokens[:, :4], None, cache)
        network(tokens[:, 4:5], None, cache)
        assert cache.one_token is not None
        assert [shape[:-1].numel() for shape in seen] == [8, 2]
        cache.used = 4
        first, second = (network.train()(tokens[:, 4:5], None, cache) for cache.used in (4, 4))
    assert not torch.equal(first, second)
    cache.used = 4
    assert network.eval()(tokens[:, 4:5], None, cache).requires_grad


def modern(causal: bool = True, **options: Any) -> TokenTransformer:
    return TokenTransformer(
        **SIZES | {"causal": causal}, positions=Rotary, norm=nn.RMSNorm, feed_forward=SwiGLU, head_norm=nn.RMSNorm,
        width=32, depth=2, **options,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [True, False])
def test_who_sees_whom(causal: bool, dtype: torch.dtype) -> None:
    """The derivative of each token's logits by each embedding: zero for later tokens if causal, and only then."""
    torch.manual_seed(0)
    network = modern(causal).to(dtype)
    scrambled(network)
    tokens = torch.randint(VOCABULARY, (1, 6))
    for t in range(6):
        embedded = network.embedding(tokens).detach().requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network.embedding, "forward", lambda _, embedded=embedded: embedded)
            (slope,) = torch.autograd.grad(network(tokens)[0, t].float().square().sum(), embedded)
        sees = slope[0].abs().sum(dim=1) > 0
        assert sees.tolist() == [s <= t or not causal for s in range(6)]


def test_attention_by_matrices_is_attention() -> None:
    """In bfloat16 on a CPU attention takes another way: compared in float64 arithmetic of the same rounded inputs."""
    from genlab.model.network.attention import attend

    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 9, 8).bfloat16() for _ in range(3))
    mask = torch.rand(2, 1, 9, 9) < 0.5
    mask |= torch.eye(9, dtype=torch.bool)
    for options in ({}, {"causal": True}, {"mask": mask}):
        expected = attend(query.double(), key.double(), value.double(), **options)
        torch.testing.assert_close(attend(query, key, value, **options).double(), expected, rtol=0, atol=0.03)


def test_rotary_attention_knows_distances_alone() -> None:
    torch.manual_seed(0)
    rotary = Rotary(max_length=64, width=16, head_width=8)

    def score(query: Tensor, key: Tensor, at: int, distance: int) -> Tensor:
        from genlab.model.network.positions import turn

        turned = turn(query, rotary.turns(torch.tensor([at + distance])))
        return (turned * turn(key, rotary.turns(torch.tensor([at])))).sum()

    query, key = torch.randn(2, 1, 1, 1, 8)
    for distance in (0, 1, 17):
        scores = torch.stack([score(query, key, at, distance) for at in (0, 5, 40)])
        torch.testing.assert_close(scores, scores[:1].expand(3), rtol=1e-4, atol=1e-5)
    assert (score(query, key, 0, 1) - score(query, key, 0, 17)).abs() > 1e-3


def test_parts_as_published() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 12)
    squared = FeedForward(12, SquaredReLU(), bias=True)
    hidden = x @ squared.expand.weight.t() + squared.expand.bias
    torch.testing.assert_close(squared(x), hidden.clamp(min=0) ** 2 @ squared.out.weight.t() + squared.out.bias)
    gated = SwiGLU(12)
    assert gated.out.in_features == 32  # 8/3 of the width, a multiple of 8
    gate, value = (x @ w.t() for w in gated.gate_and_value.weight.chunk(2))
    torch.testing.assert_close(gated(x), (gate * torch.sigmoid(gate) * value) @ gated.out.weight.t())


def test_blocks_that_start_at_zero_are_the_identity_and_logits_can_be_capped() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(VOCABULARY, (2, 5))
    network = modern(zero_init=True)
    rows = network.embedding(tokens)
    expected = network.norm(rows) @ network.embedding.weight.t()
    torch.testing.assert_close(network(tokens), expected)
    capped = modern(zero_init=True, logit_cap=0.5)
    capped.load_state_dict(network.state_dict())
    torch.testing.assert_close(capped(tokens), 0.5 * torch.tanh(expected / 0.5))


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_heads=5 must divide width=32"):
        modern(num_heads=5)
    with pytest.raises(ValueError, match=r"num_kv_heads=3 num_heads"):
        modern(num_heads=4, num_kv_heads=3)
    with pytest.raises(ValueError, match=r"even width of heads, got 1"):
        modern(num_heads=32)
