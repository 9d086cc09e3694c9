"""Scenes: functions of integers, pixels against areas and samples, captions against the picture, held-out pairs."""

import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from genlab.data import scenes as drawing
from genlab.data.base import ConditionSpec
from genlab.data.scene_reader import layout_of
from genlab.data.scenes import BACKGROUND, COLORS, HELD_OUT, SHAPES, SIZES, WORDS, Scenes
from genlab.data.shapes import Shapes
from genlab.errors import ConfigError

PAIRS = {(SHAPES.index(shape), list(COLORS).index(color)) for shape, color in HELD_OUT}
MANY = np.arange(4000)


def fields(scenes: Scenes) -> list[np.ndarray]:
    return [scenes.shape, scenes.color, scenes.size, scenes.position, scenes.mask]


def same(a: Scenes, b: Scenes) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(fields(a), fields(b), strict=True))


def pairs(scenes: Scenes) -> list[set[tuple[int, int]]]:
    """The combinations of shape and color in each scene."""
    return [
        {(int(s), int(c)) for s, c, there in zip(*row, strict=True) if there}
        for row in zip(scenes.shape, scenes.color, scenes.mask, strict=True)
    ]


def one(shape: str, size: int = 1, position: tuple[float, float] = (0.51, 0.47), count: int = 1) -> Scenes:
    """A scene with one red object."""
    ints = np.array([[SHAPES.index(shape)]]), np.array([[0]]), np.array([[size]])
    return Scenes(*ints, np.array([[position]]), np.array([[True]]))


# --- what is in a scene -----------------------------------------------------------------------------------------------


def test_a_scene_is_a_function_of_seed_split_epoch_and_index_alone() -> None:
    data = Shapes(seed=1)
    whole = data.scenes("train", 3, MANY[:50])
    for i in (0, 7, 49):
        assert same(Shapes(seed=2, batch_size=4).scenes("train", 3, [i]), whole[i : i + 1])
    others = [
        data.scenes("train", 4, MANY[:50]),
        data.scenes("val", 3, MANY[:50]),
        Shapes(scene_seed=1).scenes("train", 3, MANY[:50]),
        data.scenes("train", 3, MANY[1:51]),
    ]
    assert not any(same(whole, other) for other in others)


def test_the_world_of_seed_0_never_changes() -> None:
    data = Shapes()
    assert data.captions(data.scenes("train", 0, range(3))) == [
        "a small blue square",
        "a large white circle left of a small red square and left of a small red triangle",
        "a large blue ring right of a small white ring",
    ]


def test_frequencies_are_uniform() -> None:
    scenes = Shapes().scenes("train", 0, MANY)
    for values, options in ((scenes.mask.sum(1) - 1, 3), (scenes.shape[scenes.mask], 4), (scenes.size[scenes.mask], 2)):
        counts = np.bincount(values, minlength=options)
        assert len(counts) == options
        assert np.abs(counts / len(values) - 1 / options).max() < 4 * math.sqrt(0.25 / len(values))
    colors = np.bincount(scenes.color[scenes.mask], minlength=6) / scenes.mask.sum()
    assert np.abs(colors - [0.15, 0.15, 0.15, 0.15, 0.2, 0.2]).max() < 0.02  # a fifth each for three or four shapes


@pytest.mark.parametrize("max_objects", [1, 2, 3])
def test_objects_lie_in_the_picture_and_none_touch(max_objects: int) -> None:
    scenes = Shapes(max_objects=max_objects).scenes("train", 0, MANY)
    assert set(scenes.mask.sum(1)) == set(range(1, max_objects + 1))
    radius = np.array(list(SIZES.values()))[scenes.size]
    low, high = scenes.position - radius[..., None], scenes.position + radius[..., None]
    assert low[scenes.mask].min() > 0
    assert high[scenes.mask].max() < 1
    for i in range(max_objects):
        for j in range(i):
            both = scenes.mask[:, i] & scenes.mask[:, j]
            gap = np.maximum(low[both, i] - high[both, j], low[both, j] - high[both, i])  # (n, 2)
            assert gap.max(axis=1).min() > 0


