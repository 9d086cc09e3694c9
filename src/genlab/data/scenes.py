"""Scenes of colored shapes: random generation by index, rendering, and captions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from genlab.errors import ConfigError, did_you_mean
from genlab.seeding import uniform_by_index

SHAPES = ("circle", "square", "triangle", "ring")
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 90, 235),
    "yellow": (240, 210, 50),
    "purple": (165, 60, 200),
    "white": (240, 240, 240),
}  # fmt: skip
SIZES = {"small": 0.11, "large": 0.19}  # radius, in units of the picture's side
BACKGROUND = (24, 24, 28)
HELD_OUT = tuple(zip(SHAPES, COLORS, strict=False))  # shape i in color i: never in a training scene

ATTRIBUTES = ("size", "x", "y")  # of the first object, as numbers from 0 to 1
RELATIONS = ("above", "below", "left of", "right of")
WORDS = ("<nothing>", "a", *SIZES, *COLORS, *SHAPES, "above", "below", "left", "right", "of", "and")

_WORD = {word: number for number, word in enumerate(WORDS)}
_MARGIN = 0.01  # between an object and the border of its cell, in units of the picture's side
_CELLS = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])  # (x, y) of their centers, in reading order
_CHUNK = 64  # scenes rendered at a time: they fit the CPU's cache
_RADII = np.array(list(SIZES.values()))
_RGB = np.array(list(COLORS.values()), dtype=np.float32)
_HELD_OUT_COLOR = np.array([list(COLORS).index(color) for _, color in HELD_OUT])  # of each shape


@dataclass(frozen=True)
class Scenes:
    """N scenes with up to K objects each, in the order in which a caption names them: large ones first, and those of
    one size in reading order."""

    shape: np.ndarray  # (N, K) int64, of SHAPES
    color: np.ndarray  # (N, K) int64, of COLORS
    size: np.ndarray  # (N, K) int64, of SIZES
    position: np.ndarray  # (N, K, 2) float64: x to the right, y downwards, of the center, in units of the side
    mask: np.ndarray  # (N, K) bool: the object exists; values of others are arbitrary

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, rows: slice) -> "Scenes":
        return Scenes(self.shape[rows], self.color[rows], self.size[rows], self.position[rows], self.mask[rows])

    def attributes(self, names: Sequence[str]) -> np.ndarray:
        """Of the first object, the largest: ``size``, 0 small and 1 large; ``x`` and ``y`` of its center, to the right
        and downwards, in units of the side. -> (N, len(names)) float32."""
        x, y = self.position[:, 0].T
        values = {"size": self.size[:, 0] / (len(SIZES) - 1), "x": x, "y": y}
        return np.stack([values[name] for name in names], axis=1).astype(np.float32)

    @property
    def has_held_out(self) -> np.ndarray:
        """(N,) bool: an object has a combination of shape and color that no training scene has."""
        return ((self.color == _HELD_OUT_COLOR[self.shape]) & self.mask).any(axis=1)


def draw_scenes(seed: int, indices: np.ndarray, max_objects: int, held_out: float) -> Scenes:
    """Scene i of ``seed``, for each i of ``indices`` (N,); each depends on (seed, i) alone.

    The number of objects is uniform on 1..max_objects, shape and size of each are uniform, and so is its color among
    those that HELD_OUT allows for its shape. In a share ``held_out`` of the scenes one object is of a combination in
    HELD_OUT. Objects lie in different quarters of the picture, at a uniform place within, so that none touch.
    """
    n, k = len(indices), max_objects
    draws = 8 + 5 * k
    numbers = indices.astype(np.int64)[:, None] * draws + np.arange(draws)  # (N, draws)
    u = uniform_by_index(seed, numbers.ravel()).reshape(n, draws)
    count = 1 + (u[:, 0] * k).astype(np.int64)  # (N,)
    cell = np.argsort(u[:, 1:5], axis=1)[:, :k]  # (N, K)
    shape, color, size = (
        (u[:, 8 + i * k : 8 + (i + 1) * k] * options).astype(np.int64)
        for i, options in enumerate((len(SHAPES), len(COLORS) - 1, len(SIZES)))
    )
    color += color >= _HELD_OUT_COLOR[shape]  # one color is skipped
    new = np.flatnonzero(u[:, 5] < held_out)
    place = (u[new, 6] * count[new]).astype(np.int64)
    shape[new, place] = (u[new, 7] * len(HELD_OUT)).astype(np.int64)
    color[new, place] = _HELD_OUT_COLOR[shape[new, place]]
    freedom = 0.25 - _MARGIN - _RADII[size]  # (N, K): largest offset of a center from its cell's
    position = _CELLS[cell] + (2 * u[:, 8 + 3 * k :].reshape(n, k, 2) - 1) * freedom[..., None]
    mask = np.arange(k) < count[:, None]
    order = np.argsort(np.where(mask, cell - len(_CELLS) * size, len(_CELLS)), axis=1)  # large ones first
    shape, color, size = (np.take_along_axis(x, order, axis=1) for x in (shape, color, size))
    position = np.take_along_axis(position, order[..., None], axis=1)
    return Scenes(shape, color, size, position, np.take_along_axis(mask, order, axis=1))


# --- pixels -----------------------------------------------------------------------------------------------------------
# Signed distances to an outline in units of pixels, negative inside: x (M, 1, S) and y (M, S, 1) from the object's
# center, radius r (M, 1, 1). Every shape lies within the square of half side r.


def _circle(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y) - r


def _square(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Of half side 0.85 r."""
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.85) * r


