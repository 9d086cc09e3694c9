"""Recognizes the objects in pictures of colored shapes, and parses their captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np

from genlab.data.scenes import BACKGROUND, COLORS, HELD_OUT, RELATIONS, SHAPES, SIZES, Scenes, coverage

_STEPS = {16: 0.25, 32: 0.5}  # pixels between tried places, by the picture's side; else 1 / 64 of it
_LEAST = 0.4  # of the area of the smallest shape: a quarter with less paint has no object
_EVEN = 0.03  # of the side: where two distances differ by less, either relation is right
_MARGIN = 0.01  # as the scenes are drawn: between an object and the border of its quarter


@dataclass(frozen=True)
class Object:
    """An object in a picture or a caption."""

    size: str
    color: str
    shape: str
    place: tuple[float, float] = (0.0, 0.0)  # its center, x to the right, y downwards; not used for captions


@dataclass(frozen=True)
class Asked:
    """A parsed caption. ``relations[i]``: where the first object is, seen from object i + 1."""

    objects: tuple[Object, ...]
    relations: tuple[str, ...] = ()

    @property
    def has_held_out(self) -> bool:
        """Whether an object has a combination of shape and color that no training scene has."""
        return any((each.shape, each.color) in HELD_OUT for each in self.objects)


@dataclass(frozen=True)
class Agreement:
    """How much of a caption a picture shows: shares of its objects and relations, and whether all of it is there."""

    color: float
    size: float
    shape: float
    whole: bool  # as many objects, each as asked, and where it was asked
    count: bool = False  # as many objects
    relations: float = 0.0  # share of those that hold; 0 where the caption has none


def parse(caption: str) -> Asked:
    """A caption of the grammar of ``genlab.data.scenes``: OBJECT [RELATION OBJECT [and RELATION OBJECT]].

    Raises ValueError for anything else."""
    words = caption.split()
    objects, relations = [_object(words[:4], caption)], []
    rest = words[4:]
    while rest:
        rest = rest[1:] if rest[0] == "and" and len(objects) > 1 else rest
        relation = next((r for r in RELATIONS if rest[: len(r.split())] == r.split()), None)
        if relation is None:
            raise ValueError(f"'{caption}' is not a caption of shapes: '{' '.join(rest)}' does not begin a relation.")
        rest = rest[len(relation.split()) :]
        relations.append(relation)
        objects.append(_object(rest[:4], caption))
        rest = rest[4:]
    return Asked(tuple(objects), tuple(relations))


def _object(words: Sequence[str], caption: str) -> Object:
    if len(words) != 4 or words[0] != "a" or words[1] not in SIZES or words[2] not in COLORS or words[3] not in SHAPES:
        raise ValueError(f"'{caption}' is not a caption of shapes: '{' '.join(words)}' is not 'a SIZE COLOR SHAPE'.")
    return Object(words[1], words[2], words[3])


def read(images: np.ndarray) -> list[list[Object]]:
    """The objects in pictures (N, 3, S, S) uint8, at most one in each quarter, as scenes are drawn.

    A fixed rule: the color is the one whose paint explains a quarter best; shape, size and place are those of the
    template nearest to the paint (least squares), out of all shapes at all places on a fine grid, rendered as the
    scenes are.
    """
    side = images.shape[-1]
    templates, kinds, places = _templates(side)
    half = side // 2
    found: list[list[Object]] = [[] for _ in images]
    for corner in ((0, 0), (half, 0), (0, half), (half, half)):  # x, y
        quarter = images[:, :, corner[1] : corner[1] + half, corner[0] : corner[0] + half]
        names, paint = _paint(quarter.reshape(len(images), 3, -1).astype(np.float64))
        distance = (templates**2).sum(axis=1) - 2 * paint @ templates.T  # up to a constant
        best = distance.argmin(axis=1)
        there = paint.sum(axis=1) > _LEAST * templates.sum(axis=1).min()
        for i in np.flatnonzero(there):
            size, shape = kinds[best[i]]
            place = places[best[i]] + np.array(corner) / side
            found[i].append(Object(size, names[i], shape, (float(place[0]), float(place[1]))))
    return found


def layout_of(images: np.ndarray) -> np.ndarray:
    """What is where in pictures (N, 3, S, S) uint8: of each pixel the number of the color in COLORS whose paint on the
    background explains it best, plus 1, or 0 where less than half of it is painted. -> (N, S, S) uint8."""
    background = np.array(BACKGROUND, dtype=np.float64)
    paint = np.array(list(COLORS.values())) - background  # (6, 3)
    length = np.linalg.norm(paint, axis=1)  # (6,)
    along = np.einsum("kc,nchw->nkhw", paint / length[:, None], images - background[:, None, None])
    best = along.argmax(axis=1)  # (N, S, S): the direction nearest to the pixel's
    covered = np.take_along_axis(along, best[:, None], axis=1)[:, 0] / length[best]
    return np.where(covered >= 0.5, best + 1, 0).astype(np.uint8)


def _paint(pixels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Quarters (N, 3, P) -> the color of each, and its coverage of each pixel, (N, P) in [0, 1]."""
    directions = np.array(list(COLORS.values()), dtype=np.float64) - BACKGROUND  # (K, 3)
    above = pixels - np.array(BACKGROUND, dtype=np.float64)[:, None]  # (N, 3, P)
    amount = np.einsum("kc,ncp->nkp", directions, above) / (directions**2).sum(axis=1)[:, None]
    amount = amount.clip(0, 1)
    left = above[:, None] - amount[:, :, None] * directions[:, :, None]  # (N, K, 3, P)
    best = (left**2).sum(axis=(2, 3)).argmin(axis=1)
    return [list(COLORS)[k] for k in best], amount[np.arange(len(pixels)), best]


