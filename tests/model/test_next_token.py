"""Which token comes next, against Hugging Face's processors of logits, and the frequencies of what is drawn."""

import pytest
import torch
from torch import Tensor

from genlab.model.sampler.next_token import NextToken

processors = pytest.importorskip("transformers.generation.logits_process")

VOCABULARY = 50
NOTHING = torch.zeros(1, 0, dtype=torch.long)


def logits_of(rows: int = 40, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("top_k", [1, 2, 17, VOCABULARY - 1, VOCABULARY, 1000])
def test_top_k_keeps_what_transformers_keeps(top_k: int) -> None:
    logits = logits_of()
    assert torch.equal(NextToken(top_k=top_k).kept(logits), processors.TopKLogitsWarper(top_k)(None, logits))


@pytest.mark.parametrize("top_p", [1e-6, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("scale", [0.1, 3.0, 20.0])
def test_top_p_keeps_what_transformers_keeps(top_p: float, scale: float) -> None:
    logits = logits_of(scale=scale)
    kept = NextToken(top_p=top_p).kept(logits)
    assert torch.equal(kept, processors.TopPLogitsWarper(top_p)(None, logits))
    likelier = kept.isfinite().sum(dim=1)
    for row, count in enumerate(likelier.tolist()):  # the fewest that have top_p of the probability
        ordered = logits[row].double().softmax(dim=0).sort(descending=True).values
        assert ordered[:count].sum() >= top_p - 1e-6
        assert count == 1 or ordered[: count - 1].sum() < top_p + 1e-6


@pytest.mark.parametrize("min_p", [1e-6, 0.05, 0.3, 1.0])
def test_min_p_keeps_what_transformers_keeps(min_p: float) -> None:
    logits = logits_of()
    assert torch.equal(NextToken(min_p=min_p).kept(logits), processors.MinPLogitsWarper(min_p)(None, logits))


@pytest.mark.parametrize("penalty", [0.7, 1.3, 5.0])
def test_a_penalty_is_that_of_transformers(penalty: float) -> None:
    logits, before = logits_of(), torch.randint(VOCABULARY, (40, 12), generator=torch.Generator().manual_seed(1))
    penalized = NextToken(repetition_penalty=penalty).penalized(logits, before)
    assert torch.equal(penalized, processors.RepetitionPenaltyLogitsProcessor(penalty)(before, logits))


def test_a_penalty_passes_over_padding_and_what_cannot_be_drawn() -> None:
    """-1 stands for nothing; tokens above the vocabulary are labels."""
    logits, before = logits_of(2), torch.tensor([[-1, -1, 4, 7], [VOCABULARY, 5, 5, VOCABULARY + 9]])
    penalized = NextToken(repetition_penalty=2.0).penalized(logits, before)
    assert (penalized != logits).nonzero().tolist() == [[0, 4], [0, 7], [1, 5]]


def test_all_together_in_the_order_of_transformers() -> None:
    logits, before = logits_of(), torch.randint(VOCABULARY, (40, 6), generator=torch.Generator().manual_seed(2))
    sampler = NextToken(temperature=1.7, top_k=20, top_p=0.8, min_p=0.1, repetition_penalty=1.5)
    expected = processors.RepetitionPenaltyLogitsProcessor(1.5)(before, logits)
    for warper in (
        processors.TemperatureLogitsWarper(1.7),
        processors.TopKLogitsWarper(20),
        processors.TopPLogitsWarper(0.8),
        processors.MinPLogitsWarper(0.1),
    ):
        expected = warper(before, expected)
    kept = expected.isfinite()
    assert 1 < kept.sum(dim=1).float().mean() < 20
    grid = (torch.arange(2000) + 0.5) / 2000
    for row in range(40):
        drawn = sampler(logits[row].expand(2000, -1), before[row].expand(2000, -1), grid)
        shares = torch.bincount(drawn, minlength=VOCABULARY) / 2000
        assert not (shares > 0)[~kept[row]].any()
        torch.testing.assert_close(shares, expected[row].softmax(dim=0), rtol=0, atol=1 / 2000)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_uniform_grid_is_drawn_in_proportion(temperature: float) -> None:
    """Of N evenly spread numbers each token gets N p, up to one at either end of its interval."""
    logits, count = torch.tensor([1.0, -2.0, 0.3, -torch.inf, 1.5, -9.0]), 100_000
    grid = (torch.arange(count, dtype=torch.float64) / count).float()
    drawn = NextToken(temperature=temperature)(logits.expand(count, -1), NOTHING.expand(count, -1), grid)
    expected = (logits.double() / temperature).softmax(dim=0) * count
    assert (torch.bincount(drawn, minlength=6) - expected).abs().max() <= 1.1
    assert (drawn.diff() >= 0).all(), "the inverse of a distribution function"
    assert 3 not in drawn


def test_the_ends_of_the_interval() -> None:
    """0 is the first token with any probability; the largest number below 1 the last."""
    logits = torch.tensor([[-torch.inf, 0.0, 2.0, 1.0, -torch.inf, -torch.inf]])
    just_below = torch.nextafter(torch.ones(1), torch.zeros(1))
    assert NextToken()(logits, NOTHING, torch.zeros(1)).item() == 1
    assert NextToken()(logits, NOTHING, just_below).item() == 3
    many = torch.zeros(1, 50_000)  # rounding of the sum must not lead beyond the last
    assert NextToken()(many, NOTHING, just_below).item() == 49_999


def test_temperature_0_is_the_most_likely_token() -> None:
    logits, before = logits_of(), torch.arange(40)[:, None]
    uniform = torch.rand(40)
    assert torch.equal(NextToken(temperature=0)(logits, before, uniform), logits.argmax(dim=1))
    penalized = NextToken(temperature=0, repetition_penalty=100.0)
    best = torch.tensor([[5.0, 4.0, -1.0]])
    assert penalized(best, torch.tensor([[0]]), uniform[:1]).item() == 1
    assert torch.equal(NextToken(temperature=1e-5)(logits, before, uniform), logits.argmax(dim=1)), "its limit"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -0.1}, "temperature=-0.1 must be 0 or more"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0 above 0"),
        ({"top_k": 0}, "top_k=0 must be 1 or more"),
        ({"top_p": 0.0}, r"top_p=0.0 in \(0, 1\]"),
        ({"top_p": 1.01}, "top_p=1.01"),
        ({"min_p": -0.1}, r"min_p=-0.1 in \[0, 1\]"),
        ({"min_p": 1.1}, "min_p=1.1"),
    ],
)
def test_what_is_out_of_range_is_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NextToken(**options)  # type: ignore[arg-type]
