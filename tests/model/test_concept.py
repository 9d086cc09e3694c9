"""A new word of a diffusion model: what is trained, what stays to the last bit, and the loss of the class."""

import re
from functools import partial
from typing import Any

import pytest
import torch
from test_control import NETWORKS, OPTIMIZER, SHAPE, TOLD, diffusion
from torch import Tensor, nn

from genlab.model.adapter.lora import LoRA, adapter_names
from genlab.model.concept import Concept, word_embeddings
from genlab.model.diffusion import Diffusion
from genlab.model.network.mmdit import MMDiT
from genlab.model.schedule import Constant
from genlab.seeding import RandomStream

WORDS = {"caption": TOLD["caption"]}


def of_captions(network: str = "dit_of_words", **changes: Any) -> Diffusion:
    return diffusion(network, **{"conditions": ["caption"], **changes})


def learner(base: Diffusion | None = None, told: Any = None, **changes: Any) -> Concept:
    """As a new run begins."""
    arguments = {"word": "sks", "condition_dropout": 0.0, **changes}
    model = Concept(base or of_captions(), arguments.pop("word"), OPTIMIZER, Constant(), SHAPE, told or {}, **arguments)
    model.configure_model()
    model.on_fit_start()
    return model


def batch(count: int = 4) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {"image": torch.rand(count, *SHAPE, generator=draw) * 2 - 1, "index": torch.arange(count)}


@pytest.mark.parametrize("adapter", [None, LoRA(rank=2, convolutions=True)])
@pytest.mark.parametrize(
    "network", ["dit_of_words", *(pytest.param(n, marks=pytest.mark.matrix) for n in ("unet_of_words", "dit", "mmdit"))]
)
def test_it_says_of_known_words_what_the_base_does(network: str, adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, as long as the adapter is new; and of the new word what it would of the word it begins like."""
    monkeypatch.setitem(NETWORKS, "mmdit", partial(MMDiT, SHAPE, width=8, depth=2, num_heads=2))
    base = of_captions(network)
    model = learner(base, adapter=adapter, starts_like="red").eval()
    known, new = model.caption.read("a red dot"), model.caption.read("a sks dot")
    assert int(new[0, 1]) == model.caption.size - 1 == base.conditions.kinds["caption"].size
    drawn = [
        m.sample(1, {"caption": c}, RandomStream.for_samples(0, range(1)))
        for m, c in ((base, known), (model, known), (model, new))
    ]
    assert torch.equal(drawn[1], drawn[0])
    assert torch.equal(drawn[2], drawn[0])
    for embedding in word_embeddings(model.network):
        embedding.added.data += 0.5
    other = model.sample(1, {"caption": new}, RandomStream.for_samples(0, range(1)))
    assert not torch.equal(other, drawn[0])
    assert torch.equal(model.sample(1, {"caption": known}, RandomStream.for_samples(0, range(1))), drawn[0])


def test_a_word_begins_as_the_mean_of_all_words_and_only_once() -> None:
    base = of_captions()
    model = learner(base)
    (embedding,) = word_embeddings(model.network)
    expected = base.network.told.caption.words.weight[1:].mean(dim=0)
    torch.testing.assert_close(embedding.added[0], expected)
    embedding.added.data.zero_()
    model.on_fit_start()
    assert not embedding.added.any()


@pytest.mark.parametrize("adapter", [None, LoRA(rank=2, convolutions=True)])
def test_the_word_and_the_adapter_are_trained_and_nothing_else(adapter: Any) -> None:
    """Not even by weight decay, nor are known words; and nothing else is in the state dict beside the base's."""
    base = of_captions("unet_of_words")
    before = {name: value.clone() for name, value in base.state_dict().items()}
    model = learner(base, adapter=adapter, prompts=["a sks"]).train()
    word = "network.told.caption.words.added"
    names = {word, *(adapter_names(model) if adapter else ())}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == names
    assert {name for name in model.state_dict() if not name.startswith("base.")} == {*names, "has_begun"}
    values = {name: model.state_dict()[name].clone() for name in names}
    for _ in range(2):
        optimizer = model.configure_optimizers()
        model.training_step(batch(), 0).backward()
        optimizer.step()  # type: ignore[union-attr]
    after = model.state_dict()
    assert [name for name in names if torch.equal(after[name], values[name])] == []
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    assert not any(module.training for module in base.modules())


def test_a_state_dict_is_loaded_into_another() -> None:
    """Strictly, given the same base."""
    base, adapter = of_captions(), LoRA(rank=2)
    model = learner(base, adapter=adapter)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("base.")}
    other = of_captions()
    other.load_state_dict(base.state_dict())
    again = learner(other, adapter=LoRA(rank=2))
    loaded = again.load_state_dict({**again.state_dict(), **state})
    assert not loaded.missing_keys
    assert not loaded.unexpected_keys
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in state.items())
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*words.added"):
        again.load_state_dict({n: v for n, v in again.state_dict().items() if not n.endswith("words.added")})


def test_the_loss_of_the_class_by_hand() -> None:
    """Ruiz et al. 2022, eq. 2: a second loss, of pictures that the base draws for the class."""
    base = of_captions()
    adapter = LoRA(rank=2)
    model = learner(
        base, adapter=adapter, prior_weight=0.5, prior_prompt="a dot", prior_samples=6, prompts=["a sks dot"]
    )
    assert model.prior is None
    plain = model.losses(batch())["loss"]
    model.prior = model.drawn_prior()
    told = model.caption.read("a dot").expand(6, -1)
    stream = RandomStream.for_samples(model.prior_seed, range(6))
    assert torch.equal(model.prior, base.sample(6, {"caption": told}, stream).clamp(-1, 1))
    assert torch.equal(model.drawn_prior(), model.prior)
    given, caption = batch(), {"caption": model.caption.read("a sks dot").expand(4, -1)}
    torch.manual_seed(3)
    found = model.loss(given["image"], caption, 0.0)
    torch.manual_seed(3)
    torch.rand(4)  # which captions are dropped: none
    first = model.objective.loss(model.network, given["image"], caption, 0.0)
    rows = torch.randint(6, (4,))
    torch.rand(4)
    second = model.objective.loss(model.network, model.prior[rows], {"caption": told[:4]}, 0.0)
    torch.testing.assert_close(found, first + 0.5 * second)
    torch.manual_seed(0)
    assert torch.isfinite(plain)