def _triangle(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """From its tip at (0, -r) to its base from (-r, 0.8 r) to (r, 0.8 r): the three half planes meet."""
    across, down = (
        np.float32(1.8 / 4.24**0.5),
        np.float32(1 / 4.24**0.5),
    )  # the normal of a side: (1.8, -1), to length 1
    return np.maximum(across * np.abs(x) - down * (y + r), y - np.float32(0.8) * r)


def _ring(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Between the radii r / 2 and r."""
    return np.abs(np.sqrt(x * x + y * y) - np.float32(0.75) * r) - np.float32(0.25) * r


_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
}


def coverage(scenes: Scenes, image_size: int) -> np.ndarray:
    """How much of each pixel an object covers, (N, K, S, S) float32 in [0, 1], by the distance of its center to the
    outline: exact for straight edges along the axes, and off by a few percent at corners."""
    covered = np.zeros((*scenes.mask.shape, image_size, image_size), dtype=np.float32)
    pixels = np.arange(image_size, dtype=np.float32) + np.float32(0.5)
    center = (scenes.position * image_size).astype(np.float32)
    radius = (_RADII[scenes.size] * image_size).astype(np.float32)
    for number, name in enumerate(SHAPES):
        rows = np.nonzero(scenes.mask & (scenes.shape == number))  # of M objects
        x, y = pixels - center[rows][:, :1], pixels - center[rows][:, 1:]  # (M, S)
        distance = _DISTANCES[name](x[:, None, :], y[:, :, None], radius[rows][:, None, None])  # (M, S, S)
        covered[rows] = np.clip(np.float32(0.5) - distance, 0, 1)
    return covered


def render(scenes: Scenes, image_size: int) -> np.ndarray:
    """(N, 3, S, S) uint8: the objects, antialiased, on the background."""
    images = np.empty((len(scenes), 3, image_size, image_size), dtype=np.uint8)
    background = np.array(BACKGROUND, dtype=np.float32)
    for start in range(0, len(scenes), _CHUNK):
        part = scenes[start : start + _CHUNK]
        covered = coverage(part, image_size).reshape(len(part), -1, image_size**2)  # (n, K, S * S)
        paint = (_RGB[part.color] - background).transpose(0, 2, 1)  # (n, 3, K): objects do not overlap, so they add
        pixels = np.matmul(paint, covered) + background[:, None] + np.float32(0.5)
        images[start : start + _CHUNK] = pixels.astype(np.uint8).reshape(-1, 3, image_size, image_size)
    return images


def layouts(scenes: Scenes, image_size: int) -> np.ndarray:
    """(N, S, S) uint8: of each pixel that an object covers by half or more the number of its color in COLORS, plus 1;
    of others 0."""
    covered = coverage(scenes, image_size) >= 0.5  # (N, K, S, S), of which one at most is true
    return (covered * (1 + scenes.color[..., None, None])).sum(axis=1).astype(np.uint8)


# --- words ------------------------------------------------------------------------------------------------------------


def caption_length(max_objects: int) -> int:
    """Words of the longest caption: "OBJECT left of OBJECT and right of OBJECT", an object being four words."""
    return 4 + 6 * (max_objects > 1) + 7 * max(max_objects - 2, 0)


def relations(scenes: Scenes) -> np.ndarray:
    """(N, K) int64 of RELATIONS: where the first object is, seen from each of the others; along the axis on which
    their centers are further apart."""
    x, y = np.moveaxis(scenes.position[:, :1] - scenes.position, -1, 0)  # (N, K) each
    return np.where(np.abs(y) >= np.abs(x), np.where(y < 0, 0, 1), np.where(x < 0, 2, 3))


def tokens(scenes: Scenes) -> np.ndarray:
    """The captions as (N, caption_length) int64 of WORDS, filled up with 0.

    They follow one grammar: OBJECT [RELATION OBJECT [and RELATION OBJECT]], an object being "a SIZE COLOR SHAPE". The
    first object is the subject of both relations.
    """
    n, k = scenes.mask.shape
    relation_words = np.array([[_WORD[w] for w in (*name.split(), "<nothing>")[:2]] for name in RELATIONS])  # (4, 2)
    first = {name: _WORD[next(iter(names))] for name, names in (("size", SIZES), ("color", COLORS))}
    slots = []
    for i in range(k):
        phrase = np.stack(
            [
                np.full(n, _WORD["a"]),
                first["size"] + scenes.size[:, i],
                first["color"] + scenes.color[:, i],
                _WORD[SHAPES[0]] + scenes.shape[:, i],
            ],
            axis=1,
        )
        if i > 0:
            phrase = np.concatenate([relation_words[relations(scenes)[:, i]], phrase], axis=1)
        if i > 1:
            phrase = np.concatenate([np.full((n, 1), _WORD["and"]), phrase], axis=1)
        slots.append(np.where(scenes.mask[:, i : i + 1], phrase, 0))
    words = np.concatenate(slots, axis=1).astype(np.int64)  # (N, T), with gaps
    return np.take_along_axis(words, np.argsort(words == 0, axis=1, kind="stable"), axis=1)


def to_text(words: np.ndarray) -> list[str]:
    """(N, T) of WORDS -> N captions in English."""
    return [" ".join(WORDS[number] for number in row if number) for row in words]


def to_tokens(captions: Sequence[str], length: int) -> np.ndarray:
    """Captions in English -> (N, length) int64 of WORDS. "" is an empty caption: all zeros.

    Raises:
        ConfigError: a caption has a word that no caption of these data has, or too many words.
    """
    result = np.zeros((len(captions), length), dtype=np.int64)
    for row, caption in zip(result, captions, strict=True):
        words = caption.lower().split()
        for word in words:
            if word not in WORDS[1:]:
                guess = did_you_mean(word, WORDS[1:])
                raise ConfigError(f"unknown word '{word}' in a caption.{guess} Known: {', '.join(WORDS[1:])}.")
        if len(words) > length:
            raise ConfigError(f"the caption '{caption}' has {len(words)} words; these data have at most {length}.")
        row[: len(words)] = [_WORD[word] for word in words]
    return result
