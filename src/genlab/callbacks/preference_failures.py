"""Failures of learning from preferences: chosen answers that become unlikely, and a policy that leaves its start."""

from collections.abc import Mapping
from statistics import mean
from typing import Any

FIRST_STEPS = 10  # whose numbers are those of the start
_IN_A_ROW = 3  # looks that have to agree, since a batch is small
# What is logged of a step below train/: log-probabilities of a token of the chosen answers, and of whole answers.
_TOKEN, _CHOSEN, _REJECTED, _DIVERGENCE = "chosen_per_token", "chosen", "rejected", "kl"


class PreferenceFailures:
    """What training does to the probabilities of the answers that it learns from.

    * **Displacement**: chosen answers become much less likely than at the start, and this is more than what they gain
      on the rejected ones (Razin et al. 2024, arXiv:2410.08847): the probability goes to answers that nobody judged.
      A loss without a lower bound, as robust DPO's, rewards it to the end.
    * **Divergence**: the policy is far from its reference in the prediction of a token.
    """

    def __init__(self, chosen_fall: float, divergence: float):  # nats a token
        self.chosen_fall, self.divergence = chosen_fall, divergence
        self.first: dict[str, list[float]] = {}  # of the first steps
        self.at = 0  # examples after the last of these
        self.displaced, self.diverged = 0, 0  # looks in a row

    @property
    def knows_start(self) -> bool:
        return len(self.first.get(_TOKEN, ())) >= FIRST_STEPS

    def add_first(self, logged: Mapping[str, Any], examples: int) -> None:
        """The numbers of one of the first steps, once; nothing where they are of no answers."""
        if f"train/{_TOKEN}" in logged and examples > self.at:
            self.at = examples
            for name in (_TOKEN, _CHOSEN, _REJECTED):
                self.first.setdefault(name, []).append(float(logged[f"train/{name}"]))

    def look(self, logged: Mapping[str, Any], examples: int) -> dict[str, str]:
        """What is wrong after a later step, by the name of the failure: a sentence with what to do."""
        if f"train/{_TOKEN}" not in logged or not self.knows_start:
            return {}
        fall, of_chosen, of_rejected = (
            mean(self.first[name]) - float(logged[f"train/{name}"]) for name in (_TOKEN, _CHOSEN, _REJECTED)
        )
        is_displaced = fall > self.chosen_fall and of_chosen > of_rejected - of_chosen
        self.displaced = self.displaced + 1 if is_displaced else 0
        divergence = float(logged.get(f"train/{_DIVERGENCE}", 0.0))
        self.diverged = self.diverged + 1 if divergence > self.divergence else 0
        remedy = (
            "Use a larger model.objective.beta (of ipo: model.objective.tau), a lower model.optimizer.lr, or a smaller "
            "budget.value."
            if f"train/{_DIVERGENCE}" in logged
            else "Use model/objective=dpo, which holds it near its start, a lower model.optimizer.lr, or a smaller "
            "budget.value."
        )
        found = {}
        if self.displaced >= _IN_A_ROW:
            found["displacement"] = (
                f"chosen answers become unlikely: after {examples:,} examples a token of theirs has lost {fall:.1f} "
                f"nats since the start, and the rejected answers hardly more, so answers that nobody judged gain. "
                f"{remedy}"
            )
        if self.diverged >= _IN_A_ROW:
            found["divergence"] = (
                f"the model is far from its start: after {examples:,} examples its predictions of a token diverge by "
                f"{divergence:.1f} nats. {remedy}"
            )
        return found

    def state_dict(self) -> dict[str, Any]:
        first = {name: [*values] for name, values in self.first.items()}
        return {"first": first, "at": self.at, "displaced": self.displaced, "diverged": self.diverged}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.first = {name: [*values] for name, values in state["first"].items()}
        self.at, self.displaced, self.diverged = state["at"], state["displaced"], state["diverged"]
