"""Losses and likelihoods of the predictions that count, however they are spread over rows, batches and ranks."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from chats import Given, said
from genlab.callbacks.evaluation import validation_losses
from genlab.data.conversation import Conversation
from genlab.errors import ConfigError
from genlab.metrics.perplexity import Perplexity
from genlab.model.network.feed_forward import SwiGLU
from genlab.model.network.positions import Learned, Rotary, positions_within
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.sampler.next_token import NextToken
from genlab.model.schedule import Constant
from genlab.model.transformer import Transformer
from genlab.run.counted import check_segments

VOCABULARY = 259
CONVERSATIONS = [Conversation(tuple(said(f"{i}" * i, "b" * (7 - i % 7), "c", "d" * i)), "") for i in range(1, 9)]


def network(positions: Any = Rotary, **sizes: Any) -> TokenTransformer:
    parts: dict[str, Any] = {"norm": nn.RMSNorm, "feed_forward": SwiGLU, "width": 8, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    made = TokenTransformer(**sizes, **parts, positions=positions)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def transformer(context: int = 120) -> Transformer:
    made = Transformer(
        network, NextToken(), partial(torch.optim.SGD, lr=1.0), Constant(), (context,), VOCABULARY, 0, {}
    )
    made.configure_model()
    made.log = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    return made


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., Given]:
    return lambda **options: Given(CONVERSATIONS, tmp_path, **{"context": 120, **options})


def rows(given: Given) -> dict[str, Tensor]:
    return given.dataset("train")[[(0, i) for i in range(len(given.dataset("train")))]]


# --- packing ----------------------------------------------------------------------------------------------------------


def test_positions_begin_anew() -> None:
    segment = torch.tensor([[1, 1, 2, 2, 2, 0], [3, 3, 3, 3, 3, 3]])
    assert positions_within(segment).tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5]]


@torch.no_grad()
@pytest.mark.parametrize(("positions", "window"), [(Rotary, None), (Learned, None), (Rotary, 5)])
def test_a_packed_row_has_the_logits_of_its_parts(
    positions: Any, window: int | None, data: Callable[..., Given]
) -> None:
    sizes = {"num_tokens": VOCABULARY, "num_outputs": VOCABULARY, "max_length": 200}
    made = network(positions, causal=True, window=window, windowed_blocks=[0], **sizes)
    batch = rows(data(context=199))
    assert len(batch["tokens"]) < len(CONVERSATIONS) / 2
    together = made(batch["tokens"], segment=batch["segment"])
    changed = 0.0
    for row, segment in enumerate(batch["segment"]):
        for number in range(1, int(segment.max()) + 1):
            own = segment == number
            alone = made(batch["tokens"][row, own][None])[0]
            torch.testing.assert_close(together[row, own], alone, atol=1e-5, rtol=0)
            changed = max(changed, float((made(batch["tokens"])[row, own] - alone).abs().max()))
    assert changed > 0.1  # without segments they differ


def test_a_network_that_knows_no_segments_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config: Any = {"data": {"_target_": "genlab.data.conversations.Conversations", "packing": True}}
    check_segments(config, transformer())
    monkeypatch.setattr(TokenTransformer, "forward", lambda self, tokens, padding=None, cache=None: tokens)
    with pytest.raises(ConfigError, match=r"TokenTransformer does not tell apart .* Use data\.packing=false"):
        check_segments(config, transformer())
    config["data"]["packing"] = False
    check_segments(config, transformer())


# --- what counts ------------------------------------------------------------------------------------------------------


def mean_of(model: Transformer, batch: dict[str, Tensor]) -> float:
    return float(mean_by_hand(model, batch).detach())


def mean_by_hand(model: Transformer, batch: dict[str, Tensor]) -> Tensor:
    """Over all predictions that count, conversation by conversation of unpacked rows."""
    logits = model.network(batch["tokens"][:, :-1])[batch["counted"]]
    return F.cross_entropy(logits, batch["tokens"][:, 1:][batch["counted"]])


def gradients(model: Transformer, batches: list[dict[str, Tensor]], every: int) -> dict[str, Tensor]:
    """Of a step of the model's own hooks on these batches, the last of which ends the run if they are fewer."""
    model.zero_grad()
    model.accumulation.every, model.accumulation.steps = every, True
    for number, batch in enumerate(batches, start=1):
        model.accumulation.begin_batch()
        if number == len(batches):
            model.accumulation.end_run()
        model.backward(model.training_step(batch, 0))
        model.on_after_backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def split(batch: dict[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    return [{key: values[i::parts] for key, values in batch.items()} for i in range(parts)]


def close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5)


def wanted(model: Transformer, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(mean_by_hand(model, batch), parameters), strict=True))


@pytest.mark.parametrize(("parts", "every"), [(1, 1), (4, 4), (2, 2), (2, 4)])
def test_a_step_is_on_the_mean_over_all_that_count(parts: int, every: int, data: Callable[..., Given]) -> None:
    """Whatever share of it each batch has; also where a run ends with fewer batches than a step has."""
    model, batch = transformer(), rows(data(packing=False))
    shares = [int(part["counted"].sum()) for part in split(batch, 4)]
    assert max(shares) > 1.1 * min(shares)
    close(gradients(model, split(batch, parts), every), wanted(model, batch))
    torch.testing.assert_close(model.losses(batch)["loss"], mean_by_hand(model, batch))


def test_packed_rows_give_the_same_step(data: Callable[..., Given]) -> None:
    model = transformer()
    batch = rows(data())
    assert len(batch["tokens"]) < len(CONVERSATIONS)
    close(gradients(model, split(batch, 2), 2), wanted(model, rows(data(packing=False))))


def test_ranks_share_what_counts(data: Callable[..., Given], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two has half of the rows, in two batches; gradients are averaged before they are completed."""
    model, batch = transformer(), rows(data(packing=False))
    total = batch["counted"].sum()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda counted: counted.copy_(total))
    found = [gradients(model, split(half, 2), 2) for half in split(batch, 2)]
    close({name: (found[0][name] + found[1][name]) / 2 for name in found[0]}, wanted(model, batch))


def test_validation_counts_the_same(data: Callable[..., Given]) -> None:
    model, given = transformer(), data(packing=False, batch_size=3)
    trainer: Any = SimpleNamespace(
        datamodule=given, global_rank=0, strategy=SimpleNamespace(reduce=lambda value, reduce_op: value)
    )
    found = validation_losses(trainer, model)["loss"]
    assert found == pytest.approx(mean_of(model, rows(given)), rel=1e-5)


def test_perplexity_counts_the_same(data: Callable[..., Given]) -> None:
    model, metric = transformer(), Perplexity()
    batch = rows(data(packing=False))
    metric.measure(model, data(), "val", batch_size=3)
    found = metric.compute()
    mean = mean_of(model, batch)
    assert float(found["perplexity"]) == pytest.approx(math.exp(mean), rel=1e-4)
    counted = batch["tokens"][:, 1:][batch["counted"]]
    bits = mean * len(counted) / math.log(2)
    assert float(found["bits_per_byte"]) == pytest.approx(bits / int((counted < 256).sum()), rel=1e-4)
    with pytest.raises(ConfigError, match="conversations are not cut into windows"):
        Perplexity(stride=2).check(model, data())
