"""Record the numbers of finished runs for the docs: one small file, from which `scripts/docs_tables.py` makes tables.

    python scripts/record_runs.py runs/digits docs/measured/digits.json --about "ten configurations on digits"
    python scripts/record_runs.py outputs/diffusion-digits docs/measured/default.json --row default

A row of a table is a configuration, its runs differ in their seed alone. It is named after the folder that the run
folders lie in, which is the name of the sweep, or as ``--row`` says. Of each run are kept: overrides, seed, budget,
metrics with the ids of their protocols, costs, revision and hardware; what evaluations with other settings of the
model gave, such as another guidance, or with captions of other examples; with ``--curve NAME`` also what was logged of
a metric on the way. Nothing is built and nothing in a run is changed.
"""

import argparse
import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from genlab.errors import GenlabError
from genlab.report.runs import Run, read_runs


def record(runs: list[Run], about: str, row: str | None, curve: str | None = None) -> dict[str, Any]:
    """Raises SystemExit for a run that has not finished or repeats a seed."""
    baselines: dict[str, dict[str, float]] = {}
    kept: list[dict[str, Any]] = []
    for run in runs:
        if run.costs is None or not run.measurements:
            sys.exit(f"error: {run.folder} has not finished ({run.state()}), or was never evaluated.")
        entry = {"row": row or run.folder.resolve().parent.name, "seed": run.seed, **described(run)}
        if curve is not None:
            entry["curve"] = logged(run, curve)
        if any((entry["row"], entry["seed"]) == (other["row"], other["seed"]) for other in kept):
            sys.exit(f"error: {run.folder}: there is a run of row {entry['row']} and seed {entry['seed']} already. "
                     "Leave one out, or give each configuration a folder of its own.")  # fmt: skip
        kept.append(entry)
        for measurement in run.measurements.values():
            for name, values in measurement.baselines.items():
                baselines.setdefault(name, rounded(values))
    kept.sort(key=lambda entry: (entry["row"], entry["seed"]))
    hardware = dict.fromkeys(run.hardware for run in runs if run.hardware)
    return {"about": about, "hardware": ", ".join(hardware), "runs": kept, "baselines": baselines}


def described(run: Run) -> dict[str, Any]:
    """What one run was and gave."""
    metrics: dict[str, float] = {}
    for measurement in run.measurements.values():  # that at the end of training first; later ones add to it
        metrics = rounded(measurement.values) | metrics
    ids: dict[str, str] = {}
    others = []
    for path in [run.folder / "summary.json", *sorted(run.folder.glob("evaluation-*.json"))]:
        report = json.loads(path.read_text(encoding="utf-8"))
        shuffled = report["protocol"].get("captions") == "of the next example"
        if report.get("changed") or shuffled:
            changed = report.get("changed", {})
            others.append({"changed": changed, "shuffled": shuffled, "metrics": rounded(report["metrics"])})
        if not report.get("changed"):
            ids = report.get("ids", {}) | ids
    currency, value = run.budget
    versions = run.folder / "versions.json"
    return {
        "overrides": [anywhere(text) for text in yaml.safe_load((run.folder / "overrides.yaml").read_text("utf-8"))],
        "budget": {currency: value},
        "revision": json.loads(versions.read_text(encoding="utf-8")).get("revision") if versions.exists() else None,
        "protocol_id": next(iter(run.measurements)),
        "metrics": metrics,
        "ids": {name: ids[name] for name in metrics if name in ids},
        "costs": rounded(run.costs or {}),
        **({"others": others} if others else {}),
    }


def anywhere(override: str) -> str:
    """An absolute path, which no other machine has, by its end: ``model.tokenizer=.../digits-parts/codes``."""
    name, is_set, value = override.partition("=")
    path = Path(value)
    return f"{name}={'/'.join(('...', *path.parts[-2:]))}" if is_set and path.is_absolute() else override


def logged(run: Run, metric: str) -> list[tuple[int, float]]:
    """What metrics.csv has of a metric, of however many samples: (examples, value) each, in order."""
    with (run.folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else ()) if re.fullmatch(rf"val/{metric}(_\d+k?)?", name)]
    if not names:
        sys.exit(f"error: {run.folder}: its metrics.csv has no column val/{metric}.")
    found = [(row["progress/examples"], row[name]) for row in rows for name in names if row[name]]
    return [(int(float(examples)), float(f"{float(value):.6g}")) for examples, value in found]


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Six digits are more than any table shows."""
    return {name: int(value) if value == int(value) else float(f"{value:.6g}") for name, value in values.items()}


def text(content: dict[str, Any]) -> str:
    """JSON with a line for each run, so that a difference of two records can be read."""
    lines = [f"  {json.dumps(run, ensure_ascii=False)}" for run in content["runs"]]
    rest = {name: value for name, value in content.items() if name != "runs"}
    head = json.dumps(rest, indent=1, ensure_ascii=False).removesuffix("\n}")
    return head + ',\n "runs": [\n' + ",\n".join(lines) + "\n ]\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", help="run folders, or folders that hold some at any depth")
    parser.add_argument("out", type=Path, help="the record, a .json file")
    parser.add_argument("--about", default="", help="what was run, in a few words")
    parser.add_argument("--row", help="the name of the row, if all runs are of one configuration")
    parser.add_argument("--curve", metavar="NAME", help="also keep what was logged of this metric, e.g. scene_accuracy")
    arguments = parser.parse_args()
    if arguments.out.suffix != ".json":
        parser.error(f"the last argument is the record to write, a .json file, not {arguments.out}")
    try:
        found = read_runs(arguments.runs)
    except GenlabError as error:
        sys.exit(f"error: {error}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text(record(found, arguments.about, arguments.row, arguments.curve)), encoding="utf-8")
    print(f"wrote {arguments.out}: {len(found)} runs. Now: python scripts/docs_tables.py")


if __name__ == "__main__":
    main()
