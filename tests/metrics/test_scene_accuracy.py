"""Pictures are read back as they were drawn, and captions that say something else are not agreed to."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.data import scene_reader
from genlab.data.scene_reader import Asked, Object, agreement, parse, read
from genlab.data.shapes import Shapes
from genlab.errors import DataError
from genlab.metrics.scene_accuracy import SceneAccuracy

RED, BLUE = Object("small", "red", "circle", (0.2, 0.2)), Object("large", "blue", "ring", (0.7, 0.3))


@pytest.mark.parametrize(("side", "objects"), [(16, 1), (16, 3), (32, 1), (32, 3), (48, 2)])
def test_real_pictures_show_their_captions(side: int, objects: int) -> None:
    """And what is read is what was drawn, places too."""
    data = Shapes(image_size=side, max_objects=objects, num_val=200)
    scenes, images = data.scenes("val", 0, np.arange(200)), data.table("val").images
    shown = read(images)
    captions = data.captions(scenes)
    assert all(agreement(parse(caption), found).whole for caption, found in zip(captions, shown, strict=True))
    for row, found in enumerate(shown):
        true = scenes.position[row][scenes.mask[row]]
        near = np.array([other.place for other in found])
        assert len(true) == len(near)
        assert np.abs(true[:, None] - near[None]).max(axis=-1).min(axis=1).max() < 0.6 / side


def test_shuffled_captions_are_chance() -> None:
    """One object of 2 sizes, 6 colors and 4 shapes, drawn evenly but for held-out pairs, which half of them have."""
    data = Shapes(image_size=16, max_objects=1, num_val=2000)
    captions = data.captions(data.scenes("val", 0, np.arange(2000)))
    shown = read(data.table("val").images)
    found = [agreement(parse(c), s) for c, s in zip(captions[1:] + captions[:1], shown, strict=True)]
    assert np.mean([a.size for a in found]) == pytest.approx(1 / 2, abs=0.04)
    assert np.mean([a.shape for a in found]) == pytest.approx(1 / 4, abs=0.04)
    assert 1 / 6 - 0.02 < np.mean([a.color for a in found]) < 0.25
    assert np.mean([a.whole for a in found]) < 0.08


def test_a_caption_is_parsed() -> None:
    asked = parse("a small red circle left of a large blue ring and below a small white square")
    assert [(o.size, o.color, o.shape) for o in asked.objects] == [
        ("small", "red", "circle"), ("large", "blue", "ring"), ("small", "white", "square")]  # fmt: skip
    assert asked.relations == ("left of", "below")
    for wrong in ("", "a red circle", "a small red circle near a large blue ring", "a small red cat"):
        with pytest.raises(ValueError, match="is not a caption of shapes"):
            parse(wrong)


def test_what_is_right_is_counted() -> None:
    caption = Asked((RED, BLUE), ("left of",))
    assert agreement(caption, [BLUE, RED]) == scene_reader.Agreement(1, 1, 1, True, True, 1)
    assert agreement(Asked((RED, BLUE), ("right of",)), [BLUE, RED]) == scene_reader.Agreement(1, 1, 1, False, True)
    assert agreement(caption, [RED]) == scene_reader.Agreement(0.5, 0.5, 0.5, False)
    assert agreement(caption, []) == scene_reader.Agreement(0, 0, 0, False)
    assert agreement(Asked((RED,)), [RED, BLUE]).whole is False, "one object too many"
    green = Object("small", "green", "circle", (0.2, 0.2))
    assert agreement(Asked((RED,)), [green]) == scene_reader.Agreement(0, 1, 1, False, True)
    below = Object("large", "white", "ring", (0.25, 0.75))
    three = Asked((RED, BLUE, below), ("left of", "below"))
    assert agreement(three, [RED, BLUE, below]).relations == 0.5, "the second does not hold"


def test_the_metric_averages() -> None:
    """Half of the samples right, whatever the batches; the reader's error is of the real ones."""
    data = Shapes(image_size=16, max_objects=1, num_val=20)
    images = torch.from_numpy(data.table("val").images)
    captions = data.captions(data.scenes("val", 0, np.arange(20)))
    metric = SceneAccuracy()
    metric.update({"image": images, "caption": captions}, real=True)
    blank = torch.full_like(images[10:], 24)
    metric.update({"image": images[:10], "caption": captions[:10]}, real=False)
    metric.update({"image": blank, "caption": captions[10:]}, real=False)
    found = {name: float(value) for name, value in metric.compute().items()}
    new = np.array([parse(caption).has_held_out for caption in captions])
    assert found == {"scene_accuracy": 0.5, "color_accuracy": 0.5, "size_accuracy": 0.5, "shape_accuracy": 0.5,
                     "count_accuracy": 0.5, "scene_accuracy_seen": pytest.approx((~new[:10]).sum() / (~new).sum()),
                     "scene_accuracy_held_out": pytest.approx(new[:10].sum() / new.sum()),
                     "scene_reader_error": 0.0}  # fmt: skip
    with pytest.raises(DataError, match="scene_accuracy reads captions of data=shapes: 'a cat' is not a caption"):
        metric.update({"image": images[:1], "caption": ["a cat"]}, real=False)


def test_noise_has_no_scene() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 3, 16, 16), dtype=np.uint8)
    asked = parse("a small red circle")
    assert not any(agreement(asked, found).whole for found in read(noise))


def test_the_page_says_what_the_numbers_are() -> None:
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    assert all(f"`{name}`" in page for name in SceneAccuracy.directions)
