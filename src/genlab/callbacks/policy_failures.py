"""Failures of learning from rewards: nothing to learn, answers without an end, and a reward that is gamed."""

from collections import deque
from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import mean, stdev
from typing import Any

_IN_A_ROW = 5  # looks that have to agree
_WINDOW = 10  # looks that are averaged over
_ALL = 0.99
_MOST = 0.5


class PolicyFailures:
    """What becomes of the answers of a policy.

    * **Equal groups**: all answers to a prompt get the same reward, for every prompt, so that nothing is learnt.
    * **Cut answers**: most do not end within the limit of their length.
    * **Over-optimization**: a judge that was held back finds answers worse again while the reward goes on rising (Gao
      et al. 2022, arXiv:2210.10760): by more than twice the standard error of the difference.
    """

    def __init__(self) -> None:
        self.in_a_row = {"equal": 0, "cut": 0}
        self.recent: dict[str, list[float]] = {}  # of the last looks: the reward, and each judge by its name
        self.best: dict[str, list[float]] = {}  # of each judge: its best mean, the standard error, the reward then

    def look(self, logged: Mapping[str, Any], examples: int, judges: Sequence[str]) -> dict[str, str]:
        """What is wrong after a step, by the name of the failure: a sentence with what to do. ``judges``: the rewards
        that are not learnt from."""
        if "train/reward" not in logged:
            return {}
        found = {}
        if self._holds("equal", float(logged.get("train/equal_groups", 0.0)) >= _ALL):
            found["equal groups"] = (
                f"nothing is learnt: at the last {_IN_A_ROW} looks, up to {examples:,} examples, all answers to a "
                "prompt had the same reward. Use model.answers=16 or more, prompts that are answered rightly now and "
                "then, or a reward that tells answers apart."
            )
        if self._holds("cut", float(logged.get("train/cut", 0.0)) > _MOST):
            found["cut answers"] = (
                f"most answers are cut: after {examples:,} examples {float(logged['train/cut']):.0%} do not end within "
                "model.sample_length tokens. Use a larger one, or add a reward for an end: "
                "model/rewards=[checker,ended]."
            )
        self._add("reward", float(logged["train/reward"]))
        for judge in judges:
            if f"train/reward_{judge}" in logged:
                self._add(judge, float(logged[f"train/reward_{judge}"]))
                if self._is_gamed(judge):
                    found[f"gamed {judge}"] = (
                        f"the reward is gamed: after {examples:,} examples {judge}, which is not learnt from, is "
                        f"{mean(self.recent[judge]):.3g} and was {self.best[judge][0]:.3g}, while the reward has "
                        "risen. Use a larger model.objective.beta, or a smaller budget.value."
                    )
        return found

    def _holds(self, name: str, now: bool) -> bool:
        self.in_a_row[name] = self.in_a_row[name] + 1 if now else 0
        return self.in_a_row[name] >= _IN_A_ROW

    def _add(self, name: str, value: float) -> None:
        self.recent[name] = [*deque([*self.recent.get(name, ()), value], maxlen=_WINDOW)]

    def _is_gamed(self, judge: str) -> bool:
        own, reward = self.recent[judge], self.recent["reward"]
        if len(own) < _WINDOW:
            return False
        now, error = mean(own), stdev(own) / sqrt(_WINDOW)
        if judge not in self.best or now >= self.best[judge][0]:
            self.best[judge] = [now, error, mean(reward)]
        best, best_error, reward_then = self.best[judge]
        return best - now > 2 * sqrt(error**2 + best_error**2) and mean(reward) > reward_then

    def state_dict(self) -> dict[str, Any]:
        return {
            "in_a_row": dict(self.in_a_row),
            "recent": {name: [*values] for name, values in self.recent.items()},
            "best": {name: [*values] for name, values in self.best.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.in_a_row = dict(state["in_a_row"])
        self.recent = {name: [*values] for name, values in state["recent"].items()}
        self.best = {name: [*values] for name, values in state["best"].items()}
