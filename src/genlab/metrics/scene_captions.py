"""Captions of scenes of shapes: what is right in them, of seen and of held-out combinations."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from genlab.data.scene_reader import Asked, parse
from genlab.data.scenes import HELD_OUT
from genlab.errors import DataError
from genlab.metrics.base import Direction
from genlab.metrics.caption_match import CaptionMatch

_PARTS = ("color", "size", "shape")


class SceneCaptions(CaptionMatch):
    """For ``data=shapes``: the share of captions that are right word for word, in all scenes (``caption_match``), in
    those of which every object has a combination of shape and color that occurs in training
    (``caption_match_seen``), and in those with an object that has not (``caption_match_held_out``); and of objects of
    which color, size and shape are right, in the order in which a caption names them. A caption with fewer objects, or
    of another grammar, lacks them; one with more is not right as a whole."""

    directions: ClassVar[Mapping[str, Direction | None]] = {
        "caption_match": "higher",
        "caption_match_seen": "higher",
        "caption_match_held_out": "higher",
        "caption_objects": "higher",
        **{f"caption_{part}": "higher" for part in _PARTS},
        "held_out_scenes": None,
    }

    def compute(self) -> dict[str, Tensor]:
        """All in [0, 1]; what there are no scenes of is left out. Raises DataError: no sample has a reference, or a
        reference is not a caption of ``data=shapes``."""
        compared = self.compared()
        right = {place: text in references for place, (text, references) in compared.items()}
        try:
            truths = {place: parse(references[0]) for place, (_, references) in compared.items()}
        except ValueError as error:
            raise DataError(f"scene_captions reads captions of data=shapes: {error}") from error
        held_out = {place: _is_held_out(truth) for place, truth in truths.items()}
        said = {place: _parsed(text) for place, (text, _) in compared.items()}
        objects = dict.fromkeys(_PARTS, 0.0)
        for place, truth in truths.items():
            for part in _PARTS:
                pairs = zip(truth.objects, said[place].objects, strict=False)
                same = sum(getattr(a, part) == getattr(b, part) for a, b in pairs)
                objects[part] += same / len(truth.objects)
        counted = [len(said[place].objects) == len(truth.objects) for place, truth in truths.items()]
        numbers = {
            "caption_match": _mean(list(right.values())),
            "caption_match_seen": _mean([right[place] for place in right if not held_out[place]]),
            "caption_match_held_out": _mean([right[place] for place in right if held_out[place]]),
            "caption_objects": _mean(counted),
            **{f"caption_{part}": objects[part] / len(right) for part in _PARTS},
            "held_out_scenes": _mean(list(held_out.values())),
        }
        kinds = {"caption_match_seen": False, "caption_match_held_out": True}
        absent = {name for name, kind in kinds.items() if kind not in held_out.values()}
        return {n: torch.tensor(value, dtype=torch.float64) for n, value in numbers.items() if n not in absent}


def _mean(values: list[bool]) -> float:
    return sum(values) / max(1, len(values))


def _is_held_out(scene: Asked) -> bool:
    return any((thing.shape, thing.color) in HELD_OUT for thing in scene.objects)


def _parsed(caption: str) -> Asked:
    """What a caption says, and nothing if it is of another grammar."""
    try:
        return parse(caption)
    except ValueError:
        return Asked(())
