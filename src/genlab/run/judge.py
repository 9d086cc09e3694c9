"""What judges samples: a classifier, a model that compares pictures with captions, or the rule of ``data=shapes``."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.config.build import build, fits, resolve
from genlab.data import scene_reader
from genlab.data.image import to_pixels
from genlab.errors import ConfigError
from genlab.metrics.trained_clip import TrainedCLIP
from genlab.model.base import Classifies, ComparesCaptions, Condition, Model
from genlab.model.condition import KINDS, kinds_of
from genlab.model.condition_kind import Caption, Label
from genlab.rewards.label import LABEL, LabelProbability
from genlab.run.elsewhere import put_part
from genlab.run.origin import origin_of
from genlab.sampling.best_of import Judge

SCENES = "scenes"  # judge=scenes: the reader of data=shapes
CAPTION = next(key for key, kind in KINDS.items() if kind is Caption)


class ClassifierJudge:
    """The logarithm of the probability that a classifier gives the label, in nats."""

    reads: frozenset[str] = frozenset({LABEL})

    def __init__(self, model: Classifies, described: str):
        self.model, self.described, self.reward = model, described, LabelProbability(model)

    def classes(self, images: Tensor) -> Tensor:
        """The most probable label of images (N, C, H, W) on [-1, 1]. -> (N,)"""
        self.reward.model.to(images.device)
        return self.model.logits(images).argmax(dim=1)

    def score(self, images: Tensor, condition: Condition) -> Tensor:
        return self.reward.score(images, condition)


class CaptionJudge:
    """The cosine of picture and caption, by a model of both."""

    reads: frozenset[str] = frozenset({CAPTION})

    def __init__(self, clip: TrainedCLIP, kind: Caption, described: str):
        self.clip, self.kind, self.described = clip, kind, described

    def score(self, images: Tensor, condition: Condition) -> Tensor:
        texts = self.kind.words(condition[CAPTION])
        pixels = to_pixels(images, 8)
        return F.cosine_similarity(self.clip.images(pixels), self.clip.texts(texts, images.device))


class SceneJudge:
    """How much of its caption a picture of ``data=shapes`` shows: 10 for all of it, else the sum of shares of objects
    of the right color, size and shape, of right relations, and of the right number."""

    reads: frozenset[str] = frozenset({CAPTION})
    described = "the reader of shapes"

    def __init__(self, kind: Caption):
        self.kind = kind

    def score(self, images: Tensor, condition: Condition) -> Tensor:
        shown = scene_reader.read(to_pixels(images, 8).cpu().numpy())
        found = []
        for text, objects in zip(self.kind.words(condition[CAPTION]), shown, strict=True):
            each = scene_reader.agreement(scene_reader.parse(text), objects)
            found.append(10.0 if each.whole else each.color + each.size + each.shape + each.relations + each.count)
        return torch.tensor(found)


def load_judge(where: str, spec: Mapping[str, Any], run: Any) -> Judge:
    """The judge that ``judge=where`` names, for pictures of the model of ``run``, whose data have this ``spec``.

    Raises ConfigError: it is none, or judges other pictures, labels or captions; CheckpointError: it is damaged.
    """
    told, shape = spec["condition"], tuple(spec["shape"])
    if where == SCENES:
        return SceneJudge(_captions(where, told, run))
    origin = origin_of(where, "judge")
    node = origin.model()
    kind = resolve(node["_target_"], "judge")
    if not (fits(kind, Classifies, partial=False) or fits(kind, ComparesCaptions, partial=False)):
        raise ConfigError(
            f"judge={where}: a {kind.__name__} judges no pictures. Name a run of model=classifier or "
            "contrastive_text, or judge=scenes."
        )
    model: Any = build(node, Model, "judge")
    model.configure_model()
    put_part(model, origin.weights(), where)
    model.eval().requires_grad_(False)
    if tuple(model.shape) != shape:
        raise ConfigError(
            f"judge={where} was trained on pictures of shape {tuple(model.shape)}, and {run} draws {shape}. Name a "
            "judge of the same data."
        )
    described = f"{type(model).__name__} {origin.sha256()[:16]}"
    if isinstance(model, Classifies):
        size, known = (told.get(LABEL) or {}).get("size"), getattr(model, "num_classes", None)
        if size != known:
            raise ConfigError(
                f"judge={where} knows {known} labels, and the data of {run} have {size or 'none'}. Name a "
                "judge of the same data."
            )
        return ClassifierJudge(model, described)
    captions, clip = _captions(where, told, run), TrainedCLIP(model, "judge")
    if list(captions.names) != list(clip.caption.names) or captions.length > clip.caption.length:
        raise ConfigError(
            f"judge={where} was trained on captions of other words than those of {run}. Name a judge of the same data."
        )
    return CaptionJudge(clip, captions, described)


def _captions(where: str, told: Mapping[str, Any], run: Any) -> Caption:
    if (told.get(CAPTION) or {}).get("size") is None:
        raise ConfigError(
            f"judge={where} reads captions, and the data of {run} have none. Name a run of model=classifier."
        )
    kind = kinds_of(told, [CAPTION])[CAPTION]
    assert isinstance(kind, Caption)
    return kind


def label_kind(told: Mapping[str, Any]) -> Label:
    """The labels of data, whether a model takes them or not. ``told``: ``spec.condition``."""
    kind = kinds_of(told, [LABEL])[LABEL]
    assert isinstance(kind, Label)
    return kind