@lru_cache(maxsize=4)
def _templates(side: int) -> tuple[np.ndarray, list[tuple[str, str]], np.ndarray]:
    """Coverages of the top left quarter (M, P), the size and shape of each, and the place (M, 2) of its center."""
    step = _STEPS.get(side, side / 64) / side
    rows = []
    for s, radius in enumerate(SIZES.values()):
        freedom = 0.25 - _MARGIN - radius
        offsets = np.arange(-np.ceil(freedom / step), np.ceil(freedom / step) + 1) * step
        grid = np.stack(np.meshgrid(offsets.clip(-freedom, freedom), offsets.clip(-freedom, freedom)), -1).reshape(
            -1, 2
        )
        rows += [(k, s, place) for k in range(len(SHAPES)) for place in 0.25 + grid]
    shape, size = (np.array([row[i] for row in rows])[:, None] for i in (0, 1))
    place = np.array([row[2] for row in rows])
    ones = np.ones_like(shape, dtype=bool)
    drawn = coverage(Scenes(shape, np.zeros_like(shape), size, place[:, None], ones), side)[:, 0]
    half = side // 2
    kinds = [(list(SIZES)[s], SHAPES[k]) for k, s in zip(shape[:, 0], size[:, 0], strict=True)]
    return drawn[:, :half, :half].reshape(len(rows), -1).astype(np.float64), kinds, place


def agreement(asked: Asked, shown: Sequence[Object]) -> Agreement:
    """Objects are matched for the best agreement; a missing one counts as wrong in everything."""
    count = len(asked.objects)
    best = Agreement(0.0, 0.0, 0.0, False, len(shown) == count)
    for chosen in permutations([*shown, *[None] * count], count):
        pairs = [(wanted, found) for wanted, found in zip(asked.objects, chosen, strict=True) if found is not None]
        color, size, shape = (
            sum(getattr(wanted, name) == getattr(found, name) for wanted, found in pairs) / count
            for name in ("color", "size", "shape")
        )
        first, *others = chosen
        holding = sum(_holds(first, relation, o) for relation, o in zip(asked.relations, others, strict=True))
        whole = len(shown) == count and color == size == shape == 1 and holding == len(others)
        now = Agreement(color, size, shape, whole, len(shown) == count, holding / max(1, len(others)))
        if _rank(now) > _rank(best):
            best = now
    return best


def _rank(found: Agreement) -> tuple[bool, float, float]:
    return found.whole, found.color + found.size + found.shape, found.relations


def _holds(first: Object | None, relation: str, other: Object | None) -> bool:
    """Whether the first object is where the caption has it, along the axis on which the centers are further apart."""
    if first is None or other is None:
        return False
    right, down = first.place[0] - other.place[0], first.place[1] - other.place[1]
    vertical = "above" if down < 0 else "below"
    sideways = "left of" if right < 0 else "right of"
    if abs(abs(down) - abs(right)) < _EVEN:
        return relation in (vertical, sideways)
    return relation == (vertical if abs(down) >= abs(right) else sideways)
