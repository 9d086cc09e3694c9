"""The headline and notes of a comparison."""

from collections.abc import Sequence

from genlab import started_as
from genlab.report.names import printable
from genlab.report.protocol import Chosen, described
from genlab.report.runs import Run
from genlab.report.trials import Sweep, known

MOST_NAMES = 6  # that a note lists


def headline(chosen: Chosen) -> str:
    """The protocol of the quality columns, in words."""
    if chosen.standard is None:
        return "no run has metrics"
    p = chosen.standard.protocol
    if "tokenizer" in p:
        told = f"the whole held-out text ({p.get('reference')}), in windows of {p.get('context')} tokens"
    else:
        told = (
            f"{p.get('num_samples')} samples against {p.get('num_reference')} images ({p.get('reference')}), "
            f"features {p.get('extractor')}, seed {p.get('seed')}"
        )
    marked = "; * measured by another protocol, see the notes" if chosen.unequal else ""
    return printable(f"{told}{marked}")


def notes(
    runs: Sequence[Run],
    labels: Sequence[str],
    groups: Sequence[tuple[int, ...]],
    chosen: Chosen,
    partial: Sequence[str],
    sweeps: Sequence[Sweep],
) -> list[str]:
    found = [f"* {labels[i]} was measured by another protocol: {described(d)}" for i, d in chosen.unequal.items()]
    if partial:
        found.append(f"measured of some runs only, so left out: {', '.join(map(printable, partial))}")
    unmeasured = [i for i in range(len(runs)) if i not in chosen.measured]
    for i in unmeasured:
        found.append(f"{labels[i]} has no metrics: {started_as.command('evaluate')} run={runs[i].folder}")
    for run, label in zip(runs, labels, strict=True):
        found += [
            f"{label}: {name} contradicts summary.json (other weights or sampling settings?), so it is left out"
            for name in run.stale
        ]
    hardware = {i: run.hardware or "unknown" for i, run in enumerate(runs)}
    found += _unlike("seconds, memory and speed were measured on different hardware", hardware, labels)
    of_trials = known(sweeps)
    for run, label in zip(runs, labels, strict=True):
        trial = of_trials.get(run.folder.resolve())
        if trial is not None and trial.state != "finished":
            found.append(
                f"{label} has a summary.json; the sweep has it as {trial.state}"
                + (f": {printable(trial.said)}" if trial.said else "")
            )
    if len(groups) > 1 and all(len(group) == 1 for group in groups):
        found.append(
            "one seed each: which differences are more than luck cannot be told; several can: "
            f"{started_as.command('train -m')} ... seed=0,1,2"
        )
    return found


def _unlike(what: str, values: dict[int, str], labels: Sequence[str]) -> list[str]:
    having: dict[str, list[str]] = {}
    for i, value in values.items():
        having.setdefault(value, []).append(labels[i])
    if len(having) < 2:
        return []
    return [f"{what}: " + "; ".join(f"{printable(value)} ({_some(names)})" for value, names in having.items())]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
