"""How well a reward model agrees with people on held-out pairs or ratings."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.regression import spearman_corrcoef

from genlab.data.base import DataModule, Split
from genlab.data.image import content_hash
from genlab.data.image_preferences import ImagePreferences
from genlab.data.preferences import Preferences
from genlab.data.rated import Rated
from genlab.data.ratings import Ratings
from genlab.errors import ConfigError
from genlab.machine.rank import rank, world
from genlab.metrics.base import Direction
from genlab.metrics.extractor.precision import full_precision
from genlab.metrics.pair_accuracy import calibration_error, pair_accuracy
from genlab.metrics.text_baseline import accuracy_of_texts
from genlab.model.base import GivesRewards, Model


class RewardAccuracy(Metric):
    """Of held-out pairs ``pair_accuracy``: how often the preferred one has the larger reward; an equal one counts half,
    and ties of people are left out. Of ratings, over all pairs of texts whose mean ratings differ.

    Beside it, of pairs: ``calibration_error``, the mean distance of a predicted probability from how often it was
    right, in ten bins of width 0.05 (Guo et al. 2017, eq. 3), and ``cross_entropy`` in nats. Of ratings
    ``rating_rmse``, on their scale, ``rating_correlation`` (of ranks), and ``rating_slope``, by how much people's
    ratings rise when the predicted one rises by 1. Of an ensemble ``disagreement``, the standard deviation of its
    members.

    What these have to be seen beside: ``longer_wins``, the accuracy of preferring the longer text; ``human_accuracy``,
    where each person's ratings are known, that of one person's rating against the mean of the others; and with
    ``baseline``, ``tfidf_accuracy``, that of TF-IDF with ridge or logistic regression, fitted to the training texts.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {
        "pair_accuracy": "higher",
        "calibration_error": "lower",
        "cross_entropy": "lower",
        "rating_rmse": "lower",
        "rating_correlation": "higher",
        "rating_slope": "one",
        "disagreement": None,
        "longer_wins": None,
        "human_accuracy": None,
        "tfidf_accuracy": None,
    }
    full_state_update = False

    rewards: list[Tensor]
    truth: list[Tensor]
    index: list[Tensor]

    def __init__(self, baseline: bool = False):  # also of TF-IDF with a linear model; only of texts
        super().__init__()
        self.baseline = baseline
        self._measured, self._span = "", 1.0  # span: ratings of a unit of reward
        self._beside: dict[str, float] = {}
        self._probability: Any = None  # of a difference of rewards; None: ratings
        for name in ("rewards", "truth", "index"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, rewards: Tensor, truth: Tensor, index: Tensor) -> None:
        """Of pairs the differences of rewards (N, members) and whether one of the two was preferred (N,); of ratings
        the rewards, and the mean ratings on the scale of rewards. ``index`` (N,): places in the split."""
        self.rewards.append(rewards.double())
        self.truth.append(truth.double())
        self.index.append(index)

    def compute(self) -> dict[str, Tensor]:
        order = _joined(self.index).argsort()
        rewards, truth = _joined(self.rewards)[order], _joined(self.truth)[order]
        found = self._of_pairs(rewards, truth) if self._probability is not None else self._of_ratings(rewards, truth)
        if rewards.shape[1] > 1:
            found["disagreement"] = rewards.std(dim=1).mean()
        return {**found, **{name: torch.tensor(value, dtype=torch.float64) for name, value in self._beside.items()}}

    def _of_pairs(self, rewards: Tensor, truth: Tensor) -> dict[str, Tensor]:
        difference = rewards.mean(dim=1)[truth > 0]
        right = (difference > 0).double() + (difference == 0).double() / 2
        probability = self._probability(difference).clamp(1e-12, 1 - 1e-12)
        return {
            "pair_accuracy": right.mean(),
            "calibration_error": calibration_error(probability, right),
            "cross_entropy": -probability.log().mean(),
        }

    def _of_ratings(self, rewards: Tensor, truth: Tensor) -> dict[str, Tensor]:
        predicted = rewards.mean(dim=1)
        moved = predicted - predicted.mean()
        return {
            "pair_accuracy": pair_accuracy(predicted, truth),
            "rating_rmse": self._span * (predicted - truth).square().mean().sqrt(),
            "rating_correlation": spearman_corrcoef(predicted, truth),
            "rating_slope": (moved * (truth - truth.mean())).sum() / moved.square().sum().clamp(min=1e-12),
        }

    def settings(self) -> dict[str, int | float | str]:
        """With a hash of the data of the latest ``measure``."""
        return {"split": "val", "sha256": self._measured, "baseline": self.baseline}

    @torch.no_grad()
    def measure(self, model: Model, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in this rank's share of the held-out split. The model is in eval mode. Raises ConfigError as
        :meth:`check` does."""
        self.check(model, data)
        assert isinstance(model, GivesRewards)
        assert isinstance(model, Model)
        rated = isinstance(data, Ratings)
        self._probability = None if rated else model.objective.probability
        self._span = (data.highest - data.lowest) / 2 if isinstance(data, Ratings) else 1.0
        self._measured, self._beside = _hash_of(data), self._told_by(data)
        dataset, device = data.dataset("val"), self.device
        mine = range(rank(), len(dataset), world())
        for start in range(0, len(mine), batch_size):
            keys = [(0, i) for i in mine[start : start + batch_size]]
            batch = {name: value.to(model.device) for name, value in dataset[keys].items()}
            batch = data.on_after_batch_transfer(batch, 0)
            with full_precision(model.device):
                rewards = model.rewards(batch)  # (members, N) or (members, N, 2)
            values = rewards.T if rated else (rewards[..., 0] - rewards[..., 1]).T
            truth = batch["rating"] if rated else ~batch["tie"]
            self.update(values.to(device), truth.to(device), batch["index"].to(device))

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError: the model does not give rewards, or nobody has judged the data."""
        if not isinstance(model, GivesRewards):
            raise ConfigError(
                f"metrics=reward_accuracy: a {type(model).__name__} is not a reward model. Leave it out of "
                "metrics=[...]."
            )
        if not isinstance(data, Ratings | Preferences | ImagePreferences):
            raise ConfigError("metrics=reward_accuracy: nobody has judged the data. Use data=preferences.")
        if self.baseline and isinstance(data, ImagePreferences):
            raise ConfigError(
                "metrics.reward_accuracy.baseline: TF-IDF is of texts; the data are pictures. Leave it out."
            )

    def subject(self, model: Model, split: Split) -> str:
        return "val"

    def _told_by(self, data: DataModule) -> dict[str, float]:
        """The numbers that no model changes."""
        found: dict[str, float] = {}
        if isinstance(data, Ratings):
            rated = [one.rated for one in data.encoded_ratings("val")]
            means = torch.tensor([one.rating for one in rated], dtype=torch.float64)
            lengths = torch.tensor([len(one.answer) for one in rated], dtype=torch.float64)
            found["longer_wins"] = float(pair_accuracy(lengths, means))
            people = list(_against_the_others(rated))
            if people:
                found["human_accuracy"] = float(torch.stack(people).mean())
        if isinstance(data, Preferences):
            pairs = [one.pair for one in data.encoded_pairs("val") if not one.pair.tie]
            longer = [_words(pair.answers[0]) - _words(pair.answers[1]) for pair in pairs]
            found["longer_wins"] = float(np.mean([(length > 0) + (length == 0) / 2 for length in longer]))
        if self.baseline and isinstance(data, Ratings | Preferences):
            found["tfidf_accuracy"] = accuracy_of_texts(data)
        return found


def _against_the_others(rated: list[Rated]) -> Iterator[Tensor]:
    """The accuracy of each person, by the place of a rating in a row."""
    if not rated or min(len(one.ratings) for one in rated) < 2:
        return
    for k in range(min(len(one.ratings) for one in rated)):
        own = torch.tensor([one.ratings[k] for one in rated], dtype=torch.float64)
        rest = [(sum(one.ratings) - one.ratings[k]) / (len(one.ratings) - 1) for one in rated]
        yield pair_accuracy(own, torch.tensor(rest, dtype=torch.float64))


def _words(messages: Any) -> int:
    return sum(len(message["content"]) for message in messages)


def _hash_of(data: Any) -> str:
    if isinstance(data, ImagePreferences):
        return content_hash(data.table("val").images, data.rejected("val"))
    return str(data.text_hash("val")[:16])


def _joined(parts: Any) -> Tensor:
    return torch.cat(parts) if isinstance(parts, list) else parts
