"""Procedural scenes of colored shapes with captions, labels and ground truth."""

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genlab.data import scenes as drawing
from genlab.data.base import ConditionSpec, DataSpec, KeyedDataset, Split
from genlab.data.image import ImageDataModule, ImageTable
from genlab.data.sampler import Keys
from genlab.data.scenes import ATTRIBUTES, COLORS, SHAPES, WORDS, Scenes
from genlab.errors import ConfigError, ResourceError, did_you_mean
from genlab.seeding import derive_seed

_EXAMPLES = 64  # held-out captions that a run can be sampled with, without its data
_HELD_OUT_SHARE = 0.5  # of the validation scenes: they have an object that no training scene has


class Shapes(ImageDataModule):
    """One to three small or large shapes in six colors on a plain background: (3, S, S), a caption and a label each.

    Scene i of a split is a function of (scene_seed, split, epoch, i): with ``fresh`` every epoch brings new training
    scenes, nothing is downloaded and nothing is stored. A batch holds ``caption`` (N, T) int64, numbers of the words
    in ``genlab.data.scenes.WORDS`` padded with 0, and ``label`` (N,), the shape that the caption names first, that
    of the largest object. The combinations of shape and color in ``genlab.data.scenes.HELD_OUT`` (the first shape in
    the first color, the second in the second, ...) occur in no training scene, and in half of the validation scenes:
    samples for their captions test compositional generalization.

    With ``layout``, batches also hold ``layout`` (N, S, S): the color of the object at each pixel, from 1 on, or 0.

    Metrics see epoch 0. Scenes depend on ``scene_seed`` and not on the run's seed, so that runs with
    different seeds are evaluated on the same pictures.
    """

    def __init__(
        self,
        image_size: int = 32,  # pixels; a multiple of 16
        max_objects: int = 3,  # 1 to 3
        num_train: int = 20_000,  # scenes in an epoch
        num_val: int = 2_000,
        fresh: bool = True,  # every epoch brings new training scenes; false, or with a limit: those of epoch 0
        scene_seed: int = 0,  # of the scenes
        layout: bool = False,  # whether batches hold what is where, for model=control
        attributes: Sequence[str] = (),  # numbers of the largest object, as a condition: of size, x, y
        batch_size: int = 128,  # examples in a step, over all ranks together
        flip: Literal[False] = False,  # captions say left and right
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,  # of the order of the data
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(batch_size, flip, num_workers, limit, seed)
        if image_size < 16 or image_size % 16:
            raise ConfigError(f"data.image_size must be a multiple of 16, got {image_size}.")
        if not 1 <= max_objects <= 3:
            raise ConfigError(f"data.max_objects must be 1, 2 or 3, got {max_objects}.")
        for name, count in (("num_train", num_train), ("num_val", num_val)):
            if count < 1:
                raise ConfigError(f"data.{name} must be a whole number >= 1, got {count}.")
        for name in attributes:
            if name not in ATTRIBUTES:
                raise ConfigError(
                    f"data.attributes: shapes have no {name}.{did_you_mean(name, ATTRIBUTES)} "
                    "Use data.attributes=[size,x,y]."
                )
        self.attributes = tuple(dict.fromkeys(attributes))
        self.image_size, self.max_objects, self.scene_seed = image_size, max_objects, scene_seed
        self.counts: dict[Split, int] = {"train": min(num_train, limit or num_train), "val": num_val}
        self.fresh, self.layout = fresh and limit is None, layout
        self.caption_length = drawing.caption_length(max_objects)

    @property
    def spec(self) -> DataSpec:
        """Known without rendering anything."""
        held_out = self.scenes("val", 0, np.arange(min(_EXAMPLES, self.counts["val"])))
        label = ConditionSpec(len(SHAPES), SHAPES, examples=tuple(held_out.shape[:, 0].tolist()))
        captions = tuple(self.captions(held_out))
        caption = ConditionSpec(len(WORDS), WORDS, self.caption_length, examples=captions)
        condition = {"label": label, "caption": caption}
        if self.layout:
            condition["layout"] = ConditionSpec(1 + len(COLORS), ("nothing", *COLORS))
        if self.attributes:
            numbers = tuple(written(self.attributes, row) for row in held_out.attributes(self.attributes).tolist())
            condition["attributes"] = ConditionSpec(len(self.attributes), self.attributes, examples=numbers)
        return DataSpec("image", (3, self.image_size, self.image_size), condition=condition)

    def load(self, split: Split) -> ImageTable:
        """Epoch 0 of a split, rendered: (N, 3, S, S) uint8. Raises ResourceError if memory cannot hold it."""
        pixels, memory = 3 * self.image_size**2, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if self.counts[split] * pixels > memory:  # the system would kill the process, and maybe others
            name = "num_train" if split == "train" else "num_val"
            raise ResourceError(
                f"data.{name}={self.counts[split]} images take {self.counts[split] * pixels / 1e9:,.0f} GB, and this "
                f"machine has {memory / 1e9:,.0f} GB of memory. Use data.{name}={memory // pixels // 2}, or fewer."
            )
        scenes = self.scenes(split, 0, np.arange(self.counts[split]))
        layouts = drawing.layouts(scenes, self.image_size) if self.layout else None
        numbers = scenes.attributes(self.attributes) if self.attributes else None
        return ImageTable(
            self.render(scenes), scenes.shape[:, 0], SHAPES, self.tokens(scenes), layouts=layouts, attributes=numbers
        )

    def factors(self, split: Split) -> dict[str, np.ndarray]:
        """What makes a picture of one object what it is, by name: (N,) int64 of ``shape``, ``color`` and ``size``,
        float64 of ``x`` and ``y``. Of epoch 0. Raises ConfigError: there are several objects."""
        if self.max_objects > 1:
            raise ConfigError(
                f"data.max_objects={self.max_objects}: pictures of several objects have no factors. "
                "Use data.max_objects=1."
            )
        scenes = self.scenes(split, 0, np.arange(len(self.table(split))))
        x, y = scenes.position[:, 0].T
        whole = {"shape": scenes.shape, "color": scenes.color, "size": scenes.size}
        return {**{name: values[:, 0] for name, values in whole.items()}, "x": x, "y": y}

    def dataset(self, split: Split) -> KeyedDataset:
        """Training scenes are rendered as they are asked for, where every epoch has its own."""
        if split == "train" and self.fresh:
            return FreshScenes(
                self.counts["train"], self.scene_seed, self.image_size, self.max_objects, self.layout, self.attributes
            )
        return super().dataset(split)

    def _fingerprint(self) -> dict[str, str]:
        return {}  # scenes are a function of the settings

    def scenes(self, split: Split, epoch: int, indices: np.ndarray | Sequence[int]) -> Scenes:
        """The scenes ``indices`` (N,) of an epoch: exact shape, color, size and position of each object."""
        return _scenes(self.scene_seed, split, epoch, np.asarray(indices), self.max_objects)

    def has_held_out(self, split: Split) -> np.ndarray:
        """(N,) bool: the scenes of epoch 0 that have an object of a combination in HELD_OUT."""
        return self.scenes(split, 0, np.arange(self.counts[split])).has_held_out

    def render(self, scenes: Scenes) -> np.ndarray:
        """(N, 3, S, S) uint8."""
        return drawing.render(scenes, self.image_size)

    def object_masks(self, scenes: Scenes) -> np.ndarray:
        """(N, max_objects, S, S) bool: the pixels that an object covers by half or more."""
        return drawing.coverage(scenes, self.image_size) >= 0.5

    def tokens(self, scenes: Scenes) -> np.ndarray:
        """The captions as (N, T) int64, numbers of words."""
        return drawing.tokens(scenes)

    def captions(self, scenes: Scenes) -> list[str]:
        """In plain English, e.g. "a large blue square below a small red circle"."""
        return drawing.to_text(self.tokens(scenes))

    def tokenize(self, captions: Sequence[str]) -> np.ndarray:
        """Any captions as (N, T) int64; "" is an empty caption. Raises ConfigError for an unknown word."""
        return drawing.to_tokens(captions, self.caption_length)


def written(names: Sequence[str], values: Sequence[float]) -> str:
    """Attributes as a user types them."""
    return ",".join(f"{name}={value:.4g}" for name, value in zip(names, values, strict=True))


def _scenes(scene_seed: int, split: Split, epoch: int, indices: np.ndarray, max_objects: int) -> Scenes:
    seed = derive_seed(scene_seed, ("train", "val").index(split), epoch)
    return drawing.draw_scenes(seed, indices, max_objects, _HELD_OUT_SHARE if split == "val" else 0.0)


class FreshScenes(KeyedDataset):
    """Training scenes by (epoch, index), rendered when they are asked for."""

    def __init__(
        self,
        count: int,
        scene_seed: int,
        image_size: int,
        max_objects: int,
        layout: bool = False,
        attributes: Sequence[str] = (),
    ):
        self.count, self.scene_seed, self.image_size, self.max_objects = count, scene_seed, image_size, max_objects
        self.layout, self.attributes = layout, attributes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        indices = np.array([index for _, index in keys])
        scenes = _scenes(self.scene_seed, "train", keys[0][0], indices, self.max_objects)
        batch = {
            "image": torch.from_numpy(drawing.render(scenes, self.image_size)),
            "index": torch.from_numpy(indices),
            "label": torch.from_numpy(scenes.shape[:, 0]),
            "caption": torch.from_numpy(drawing.tokens(scenes)),
        }
        if self.layout:
            batch["layout"] = torch.from_numpy(drawing.layouts(scenes, self.image_size))
        if self.attributes:
            batch["attributes"] = torch.from_numpy(scenes.attributes(self.attributes))
        return batch
