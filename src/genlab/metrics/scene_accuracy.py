"""Scene accuracy: the share of pictures that show what their captions say, by a fixed rule."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.scene_reader import agreement, parse, read
from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch

_PARTS = ("color", "size", "shape", "count", "relation")


class SceneAccuracy(Metric):
    """The share of samples that show all that their caption asks for: of all, of captions whose combinations of shape
    and color training had (``_seen``) and of the others (``_held_out``). Then the share of asked objects of the right
    color, size and shape, of pictures with as many objects, and of asked relations that hold. After the object accuracy
    of compositional benchmarks (GenEval, Ghosh et al. 2023), whose reader is a trained detector.

    The reader here is a rule that knows how ``data=shapes`` draws: paint in a quarter of the picture is compared with
    every shape at every place. ``scene_reader_error`` is its own: the share of real pictures that it does not find to
    show their captions; an accuracy is to be trusted to about that. At 16 and at 32 pixels it is 0 in 1,000.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image", "caption"})
    directions: ClassVar[Mapping[str, Direction | None]] = {
        "scene_accuracy": "higher",
        "scene_accuracy_seen": "higher",
        "scene_accuracy_held_out": "higher",
        **{f"{part}_accuracy": "higher" for part in _PARTS},
        "scene_reader_error": None,
    }
    is_differentiable = False
    full_state_update = False

    shown: (
        Tensor  # (5,): color, size and shape, as sums of shares of objects; pictures of that many; shares of relations
    )
    related: Tensor  # pictures whose captions have relations
    whole: Tensor  # (2,): pictures that show all, of captions with combinations that training had, and of the others
    count: Tensor  # (2,): pictures of these
    misread: Tensor
    real: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("shown", torch.zeros(len(_PARTS), dtype=torch.float64), dist_reduce_fx="sum")
        for state in ("whole", "count"):
            self.add_state(state, torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        for state in ("related", "misread", "real"):
            self.add_state(state, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, 3, S, S) uint8 and ``caption``, N strings. Raises DataError if a caption is not one of
        ``data=shapes``."""
        try:
            asked = [parse(caption) for caption in batch["caption"]]
        except ValueError as error:
            raise DataError(f"scene_accuracy reads captions of data=shapes: {error}") from error
        shown = read(batch["image"].cpu().numpy())
        found = [agreement(*pair) for pair in zip(asked, shown, strict=True)]
        whole = torch.tensor([each.whole for each in found]).double()
        if real:
            self.real += len(found)
            self.misread += int((whole == 0).sum())
            return
        kinds = torch.tensor([[not each.has_held_out, each.has_held_out] for each in asked]).double()  # (N, 2)
        parts = [(each.color, each.size, each.shape, each.count, each.relations) for each in found]
        self.whole += (whole[:, None] * kinds).sum(dim=0).to(self.whole.device)
        self.count += kinds.sum(dim=0).to(self.count.device)
        self.shown += torch.tensor(parts).double().sum(dim=0).to(self.shown.device)
        self.related += sum(bool(each.relations) for each in asked)

    def compute(self) -> dict[str, Tensor]:
        """All in [0, 1]; what no caption asks for is left out. Raises DataError if there is no sample."""
        total = self.count.sum()
        if total == 0:
            raise DataError("scene_accuracy needs samples with captions, and there are none.")
        kinds = zip(("seen", "held_out"), self.whole, self.count, strict=True)
        parts = {f"{name}_accuracy": part / total for name, part in zip(_PARTS, self.shown, strict=True)}
        del parts["relation_accuracy"]
        if self.related > 0:
            parts["relation_accuracy"] = self.shown[-1] / self.related
        return {
            "scene_accuracy": self.whole.sum() / total,
            **{f"scene_accuracy_{name}": whole / count for name, whole, count in kinds if count > 0},
            **parts,
            "scene_reader_error": self.misread / self.real,
        }

    def settings(self) -> dict[str, int | float | str]:
        return {"reader": "nearest template in each quarter"}
