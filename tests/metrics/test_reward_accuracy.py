"""The agreement of reward models with people: against brute force and by hand, and what the numbers stand beside."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chats import lines
from genlab.data.preferences import Preferences
from genlab.data.rated import Rated
from genlab.data.ratings import Ratings
from genlab.data.tokenizer.bytes import Bytes
from genlab.errors import ConfigError
from genlab.metrics import pair_accuracy as pairwise
from genlab.metrics import reward_accuracy
from genlab.metrics.pair_accuracy import calibration_error, pair_accuracy
from genlab.metrics.reward_accuracy import RewardAccuracy
from genlab.metrics.text_baseline import accuracy_of_texts
from genlab.model.objective.reward import BradleyTerry
from genlab.model.reward_model import RewardModel


def test_pairs_are_all_with_unequal_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "_AT_ONCE", 7)
    draw = np.random.default_rng(0)
    predicted, truth = draw.integers(0, 9, 40).astype(float), draw.integers(0, 5, 40).astype(float)
    right, number = 0.0, 0
    for i in range(40):
        for j in range(i):
            if truth[i] != truth[j]:
                number += 1
                same = (predicted[i] - predicted[j]) * (truth[i] - truth[j])
                right += 1.0 if same > 0 else 0.5 * (same == 0)
    found = pair_accuracy(torch.from_numpy(predicted), torch.from_numpy(truth))
    assert float(found) == pytest.approx(right / number)
    assert math.isnan(pair_accuracy(torch.arange(3.0), torch.ones(3)))


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.92, of which three of four were right, and 0.6, of which one of two was."""
    probability = torch.tensor([0.92, 0.92, 0.08, 0.08, 0.61, 0.61], dtype=torch.float64)
    right = torch.tensor([1, 1, 0, 1, 1, 0], dtype=torch.float64)
    expected = (abs(4 * 0.92 - 3) + abs(2 * 0.61 - 1)) / 6
    assert float(calibration_error(probability, right)) == pytest.approx(expected)


def test_predictions_as_sure_as_they_are_right_have_no_error() -> None:
    draw = np.random.default_rng(1)
    probability = draw.random(200_000)
    right = torch.from_numpy((draw.random(200_000) < probability).astype(float))
    assert float(calibration_error(torch.from_numpy(probability), right)) < 0.005
    surer = torch.from_numpy(probability**2 / (probability**2 + (1 - probability) ** 2))
    assert float(calibration_error(surer, right)) > 0.05


class Told(RewardModel):
    """Gives a reward of what stands in a table, by the index of an example."""

    kinds = frozenset({"tokens"})

    def __init__(self, table: Any):
        super().__init__(BradleyTerry(), None, None, len(table), 0)  # type: ignore[arg-type]
        self.table = torch.tensor(table)

    def new_network(self) -> Any: ...

    def configure_model(self) -> None: ...

    def scored(self, member: Any, batch: Any) -> Any: ...

    def rewards(self, batch: Any) -> Any:
        return self.table[:, batch["index"]]


def ratings(folder: Path, rows: Any, **options: Any) -> Ratings:
    path = str(lines(rows, folder / "r.jsonl"))
    return Ratings(Bytes(), path, val_path=path, context=64, cache_dir=str(folder), **options)


def pairs(folder: Path, rows: Any) -> Preferences:
    path = str(lines(rows, folder / "p.jsonl"))
    return Preferences(Bytes(), path, val_path=path, ties="half", context=64, cache_dir=str(folder))


