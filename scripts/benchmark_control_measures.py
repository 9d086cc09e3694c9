"""What scripts/benchmark_control.py measures of pictures of one shape: what is as asked, what was kept, seams, PSNR."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from genlab.data import scenes as drawing
from genlab.data.scene_reader import Object, read
from genlab.data.scenes import COLORS, HELD_OUT, SHAPES, SIZES, Scenes
from genlab.metrics.fid import fid_of_few
from genlab.seeding import uniform_by_index

NEAR = 0.06  # of the side: an object that moved less has kept its place
GROWN = 2  # pixels that a mask reaches beyond the object's
ROUNDING = 1 / 12  # of squared gray levels: the error of rounding to 8 bits, below which pictures are the same
ATTRIBUTES = ("color", "shape")  # that edits change


# --- scenes -----------------------------------------------------------------------------------------------------------


def objects_of(scenes: Scenes) -> list[Object]:
    """The object of each scene of one."""
    numbers = zip(scenes.size[:, 0], scenes.color[:, 0], scenes.shape[:, 0], scenes.position[:, 0], strict=True)
    names = (list(SIZES), list(COLORS), SHAPES)
    return [Object(names[0][s], names[1][c], names[2][k], (float(p[0]), float(p[1]))) for s, c, k, p in numbers]


def edited(scenes: Scenes, seed: int) -> tuple[Scenes, list[str]]:
    """Scenes of one object with another color and with another shape in turn, and which of the two each got. New
    values are uniform among those that differ and make no combination that training never had."""
    color, shape = scenes.color.copy(), scenes.shape.copy()
    changed = []
    for i, u in enumerate(uniform_by_index(seed, np.arange(len(scenes)))):
        name = ATTRIBUTES[i % len(ATTRIBUTES)]
        values, count = (color, len(COLORS)) if name == "color" else (shape, len(SHAPES))
        allowed = [
            value for value in range(count) if value != values[i, 0] and _seen(name, value, color[i, 0], shape[i, 0])
        ]
        values[i, 0] = allowed[int(u * len(allowed))]
        changed.append(name)
    return replace(scenes, color=color, shape=shape), changed


def _seen(name: str, value: int, color: int, shape: int) -> bool:
    color, shape = (value, shape) if name == "color" else (color, value)
    return (SHAPES[shape], list(COLORS)[color]) not in HELD_OUT


def masks_of(scenes: Scenes, image_size: int, grown: int = GROWN) -> Tensor:
    """The box around each object and ``grown`` pixels more, inside the picture: (N, 1, S, S) bool."""
    painted = drawing.coverage(scenes, image_size)[:, 0] > 0  # (N, S, S)
    masks = torch.zeros(len(scenes), 1, image_size, image_size, dtype=torch.bool)
    for mask, place in zip(masks, painted, strict=True):
        rows, columns = (np.flatnonzero(place.any(axis=axis)) for axis in (1, 0))
        top, left = (max(0, int(x[0]) - grown) for x in (rows, columns))
        mask[0, top : int(rows[-1]) + grown + 1, left : int(columns[-1]) + grown + 1] = True
    return masks


# --- what pictures show -----------------------------------------------------------------------------------------------


def shown(images: np.ndarray) -> list[Object | None]:
    """The object of pictures (N, 3, S, S) uint8; None: there is none, or more than one."""
    return [found[0] if len(found) == 1 else None for found in read(images)]


def is_right(found: Object | None, asked: Object) -> bool:
    """Whether there is one object, of the size, color and shape that were asked for."""
    return found is not None and all(getattr(found, name) == getattr(asked, name) for name in ("size", *ATTRIBUTES))


def is_near(found: Object | None, asked: Object) -> bool:
    return found is not None and float(np.hypot(*np.subtract(found.place, asked.place))) <= NEAR


def agreement(images: np.ndarray, asked: Sequence[Object], changed: Sequence[str]) -> dict[str, float]:
    """Shares of edited pictures (N, 3, S, S) uint8, of which scene i should be ``asked[i]``.

    ``asked``: the attribute ``changed[i]`` is as asked for. ``kept``: size, place and the other attribute are. ``both``
    of these. ``whole``: size, color and shape are, wherever the object is. A picture without an object, or with
    several, has none of these.
    """
    rows = []
    for found, wanted, name in zip(shown(images), asked, changed, strict=True):
        others = ["size", *(other for other in ATTRIBUTES if other != name)]
        right = found is not None and getattr(found, name) == getattr(wanted, name)
        kept = is_near(found, wanted) and all(getattr(found, other) == getattr(wanted, other) for other in others)
        rows.append((right, kept, right and kept, is_right(found, wanted)))
    return dict(zip(("asked", "kept", "both", "whole"), np.mean(rows, axis=0).tolist(), strict=True))


def accuracy(images: np.ndarray, asked: Sequence[Object]) -> float:
    """The share of pictures (N, 3, S, S) uint8 that show one object as asked for, wherever it is."""
    return float(np.mean([is_right(*pair) for pair in zip(shown(images), asked, strict=True)]))


def restored(images: np.ndarray, scenes: Sequence[Object]) -> float:
    """The share of pictures (N, 3, S, S) uint8 that show the scene that there was, at its place."""
    found = zip(shown(images), scenes, strict=True)
    return float(np.mean([is_right(one, scene) and is_near(one, scene) for one, scene in found]))


def variety(images: np.ndarray, real: np.ndarray) -> float:
    """How far places of objects scatter, which no caption asks for: their standard deviation in ``images``, divided by
    that in ``real`` ones; (N, 3, S, S) uint8 each. 0 where fewer than two pictures show one object."""

    def scatter(pictures: np.ndarray) -> float:
        places = [found.place for found in shown(pictures) if found is not None]
        return float(np.sqrt(np.var(places, axis=0).sum())) if len(places) > 1 else 0.0

    of_real = scatter(real)
    return scatter(images) / of_real if of_real > 0 else 0.0


# --- pixels -----------------------------------------------------------------------------------------------------------


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Decibels, over all pixels of pictures (N, C, H, W) uint8. Pictures that are the same have those of rounding to 8
    bits, 58.9."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return float(10 * np.log10(255**2 / max(error, ROUNDING)))


def seam(images: np.ndarray, real: np.ndarray, masks: np.ndarray) -> float:
    """How much more there is to see at the border of a mask than in the ``real`` picture, in which there is no mask.

    The mean absolute difference of neighboring pixels across the border of ``masks`` (N, 1, H, W) bool, in gray levels,
    plus one, divided by that of ``real``; pictures are (N, C, H, W) uint8. One level is added since the background is
    plain, so that real pictures have no difference there; 1 is a border that cannot be seen.
    """
    return (1 + _across(images, masks)) / (1 + _across(real, masks))


def _across(images: np.ndarray, masks: np.ndarray) -> float:
    total, count = 0.0, 0
    for axis in (2, 3):
        steps = np.abs(np.diff(images.astype(np.float64), axis=axis))
        border = np.broadcast_to(np.diff(masks.astype(np.int8), axis=axis) != 0, steps.shape)
        total, count = total + float(steps[border].sum()), count + int(border.sum())
    return total / max(count, 1)


def misfit(operator: object, images: Tensor, y: Tensor) -> float:
    """The mean absolute difference of A x and y in gray levels, of ``images`` x (N, C, H, W) in [-1, 1]."""
    measured: Tensor = operator.measure(images)  # type: ignore[attr-defined]
    return float((measured - y).abs().mean()) * 127.5


def fid(features: Tensor, real: Tensor) -> float:
    """Of features (N, D) and (M, D)."""
    return float(fid_of_few(real, features))


# --- of several seeds -------------------------------------------------------------------------------------------------


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """As a record holds them."""
    return {name: float(f"{value:.6g}") for name, value in values.items()}
