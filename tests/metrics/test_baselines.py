"""Baselines are what their names say."""

import re

import numpy as np
import pytest
import torch

from genlab.data.digits import Digits
from genlab.sampling.examples import Examples
from genlab.task.baselines import gaussian_draws
from genlab.task.continue_text import ContinueText
from genlab.task.generate import Generate
from genlab.task.text_baselines import shuffled
from given_text import GivenText


@pytest.fixture(scope="module")
def data() -> Digits:
    return Digits()


def test_shapes_labels_and_seeds(data: Digits) -> None:
    first, again, other = (
        Generate().on(data, "val").baselines(95, seed=0),
        Generate().on(data, "val").baselines(95, seed=0),
        Generate().on(data, "val").baselines(95, seed=1),
    )
    assert list(first) == ["uniform_noise", "class_means", "class_gaussian", "copies", "floor"]
    for name, examples in first.items():
        images, labels = examples["image"], examples["label"]
        assert images.shape == (95, 1, 16, 16)
        assert images.dtype == torch.uint8
        assert torch.equal(images, again[name]["image"])
        assert name == "class_means" or not torch.equal(images, other[name]["image"])
        if name != "floor":
            assert labels.tolist() == [i % 10 for i in range(95)]


def test_gaussian_draws_have_the_mean_and_the_full_covariance() -> None:
    """Of 20 images of 6 pixels: within sampling error, 1 / sqrt(draws)."""
    images = np.random.default_rng(0).normal(3.0, 1.0, (20, 1, 2, 3)).cumsum(axis=3)
    draws = gaussian_draws(images, 200_000, np.random.default_rng(1)).reshape(200_000, 6)
    flat = images.reshape(20, 6)
    np.testing.assert_allclose(draws.mean(axis=0), flat.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(np.cov(draws, rowvar=False), np.cov(flat, rowvar=False), atol=0.06)


def test_class_means_are_the_means(data: Digits) -> None:
    examples = Generate().on(data, "val").baselines(10, seed=0)["class_means"]
    images, labels = examples["image"], examples["label"]
    table = data.table("train")
    for image, label in zip(images.numpy(), labels.numpy(), strict=True):
        np.testing.assert_array_equal(image, np.rint(table.images[table.labels == label].mean(axis=0)))


def test_copies_are_training_images_of_their_class_and_the_floor_is_distinct(data: Digits) -> None:
    table, samples = data.table("train"), Generate().on(data, "val").baselines(1297, seed=0)
    known = {(image.tobytes(), int(label)) for image, label in zip(table.images, table.labels, strict=True)}
    for name in ("copies", "floor"):
        images, labels = samples[name]["image"], samples[name]["label"]
        assert {(i.tobytes(), int(c)) for i, c in zip(images.numpy(), labels, strict=True)} <= known
    assert sorted(i.tobytes() for i in samples["floor"]["image"].numpy()) == sorted(i.tobytes() for i in table.images)
    assert "floor" not in Generate().on(data, "val").baselines(1298, seed=0)


def test_noise_is_uniform(data: Digits) -> None:
    images = Generate().on(data, "val").baselines(500, seed=0)["uniform_noise"]["image"].float()
    assert images.mean() == pytest.approx(127.5, abs=1.0)
    assert images.std() == pytest.approx(73.9, abs=0.5)


# --- of text ----------------------------------------------------------------------------------------------------------


def test_texts_that_took_no_model() -> None:
    """As many tokens as samples; the tokens of the training text, its words out of order, and itself."""
    text = GivenText(np.random.default_rng(0).choice(98, 5000, p=np.arange(98) / 4753), context=16, vocab_size=98)
    task = ContinueText(3).on(text, "val").sized(50, Examples.of(40, text=[]))
    made = task.baselines(50, seed=0)
    assert list(made) == ["random_tokens", "shuffled_words", "floor"]
    for examples in made.values():
        assert (len(examples), examples.length) == (50, 40)
        assert all(len(content) == 40 for content in examples["text"])
    starts = np.linspace(0, 5000 - 43, 50).round().astype(int)
    assert made["floor"]["text"] == [text.tokenizer.decode(text.given[s + 3 : s + 43].tolist()) for s in starts]
    drawn = np.concatenate([text.tokenizer.encode(content) for content in made["random_tokens"]["text"]])
    expected = np.bincount(text.given, minlength=98) / 5000
    assert np.abs(np.bincount(drawn, minlength=98) / 2000 - expected).max() < 0.02
    assert made["random_tokens"]["text"] != task.baselines(50, seed=1)["random_tokens"]["text"]


def test_words_change_places_and_spaces_stay() -> None:
    text = "the cat  sat\n on the mat, \t and so on"
    changed = [shuffled(text, np.random.default_rng(seed)) for seed in range(20)]
    assert len(set(changed)) > 10
    for other in changed:
        assert sorted(other.split()) == sorted(text.split())
        assert re.sub(r"\S+", "", other) == re.sub(r"\S+", "", text)