def test_several_classes_are_drawn_in_turn() -> None:
    base = of_captions()
    model = learner(base, adapter=LoRA(rank=2), prior_weight=1.0, prior_prompt=["a dot", "dot"], prior_samples=5)
    told = torch.cat([model.caption.read(text) for text in ("a dot", "dot", "a dot", "dot", "a dot")])
    stream = RandomStream.for_samples(model.prior_seed, range(5))
    model.prior = model.drawn_prior()
    assert torch.equal(model.prior, base.sample(5, {"caption": told}, stream).clamp(-1, 1))
    torch.manual_seed(3)
    found = model.loss(batch()["image"], {"caption": told[:4]}, 0.0)
    torch.manual_seed(3)
    torch.rand(4)
    first = model.objective.loss(model.network, batch()["image"], {"caption": told[:4]}, 0.0)
    rows = torch.randint(5, (4,))
    torch.rand(4)
    torch.testing.assert_close(
        found, first + model.objective.loss(model.network, model.prior[rows], {"caption": told[rows]}, 0.0)
    )


def test_pictures_have_the_prompts_in_turn_or_the_captions_of_the_data() -> None:
    model = learner(prompts=["a sks", "sks"])
    found = model.conditions.of(batch())
    assert found is not None
    assert model.caption.words(found["caption"]) == ["a sks", "sks", "a sks", "sks"]
    assert model.caption.words(model.conditions.in_turn([0, 1])["caption"]) == ["a sks", "sks"]  # type: ignore[index]
    assert learner().caption.words((learner().conditions.of(batch()) or {})["caption"]) == ["sks"] * 4
    theirs = {"caption": {"size": 4, "length": 2, "names": ["<nothing>", "sks", "dot", "a"], "examples": ["sks dot"]}}
    model = learner(told=theirs)
    found = model.conditions.of({**batch(2), "caption": torch.tensor([[3, 1], [1, 0]])})
    assert found is not None
    assert model.caption.words(found["caption"]) == ["a sks", "sks"]
    assert model.caption.examples == ("sks dot",)


def test_a_model_is_taught_the_words_of_others() -> None:
    base = of_captions()
    first, second = learner(base), learner(base, word="zwx", starts_like="dot")
    for model in (first, second):
        word_embeddings(model.network)[0].added.data.normal_()
    expected = [
        m.sample(1, {"caption": m.caption.read(f"a {m.word}")}, RandomStream.for_samples(0, range(1)))
        for m in (first, second)
    ]
    first.teach(base)
    second.teach(base)
    caption: Any = base.conditions.kinds["caption"]
    assert caption.names[-2:] == ("sks", "zwx")
    for word, image in zip(("sks", "zwx"), expected, strict=True):
        found = base.sample(1, {"caption": caption.read(f"a {word}")}, RandomStream.for_samples(0, range(1)))
        assert torch.equal(found, image)
    with pytest.raises(ValueError, match="the model knows the word sks already"):
        first.teach(base)
    with pytest.raises(ValueError, match="not conditioned on captions"):
        first.teach(diffusion("dit"))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "known": ({"word": "red"}, "the base knows this word. Choose another, such as model.word=red2"),
    "upper": ({"word": "Sks"}, "must be one word in lower case"),
    "two": ({"word": "a sks"}, "must be one word in lower case"),
    "unknown": ({"prompts": ["a blue sks"]}, "model.prompts: unknown word 'blue'"),
    "without": ({"prompts": ["a dot"]}, "'a dot' has not the word model.word=sks"),
    "like": ({"starts_like": "blue"}, "model.starts_like=blue: the base does not know this word"),
    "weight": ({"prior_weight": -1}, "model.prior_weight=-1 must be finite and at least 0"),
    "samples": ({"prior_samples": 0}, "model.prior_samples=0 must be 1 or more"),
    "class": ({"prior_weight": 1}, "model.prior_weight=1 needs the caption of the class"),
    "frozen": ({"prior_weight": 1, "prior_prompt": "a dot"}, "only the vector of the word is trained"),
    "strange class": ({"prior_prompt": "a cat"}, "model.prior_prompt: unknown word 'cat'"),
    "no class": ({"prior_prompt": []}, r"model.prior_prompt is empty. Name the class"),
    "strange data": ({"told": {"caption": {"size": 3, "names": ["", "sks", "cat"]}}}, "the word 'cat', which the base"),
    "no word in data": ({"told": WORDS}, "no caption of the data has the word model.word=sks"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_suit_the_base_is_refused(case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        learner(**changes)


def test_a_base_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trained without captions.*model\.conditions=\[caption\]"):
        learner(diffusion("dit"))
    tokens = {"caption": {"size": 4, "length": 3, "tokenized": True}}
    with pytest.raises(ValueError, match=r"not made of whole words.*data/tokenizer=words"):
        learner(of_captions(told=tokens))
    with pytest.raises(ValueError, match=r"trained on images of shape \(3, 8, 8\), the data have \(1, 8, 8\)"):
        Concept(of_captions(), "sks", OPTIMIZER, Constant(), (1, 8, 8), {})