def test_ratings_on_their_scale_beside_length_and_people(tmp_path: Path) -> None:
    said = [[1, 1, 2], [2, 3, 3], [4, 5, 5], [5, 5, 4]]
    rows = [{"completion": "x" * (1 + i), "rating": each} for i, each in enumerate(said)]
    data, metric = ratings(tmp_path, rows), RewardAccuracy()
    model = Told([[-0.8, 0.4, 0.2, 0.9]])
    metric.measure(model, data, "val", batch_size=3)
    found = {name: float(value) for name, value in metric.compute().items()}
    means = np.array([np.mean(each) for each in said])
    predicted = 3 + 2 * np.array([-0.8, 0.4, 0.2, 0.9])
    assert found["pair_accuracy"] == pytest.approx(4 / 5)  # two are rated alike
    assert found["rating_rmse"] == pytest.approx(np.sqrt(np.mean((predicted - means) ** 2)))
    assert found["rating_slope"] == pytest.approx(np.polyfit(predicted, means, 1)[0])
    assert found["longer_wins"] == 1.0
    people = []
    for k in range(3):
        own, rest = [e[k] for e in said], [(sum(e) - e[k]) / 2 for e in said]
        people.append(float(pair_accuracy(torch.tensor(own), torch.tensor(rest))))
    assert found["human_accuracy"] == pytest.approx(np.mean(people))
    assert "disagreement" not in found


def test_pairs_leave_ties_out_and_count_equal_rewards_half(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "chosen": "long one", "rejected": "no"},
        {"prompt": "b", "chosen": "x", "rejected": "no", "tie": True},
        {"prompt": "c", "chosen": "x", "rejected": "longer"},
        {"prompt": "d", "chosen": "ab", "rejected": "cd"},
    ]
    table = [[[2.0, 0.0], [0.0, 9.0], [0.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 9.0], [0.0, 1.0], [1.0, 1.0]]]
    metric = RewardAccuracy()
    metric.measure(Told(table), pairs(tmp_path, rows), "val", batch_size=2)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found["pair_accuracy"] == pytest.approx((1 + 0 + 0.5) / 3)
    sure = [1 / (1 + math.exp(-d)) for d in (1.5, -1.0, 0.0)]
    assert found["cross_entropy"] == pytest.approx(-np.mean(np.log(sure)))
    assert found["longer_wins"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["disagreement"] == pytest.approx(np.std([2, 1], ddof=1) / 4)
    metric.reset()
    metric.measure(Told(table), pairs(tmp_path, rows), "val", batch_size=9)
    assert {name: float(value) for name, value in metric.compute().items()} == found


def test_words_that_decide_are_found_by_the_baseline(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(["good", "bad", "day", "tree", "of", "see"], 5)) for _ in range(120)]
    rated = [{"completion": t, "rating": 3 + 0.4 * (t.count("good") - t.count("bad"))} for t in texts]
    assert accuracy_of_texts(ratings(tmp_path, rated)) > 0.95
    judged = [{"prompt": str(i), "chosen": f"good {t}", "rejected": f"bad {t}"} for i, t in enumerate(texts)]
    assert accuracy_of_texts(pairs(tmp_path, judged)) == 1.0


def test_it_is_for_reward_models_and_judged_texts(tmp_path: Path) -> None:
    rows = [{"completion": "a", "rating": 3}]
    metric, other = RewardAccuracy(), torch.nn.Linear(1, 1)
    with pytest.raises(ConfigError, match=r"a Linear is not a reward model\. Leave it out"):
        metric.check(other, ratings(tmp_path, rows))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"nobody has judged the data\. Use data=preferences\."):
        metric.check(Told([[0.0]]), object())  # type: ignore[arg-type]
    metric.check(Told([[0.0]]), pairs(tmp_path, [{"prompt": "a", "chosen": "b", "rejected": "c"}]))


def test_the_id_names_the_data(tmp_path: Path) -> None:
    def of(rating: float) -> Any:
        metric = RewardAccuracy()
        metric.measure(Told([[0.5]]), ratings(tmp_path, [{"completion": "a", "rating": rating}]), "val", 4)
        return metric.settings()

    assert of(3) == of(3)
    assert of(3) != of(4)


def test_people_without_a_second_rating_have_no_ceiling() -> None:
    one = Rated(({"role": "user", "content": ""}, {"role": "assistant", "content": "x"}), "here", rating=3.0)
    assert [*reward_accuracy._against_the_others([one, one])] == []
