"""What a sample can be asked for, and what a model is told of it."""

from typing import Any

import pytest
import torch

from genlab.model.condition import Conditions, told_to
from genlab.model.condition_kind import Caption, Label
from genlab.model.network.embedding import CaptionEmbedding, ConditionEmbedding
from genlab.seeding import RandomStream

WORDS = ("<nothing>", "a", "red", "blue", "circle")
CAPTIONS = ("a red circle", "a blue circle", "circle")
LABEL, CAPTION = Label(3, ("x", "y", "z"), empty=(1,), examples=(2, 0, 0)), Caption(5, 4, WORDS, CAPTIONS)
TOLD: dict[str, Any] = {
    "label": {"size": 3, "names": ["x", "y", "z"], "empty": []},
    "caption": {"size": 5, "length": 4, "names": list(WORDS), "examples": list(CAPTIONS)},
}
BATCH = {"label": torch.tensor([2, 0, 1]), "caption": torch.tensor([[1, 2, 4, 0], [4, 0, 0, 0], [0, 0, 0, 0]])}


def stream(count: int) -> RandomStream:
    return RandomStream.for_samples(0, range(count))


# --- kinds ------------------------------------------------------------------------------------------------------------


def test_a_label() -> None:
    assert LABEL.nothing(2).tolist() == [-1, -1]
    assert LABEL.is_nothing(torch.tensor([-1, 0])).tolist() == [True, False]
    assert set(LABEL.any(stream(50)).tolist()) == {0, 2}, "nobody is asked for an empty class"
    assert LABEL.in_turn(range(4)).tolist() == [0, 2, 0, 2]
    assert LABEL.example(range(4)).tolist() == [2, 0, 0, 2]
    assert LABEL.tokens(torch.tensor([-1, 2])).tolist() == [[0], [3]]
    assert (LABEL.num_tokens, LABEL.length) == (4, 1)
    assert [LABEL.read(typed).tolist() for typed in (2, "z")] == [[2], [2]]
    assert LABEL.words(torch.tensor([0, -1])) == ["x", ""]


def test_a_caption() -> None:
    assert CAPTION.is_nothing(BATCH["caption"]).tolist() == [False, False, True]
    assert CAPTION.nothing(2).tolist() == [[0] * 4] * 2
    assert CAPTION.read("A  blue circle").tolist() == [[1, 3, 4, 0]]
    assert CAPTION.words(BATCH["caption"]) == ["a red circle", "circle", ""]
    assert CAPTION.words(CAPTION.in_turn(range(4))) == [*CAPTIONS, CAPTIONS[0]]
    assert set(CAPTION.words(CAPTION.any(stream(50)))) == set(CAPTIONS)
    assert CAPTION.tokens(BATCH["caption"]).tolist() == BATCH["caption"].tolist()


