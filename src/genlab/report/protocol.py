"""Chooses the evaluation protocol by which runs are comparable."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genlab import started_as
from genlab.errors import ConfigError
from genlab.report.measurement import Measurement, differences
from genlab.report.runs import Run

REMEDIES = {"num_samples": "n={}", "seed": "seed={}", "reference": "evaluation.reference={}"}
BY_CODE = (".dequantization",)  # no options: measuring again is enough
OF_THE_DATA = ("reference_sha256", "num_reference", "shape", "reference_labels", "training_sha256", "heldout_sha256",
               "images_sha256", "labels_sha256", "names_sha256")  # fmt: skip
# Draws that a family's likelihood is estimated from, as its model and its protocol call them; others have no draws.
OF_SOME_FAMILIES = ("num_importance_samples", "num_likelihood_samples")
CLASS_MIX = "class_mix"  # of the classes that samples are asked for; without one they came in turn
UNEQUAL = "or see them side by side, marked, with allow_unequal=true"


@dataclass(frozen=True)
class Chosen:
    """One measurement of each run that has any; ``standard`` is the protocol that the others are compared with."""

    measured: dict[int, Measurement]  # by the run's place in the list
    protocol_ids: dict[int, str]
    standard: Measurement | None
    unequal: dict[int, dict[str, tuple[Any, Any]]]  # by another protocol: setting -> (theirs, the standard's)


def check_data(runs: Sequence[Run], names: Sequence[str], allow_unequal: bool) -> None:
    """Raises ConfigError for runs over different data sets."""
    first: dict[str, str] = {}
    for run, name in zip(runs, names, strict=True):
        first.setdefault(run.data, name)
    if len(first) > 1 and not allow_unequal:
        sets = ", ".join(f"{data} ({name})" for data, name in first.items())
        raise ConfigError(f"the runs have different data sets: {sets}. Compare those of one, {UNEQUAL}.")


def choose(runs: Sequence[Run], names: Sequence[str], protocol: str | None, allow_unequal: bool) -> Chosen:
    """The protocol that all runs share, and their numbers. Raises ConfigError if there is none.

    Of several, the one used at the end of most trainings, then the one with most samples; ``protocol`` names another.
    """
    known = dict.fromkeys(key for run in runs for key in run.measurements)
    if protocol is not None and protocol not in known:
        raise ConfigError(f"protocol={protocol}: no run has numbers of it. There are: {', '.join(known) or 'none'}.")
    having = [i for i, run in enumerate(runs) if run.measurements]
    if not having:
        return Chosen({}, {}, None, {})
    shared = [key for key in known if all(key in runs[i].measurements for i in having)]
    ended = Counter(next(iter(runs[i].measurements)) for i in having)

    def rank(key: str) -> tuple[int, int]:
        samples = next(r.measurements[key] for r in runs if key in r.measurements).protocol.get("num_samples")
        return ended[key], samples if isinstance(samples, int) else 0

    best = protocol or max(shared or known, key=rank)
    ids = {i: best if best in runs[i].measurements else next(iter(runs[i].measurements)) for i in having}
    measured = {i: runs[i].measurements[key] for i, key in ids.items()}
    first = next(i for i in having if ids[i] == best)
    standard = measured[first]
    unequal = {i: found for i in having if (found := _unequal(runs, measured, i, first))}
    if unequal and not allow_unequal:
        _refuse(runs, names, unequal, first)
    return Chosen(measured, ids, standard, unequal)


def _unequal(
    runs: Sequence[Run], measured: Mapping[int, Measurement], i: int, standard: int
) -> dict[str, tuple[Any, Any]]:
    """The settings in which run ``i`` was measured otherwise than the ``standard``, but for those that the model of one
    of the two does not have: bounds of two families are of two estimators anyway."""
    return {
        key: values
        for key, values in differences(measured[i].protocol, measured[standard].protocol).items()
        if _last(key) not in OF_SOME_FAMILIES
        or all(
            value is not None or _last(key) in runs[k].config["model"]
            for k, value in zip((i, standard), values, strict=True)
        )
    }


def described(found: Mapping[str, tuple[Any, Any]]) -> str:
    """``num_samples 500, not 1000``"""
    return ", ".join(f"{key} {theirs}, not {standard}" for key, (theirs, standard) in found.items())


def _refuse(
    runs: Sequence[Run],
    names: Sequence[str],
    unequal: Mapping[int, Mapping[str, tuple[Any, Any]]],
    standard: int,  # the place of a run that was measured by the standard's protocol
) -> None:
    i, found = next(iter(unequal.items()))
    others = f" ({len(unequal) - 1} more differ too)" if len(unequal) > 1 else ""
    unsaid = {_last(key) for key, values in found.items() if None in values} - {CLASS_MIX}
    if any(_last(key) in OF_THE_DATA and _last(key) not in unsaid for key in found):
        remedy = "The data are not the same: compare runs of one data set"
    elif "weights" in found:
        remedy = "Averaged and raw weights are not comparable: train both with callbacks.ema, or without"
    elif any(wanted is None and _last(key) in unsaid for key, (_, wanted) in found.items()):
        remedy = f"{names[standard]} does not say, it is older. Measure it again: {started_as.command('evaluate')} run="
        remedy += str(runs[standard].folder)
    else:
        remedy = f"Measure it again: {started_as.command('evaluate')} run={runs[i].folder} {_command(found)}"
    raise ConfigError(f"{names[i]} was measured by another protocol: {described(found)}{others}. {remedy}, {UNEQUAL}.")


def _command(found: Mapping[str, tuple[Any, Any]]) -> str:
    """The options to measure a run like the others."""
    words = []
    for key, (_, wanted) in found.items():
        if _last(key) == CLASS_MIX:
            balanced = "false" if str(wanted).startswith("of the reference") else "true"
            words.append(f"task.balanced_classes={balanced}")
        elif _last(key) in OF_THE_DATA:
            continue  # written down since: to measure again is enough
        elif key in REMEDIES:
            words.append(REMEDIES[key].format(wanted))
        elif key == "extractor":
            words.append("metrics/extractor=<that of the others>")
        elif key.startswith("metrics.") and not key.endswith(BY_CODE):
            words.append(f"{key}={wanted}")
    return " ".join(words)


def _last(key: str) -> str:
    return key.rpartition(".")[2]
