"""A sweep of Optuna's that is started again with a longer list of values."""

from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler

from genlab.sweep.ledger import Ledger
from genlab.sweep.metric import Metric
from genlab.sweep.other_values import stored_names
from genlab.sweep.search import Search
from genlab.sweep.space import Axis, Space


def run_all(folder: Path, values: tuple[str, ...]) -> list[list[str]]:
    """Begin and end all that is missing; what was begun."""
    ledger = Ledger(folder, None, Metric("fid", "lower"), NopPruner())
    search, space, begun = Search(RandomSampler(seed=0), 20), Space(("seed=0", Axis("model", values))), []
    while (trial := search.next(space, ledger)) is not None:
        trial.state, trial.value = "finished", float(len(begun))
        ledger.end(trial, 1.0)
        begun.append(trial.overrides)
    return begun


def test_a_longer_list_adds_trials(tmp_path: Path) -> None:
    assert sorted(run_all(tmp_path, ("gan", "vae"))) == [["seed=0", "model=gan"], ["seed=0", "model=vae"]]
    assert sorted(run_all(tmp_path, ("gan", "vae", "flow", "diffusion"))) == [
        ["seed=0", "model=diffusion"],
        ["seed=0", "model=flow"],
    ]
    assert run_all(tmp_path, ("gan", "vae", "flow", "diffusion")) == []
    assert run_all(tmp_path, ("gan", "vae", "flow", "diffusion", "masked")) == [["seed=0", "model=masked"]]
    assert len(Ledger(tmp_path, None, Metric("fid", "lower"), NopPruner()).trials()) == 5


def test_what_earlier_trials_were_worth_is_known_under_the_new_name() -> None:
    study = optuna.create_study()
    first = {"model": CategoricalDistribution(("gan", "vae")), "lr": FloatDistribution(0, 1)}
    assert stored_names(study, first) == {"model": "model", "lr": "lr"}
    for model, value in (("gan", 3.0), ("vae", 2.0)):
        params = {"model": model, "lr": 0.25}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=first, value=value))  # type: ignore[arg-type]
    longer = {"model": CategoricalDistribution(("vae", "flow")), "lr": FloatDistribution(0, 0.5)}
    assert stored_names(study, longer) == {"model": "model #2", "lr": "lr"}
    told = [(t.params, t.value) for t in study.trials[2:]]
    assert told == [({"model #2": "vae"}, 2.0)]  # gan is not to be drawn any more
    assert stored_names(study, longer) == {"model": "model #2", "lr": "lr"}
    assert len(study.trials) == 3  # once
    assert stored_names(study, first) == {"model": "model", "lr": "lr"}
    whole = {"lr": IntDistribution(0, 4)}
    assert stored_names(study, whole) == {"lr": "lr #2"}
