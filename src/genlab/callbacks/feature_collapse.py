"""Failures of self-supervised learning: features that are the same for all images, or vary in few directions."""

from collections.abc import Mapping
from typing import Any

_IN_A_ROW = 5  # looks that have to agree
_STD = 0.05  # of that of vectors that point everywhere alike
_RANK = 0.05  # of the largest possible


class FeatureCollapse:
    """What becomes of the features of a batch. The loss of a family without negatives, such as a teacher and its
    student, is lowest when all are equal.

    * **Complete collapse**: all images have nearly the same features. Their deviation, of unit vectors, is below a
      twentieth of that of vectors that point everywhere alike (Chen and He 2021, arXiv:2011.10566, section 4.1).
    * **Dimensional collapse**: features vary in few directions (Jing et al. 2022, arXiv:2110.09348). Their effective
      rank is below 2, or below a twentieth of the largest that those of a batch can have.
    """

    def __init__(self) -> None:
        self.in_a_row = {"complete": 0, "dimensional": 0}

    def look(self, logged: Mapping[str, Any], examples: int, most_rank: int | None) -> dict[str, str]:
        """What is wrong after a step, by the name of the failure: a sentence with what to do. ``most_rank``: the
        largest effective rank that is possible."""
        if most_rank is None or "train/feature_std" not in logged or "train/effective_rank" not in logged:
            return {}
        std, rank = float(logged["train/feature_std"]), float(logged["train/effective_rank"])
        is_complete = self._holds("complete", std < _STD)
        if is_complete:
            return {
                "complete collapse": (
                    f"complete collapse: at the last {_IN_A_ROW} looks, up to {examples:,} examples, all images had "
                    f"nearly the same features (train/feature_std {std:.2g}; 1 is everywhere alike). Use a lower "
                    "model.optimizer.lr, or model=contrastive, whose loss keeps images apart."
                )
            }
        if self._holds("dimensional", rank < max(_RANK * most_rank, 2.0) and std >= _STD):
            return {
                "dimensional collapse": (
                    f"dimensional collapse: at the last {_IN_A_ROW} looks, up to {examples:,} examples, features "
                    f"varied in about {rank:.1f} of {most_rank} directions (train/effective_rank). Use a lower "
                    "model.optimizer.lr, or a loss that has elements uncorrelated: model=contrastive "
                    "model/objective=vicreg."
                )
            }
        return {}

    def _holds(self, name: str, now: bool) -> bool:
        self.in_a_row[name] = self.in_a_row[name] + 1 if now else 0
        return self.in_a_row[name] >= _IN_A_ROW

    def state_dict(self) -> dict[str, Any]:
        return {"in_a_row": dict(self.in_a_row)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.in_a_row = dict(state["in_a_row"])