@pytest.mark.parametrize(("kind", "typed", "said"), [
    (LABEL, "w", r"there is no class 'w'.* The classes are x, y, z\."), (LABEL, 3, "must be a class from 0 to 2"),
    (LABEL, 1, r"no image .* has this label\. Use one of 0, 2"), (CAPTION, "a blu circle", "Did you mean 'blue'"),
    (CAPTION, "a <nothing>", "unknown word '<nothing>'.* Known: a, red"),
    (CAPTION, "a a a a a", "5 words, .* at most 4"),
])  # fmt: skip
def test_what_cannot_be_asked_for(kind: Any, typed: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kind.read(typed)


# --- what a model is told -------------------------------------------------------------------------------------------


def test_a_model_is_told_labels_unless_somebody_says_otherwise() -> None:
    assert list(Conditions.told(TOLD, None).kinds) == ["label"]
    assert Conditions.told({"label": {"size": None}, "caption": {"size": None}}, None).kinds == {}
    assert list(Conditions.told(TOLD, ["caption", "label"]).kinds) == ["caption", "label"]
    assert Conditions.told(TOLD, []).of(BATCH) is None
    with pytest.raises(
        ValueError, match=r"the data have no caption, they have label\. Use model\.conditions=\[label\]"
    ):
        Conditions.told({"label": TOLD["label"]}, ["caption"])
    with pytest.raises(ValueError, match=r"have no conditions\. Use model\.conditions=\[\]"):
        Conditions.told({"label": {"size": None}}, ["label"])


def test_labels_alone_are_dropped_by_the_draws_of_always() -> None:
    label = torch.arange(3).repeat(100)
    torch.manual_seed(1)
    found = Conditions({"label": LABEL}, 0.3).dropped({"label": label})
    torch.manual_seed(1)
    assert found is not None
    assert torch.equal(found["label"], label.masked_fill(torch.rand(300) < 0.3, -1))


@pytest.mark.parametrize("dropout", [0.4, {"label": 0.2, "caption": 0.5}])
def test_keys_are_dropped_together_or_each_by_itself(dropout: Any) -> None:
    batch = {"label": torch.zeros(4000, dtype=torch.long), "caption": torch.ones(4000, 4, dtype=torch.long)}
    found = Conditions({"label": LABEL, "caption": CAPTION}, dropout).dropped(batch)
    assert found is not None
    label, caption = found["label"] == -1, (found["caption"] == 0).all(dim=1)
    if isinstance(dropout, float):
        assert torch.equal(label, caption)
        assert label.float().mean().item() == pytest.approx(dropout, abs=0.03)
    else:
        for key, gone in (("label", label), ("caption", caption)):
            assert gone.float().mean().item() == pytest.approx(dropout[key], abs=0.03)
        assert (label & caption).float().mean().item() == pytest.approx(0.1, abs=0.03)
    assert (found["caption"][~caption] == 1).all()


def test_who_is_not_told_is_told_what_one_held_out_example_has() -> None:
    conditions = Conditions({"label": LABEL, "caption": CAPTION})
    pairs = {(2, CAPTIONS[0]), (0, CAPTIONS[1]), (0, CAPTIONS[2])}
    drawn = conditions.drawn(None, stream(30))
    asked = conditions.in_turn(range(30))
    for found in (drawn, asked):
        assert found is not None
        assert set(zip(found["label"].tolist(), CAPTION.words(found["caption"]), strict=True)) == pairs
    some = conditions.drawn({"label": torch.tensor([1, -1])}, stream(2))
    assert some is not None
    assert drawn is not None
    assert some["label"].tolist() == [1, drawn["label"][1]]


def test_classes_of_rows() -> None:
    """Captions are none, and rows without one have none."""
    both = Conditions({"label": LABEL, "caption": CAPTION})
    asked = BATCH | {"label": torch.tensor([2, -1, 0])}
    assert both.classes(asked, 3) == [{"label": 2}, {}, {"label": 0}]
    assert both.classes({"caption": BATCH["caption"]}, 3) == both.classes(None, 3) == [{}, {}, {}]
    assert Conditions({}).classes(None, 2) == [{}, {}]


def test_what_cannot_be_is_refused() -> None:
    both = Conditions({"label": LABEL, "caption": CAPTION})
    for kinds, dropout, said in [
        ({"label": LABEL}, 2.0, r"condition_dropout=2\.0 is outside"),
        ({"label": LABEL}, {"caption": 0.1}, "not conditioned on a"),
        ({"label": LABEL}, {"label": -1.0}, r"condition_dropout\.label=-1\.0 is outside"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=said):
            Conditions(kinds, dropout)  # type: ignore[arg-type]
    for condition, said in [({"label": torch.tensor([3])}, "Use 0 to 2"), ({"mask": torch.zeros(1)}, "has no masks"),
                            ({"caption": torch.tensor([[9, 0, 0, 0]])}, "numbers 0 to 4"),
                            ({"caption": torch.tensor([[1]])}, r"use \(N, 4\)")]:  # fmt: skip
        with pytest.raises(ValueError, match=said):
            both.check(condition)
    with pytest.raises(ValueError, match=r"strength=2\.0 needs a model trained with"):
        Conditions(both.kinds, {"label": 0.1}).check_guided(2.0)
    Conditions(both.kinds, 0.1).check_guided(2.0)
    Conditions({}, 0.0).check_guided(2.0)


# --- networks ---------------------------------------------------------------------------------------------------------


def test_a_network_is_told_if_it_takes_it() -> None:
    assert told_to(lambda told, width=1: None, {"label": LABEL}) == {"told": {"label": LABEL}}
    assert told_to(lambda width=1: None, {"label": LABEL}) == {}


@torch.no_grad()
def test_vectors_of_keys_add_up_and_who_lacks_one_is_told_nothing() -> None:
    embed = ConditionEmbedding({"label": LABEL, "caption": CAPTION}, 6).eval()
    rows, words = embed["label"].rows.weight, embed["caption"](BATCH["caption"])  # type: ignore[operator]
    torch.testing.assert_close(embed(BATCH), rows[BATCH["label"] + 1] + words)
    torch.testing.assert_close(words[2:], embed["caption"].nothing[None])  # type: ignore[index]
    torch.testing.assert_close(embed({"caption": BATCH["caption"]}), rows[:1] + words)
    torch.testing.assert_close(embed(None), rows[:1] + embed["caption"].nothing)  # type: ignore[operator]
    torch.testing.assert_close(embed.guided(BATCH, 3), torch.cat([embed(None).expand(3, -1), embed(BATCH)]))
    assert embed.side_by_side(BATCH, 3).shape == (3, 12)


@torch.no_grad()
def test_a_caption_is_read_in_order_and_what_fills_it_up_is_not() -> None:
    embed = CaptionEmbedding(5, 6, 8).eval()
    one, other = embed(torch.tensor([[1, 2, 3, 0, 0, 0]])), embed(torch.tensor([[3, 2, 1, 0, 0, 0]]))
    assert not torch.allclose(one, other, atol=1e-3)
    torch.testing.assert_close(embed(torch.tensor([[1, 2, 3]])), one)


def test_labels_alone_have_the_weights_of_always() -> None:
    torch.manual_seed(0)
    embed = ConditionEmbedding({"label": Label(3)}, 4)
    torch.manual_seed(0)
    assert torch.equal(embed["label"].rows.weight, torch.nn.Embedding(4, 4).weight)  # type: ignore[union-attr]
