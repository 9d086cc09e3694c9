"""Numbers as a condition: what a user types, what networks see, and what transformers read."""

from typing import Any

import pytest
import torch

from genlab.model.condition import Conditions
from genlab.model.condition_kind import Numbers
from genlab.model.network.embedding import ConditionEmbedding, NumbersEmbedding
from genlab.model.network.gan_blocks import ProjectionHead
from genlab.seeding import RandomStream

NUMBERS = Numbers(2, ("size", "x"), ("size=1,x=0.25", "size=0,x=0.5"))
VALUES = torch.tensor([[1.0, 0.25], [-1.0, -1.0], [0.0, 0.5]])
TOLD: dict[str, Any] = {"attributes": {"size": 2, "names": ["size", "x"], "examples": [*NUMBERS.examples]}}


def test_numbers() -> None:
    assert NUMBERS.is_nothing(VALUES).tolist() == [False, True, False]
    assert NUMBERS.nothing(2).tolist() == [[-1, -1]] * 2
    assert NUMBERS.read(" x=0.5, size=0").tolist() == [[0, 0.5]]
    assert NUMBERS.words(VALUES) == ["size=1,x=0.25", "", "size=0,x=0.5"]
    assert [NUMBERS.read(text).tolist()[0] for text in NUMBERS.words(VALUES)[::2]] == VALUES[::2].tolist()
    assert NUMBERS.words(NUMBERS.in_turn(range(3))) == [*NUMBERS.examples, NUMBERS.examples[0]]
    drawn = NUMBERS.any(RandomStream.for_samples(0, range(20)))
    assert {*NUMBERS.words(drawn)} == {*NUMBERS.examples}
    free = Numbers(2, ("size", "x")).any(RandomStream.for_samples(0, range(500)))
    assert free.shape == (500, 2)
    assert abs(float(free.mean()) - 0.5) < 0.05
    NUMBERS.check(VALUES)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("size=1,y=0", "no attribute 'y'.* Use attributes=size=0.5,x=0.5"),
        ("siz=1", "Did you mean 'size'"),
        ("size=1", "x is missing"),
        ("size=2,x=0", r"size=2 is outside \[0, 1\]"),
        ("size=nan,x=0", r"size=nan is outside \[0, 1\]"),
        ("size=big,x=0", "size must be a number from 0 to 1, got 'big'"),
        ("", "no attribute ''"),
    ],
)
def test_numbers_that_cannot_be_asked_for(typed: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NUMBERS.read(typed)


@pytest.mark.parametrize("value", [[[0.5]], [[0.5, 1.5]], [[0.5, -1.0]], [[float("nan"), 0.0]]])
def test_values_that_are_not_numbers_of_a_model(value: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="numbers"):
        NUMBERS.check(torch.tensor(value))


def test_tokens_are_bins_of_each_number() -> None:
    edges = torch.tensor([[0.0, 1.0], [0.49, 0.51], [-1.0, -1.0]])
    bins, each = NUMBERS.BINS, NUMBERS.BINS + 1
    assert NUMBERS.tokens(edges).tolist() == [[1, each + bins], [16, each + 17], [0, each]]
    assert (NUMBERS.length, NUMBERS.num_tokens) == (2, 2 * each)


def test_a_model_is_told_numbers_if_it_wants_them() -> None:
    assert Conditions.told(TOLD, None).kinds == {}
    conditions = Conditions.told(TOLD, ["attributes"], dropout=0.5)
    assert conditions.kinds["attributes"].words(VALUES[:1]) == ["size=1,x=0.25"]
    torch.manual_seed(0)
    dropped = conditions.dropped({"attributes": VALUES[:1].expand(1000, -1)})
    assert dropped is not None
    empty = NUMBERS.is_nothing(dropped["attributes"])
    assert 0.4 < float(empty.double().mean()) < 0.6
    assert torch.equal(dropped["attributes"][~empty], VALUES[:1].expand(int((~empty).sum()), -1))
    filled = conditions.drawn(None, RandomStream.for_samples(0, range(3)))
    assert filled is not None
    assert not NUMBERS.is_nothing(filled["attributes"]).any()


def test_an_embedding_is_continuous_and_nothing_is_apart() -> None:
    torch.manual_seed(0)
    embed = NumbersEmbedding(2, 8)
    assert torch.equal(embed(None)[0], embed(VALUES)[1])
    near, far = VALUES[:1] + torch.tensor([[-1e-3, 0]]), VALUES[:1] + torch.tensor([[-0.5, 0]])
    step, leap = ((embed(other) - embed(VALUES[:1])).norm() for other in (near, far))
    assert 0 < step < 0.1 * leap
    told = ConditionEmbedding(Conditions.told(TOLD, ["attributes"]).kinds, 8)
    assert told({"attributes": VALUES}).shape == (3, 8)
    told.start_at(1e-6)
    assert told(None).abs().max() < 1e-4
    assert told({"attributes": VALUES}).abs().max() < 1e-4


def test_a_discriminator_projects_on_them() -> None:
    torch.manual_seed(0)
    head = ProjectionHead(6, {"attributes": NUMBERS}, lambda layer: layer)
    features = torch.randn(3, 6)
    scores = head(features, {"attributes": VALUES})
    vectors = head.told["attributes"](VALUES)
    torch.testing.assert_close(scores, head.linear(features)[:, 0] + (features * vectors).sum(1))