def test_large_objects_are_named_first() -> None:
    scenes = Shapes().scenes("train", 0, MANY)
    for size, mask in zip(scenes.size, scenes.mask, strict=True):
        assert mask.tolist() == sorted(mask, reverse=True)
        assert all(a >= b for a, b in pairwise(size[mask]))


def test_held_out_combinations_are_in_half_of_the_validation_scenes_and_nowhere_else() -> None:
    assert len(PAIRS) == len(SHAPES)
    train = [Shapes().scenes("train", epoch, MANY) for epoch in range(3)]
    assert not any(found & PAIRS for scenes in train for found in pairs(scenes))
    assert not any(scenes.has_held_out.any() for scenes in train)
    everything = {(s, c) for s in range(4) for c in range(6)}
    assert set().union(*pairs(train[0])) == everything - PAIRS
    val = Shapes().scenes("val", 0, MANY)
    held_out = np.array([bool(found & PAIRS) for found in pairs(val)])
    assert np.array_equal(held_out, val.has_held_out)
    assert abs(held_out.mean() - 0.5) < 4 * 0.5 / math.sqrt(len(MANY))
    assert set().union(*pairs(val)) == everything


# --- pixels -----------------------------------------------------------------------------------------------------------


def inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The shape of radius 1 at the origin, point by point."""
    if shape == "circle":
        return x**2 + y**2 <= 1
    if shape == "square":
        return (abs(x) <= 0.85) & (abs(y) <= 0.85)
    if shape == "ring":
        return (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.25)
    return (y <= 0.8) & (abs(x) <= (y + 1) / 1.8)


AREAS = {"circle": math.pi, "square": 1.7**2, "triangle": 1.8, "ring": 0.75 * math.pi}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("side", [32, 64])
def test_pixels_hold_the_share_that_the_shape_covers(shape: str, size: int, side: int) -> None:
    scenes = one(shape, size)
    covered = drawing.coverage(scenes, side)[0, 0]
    radius = list(SIZES.values())[size] * side
    fine = (np.arange(side * 16) + 0.5) / 16
    x, y = (fine - 0.51 * side) / radius, (fine - 0.47 * side) / radius
    exact = inside(shape, x[None], y[:, None]).reshape(side, 16, side, 16).mean(axis=(1, 3))
    assert np.abs(covered - exact).mean() < 0.004
    assert np.abs(covered - exact).max() < 0.3
    assert covered.sum() == pytest.approx(AREAS[shape] * radius**2, rel=0.06)


def test_colors_are_exact_where_an_object_covers_all_or_nothing() -> None:
    data = Shapes(image_size=64)
    scenes = data.scenes("val", 0, MANY[:200])
    images = data.render(scenes).transpose(0, 2, 3, 1)  # (N, S, S, 3)
    covered = drawing.coverage(scenes, 64)
    assert (images[(covered == 0).all(axis=1)] == BACKGROUND).all()
    rgb = np.array(list(COLORS.values()))
    for n, k in np.argwhere(scenes.mask):
        full = images[n][covered[n, k] == 1]
        assert len(full)
        assert (full == rgb[scenes.color[n, k]]).all()
    partial = covered[scenes.mask]
    assert ((partial > 0.05) & (partial < 0.95)).any(axis=(1, 2)).all()  # antialiased


def test_object_masks_are_apart_and_centered_on_their_objects() -> None:
    data = Shapes(image_size=64)
    scenes = data.scenes("train", 0, MANY[:200])
    masks = data.object_masks(scenes)
    assert masks.shape == (200, 3, 64, 64)
    assert masks.sum(axis=1).max() == 1
    assert np.array_equal(masks.any(axis=(2, 3)), scenes.mask)
    centers = (np.arange(64) + 0.5) / 64
    for n, k in np.argwhere(scenes.mask):
        x, y = (centers[axis].mean() for axis in np.nonzero(masks[n, k])[::-1])
        tilt = 0.05 if SHAPES[scenes.shape[n, k]] == "triangle" else 0.0
        assert abs(x - scenes.position[n, k, 0]) < 0.01
        assert -0.01 < y - scenes.position[n, k, 1] < tilt + 0.01


def test_layouts_are_what_is_drawn_and_are_read_from_it() -> None:
    data = Shapes(image_size=32, num_val=40, layout=True)
    scenes = data.scenes("val", 0, np.arange(40))
    layouts, masks = data.table("val").layouts, data.object_masks(scenes)
    assert layouts is not None
    assert layouts.shape == (40, 32, 32)
    assert np.array_equal(layouts > 0, masks.any(axis=1))
    for n, k in np.argwhere(scenes.mask):
        assert (layouts[n][masks[n, k]] == 1 + scenes.color[n, k]).all()
    batch = data.dataset("train")[[(1, 3), (1, 5)]]
    fresh = data.scenes("train", 1, [3, 5])
    assert np.array_equal(batch["layout"].numpy() > 0, data.object_masks(fresh).any(axis=1))
    assert data.spec.condition["layout"].size == 7
    assert "layout" not in Shapes(num_val=1).spec.condition
    assert (layout_of(data.table("val").images) == layouts).mean() > 0.999


# --- words ------------------------------------------------------------------------------------------------------------

OBJECT = rf"a ({'|'.join(SIZES)}) ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})"
PLACE = "(above|below|left of|right of)"
GRAMMAR = re.compile(rf"{OBJECT}(?: {PLACE} {OBJECT}(?: and {PLACE} {OBJECT})?)?")


@pytest.mark.parametrize("max_objects", [1, 2, 3])
def test_captions_are_true_of_the_pixels(max_objects: int) -> None:
    """Read in English, and compared with where masses of color are in the picture, not with the scene."""
    data = Shapes(image_size=64, max_objects=max_objects)
    scenes = data.scenes("val", 0, MANY[:500])
    images, masks = data.render(scenes).transpose(0, 2, 3, 1), data.object_masks(scenes)
    checked = 0
    for image, mask, there, caption in zip(images, masks, scenes.mask, data.captions(scenes), strict=True):
        found = GRAMMAR.fullmatch(caption)
        assert found, caption
        words = [group for group in found.groups() if group is not None]
        objects = [words[:3], words[4:7], words[8:]][: there.sum()]
        assert len(words) == 4 * len(objects) - 1
        centers = []
        for pixels, (size, color, shape) in zip(mask, objects, strict=False):
            assert (np.median(image[pixels], axis=0) == COLORS[color]).all()
            assert pixels.sum() == pytest.approx(AREAS[shape] * (SIZES[size] * 64) ** 2, rel=0.15)
            y, x = (axis.mean() for axis in np.nonzero(pixels))
            centers.append((x, y))
        for relation, (x, y) in zip(words[3::4], centers[1:], strict=True):
            dx, dy = centers[0][0] - x, centers[0][1] - y
            assert {"above": -dy, "below": dy, "left of": -dx, "right of": dx}[relation] > 0
            checked += 1
    assert checked >= 200 * (max_objects - 1)


@pytest.mark.parametrize(("max_objects", "length"), [(1, 4), (2, 10), (3, 17)])
def test_tokens_say_what_captions_say(max_objects: int, length: int) -> None:
    data = Shapes(max_objects=max_objects)
    scenes = data.scenes("train", 0, MANY)
    tokens = data.tokens(scenes)
    assert (tokens.shape, tokens.dtype) == ((len(MANY), length), np.int64)
    assert tokens.max() < len(WORDS)
    assert (tokens > 0).sum(1).max() == length  # no longer than need be
    assert np.array_equal(data.tokenize(data.captions(scenes)), tokens)
    assert not data.tokenize([""]).any()
    caption = data.spec.condition["caption"]
    assert replace(caption, examples=()) == ConditionSpec(len(WORDS), WORDS, length)


def test_words_that_are_not_known_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^unknown word 'circel' in a caption\. Did you mean 'circle'\? Known: a, "):
        Shapes().tokenize(["a small red circel"])
    with pytest.raises(ConfigError, match="has 8 words; these data have at most 4"):
        Shapes(max_objects=1).tokenize(["a small red circle a small red circle"])
