"""The tables and figures of docs/transfer.md that come from runs.

python scripts/docs_transfer.py labels REPORT RUNS      # of scripts/transfer_labels.sh report: the record, two plots
python scripts/docs_transfer.py gan REPORT RUNS         # of scripts/transfer.sh report, with MODEL=model=gan
python scripts/docs_transfer.py diffusion REPORT RUNS   # the same, with MODEL=model=diffusion

REPORT: the folder that ``compare transfer=true`` wrote, whose transfer.csv is kept as it is; RUNS: that of the runs, in
which there is a folder for each beginning, and in it one for each seed: their FIDs on the way are kept.
"""

import csv
import json
import shutil
import statistics
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from docs_rows import MEASURED, REPOSITORY, row_of
from genlab.report.significance import half_width

IMAGES = REPOSITORY / "docs" / "images"
ABOUT = {
    "labels": "classifiers of five classes of CIFAR-10 pictures, by what they begin with and how many labels there are",
    "gan": "GANs of the digits 5 to 9, by what they begin with",
    "diffusion": "diffusion of the digits 5 to 9, by what it begins with",
}
PLOTS = {  # of the report: what they are called on the page
    "labels": {"transfer-accuracy_val": "transfer_labels", "transfer-amounts-accuracy_val": "transfer_amounts"},
    "gan": {"transfer-fid": "transfer_gan"},
    "diffusion": {"transfer-fid": "transfer_diffusion"},
}
TEXTS = {"task", "begins_with"}
RANDOM = "random weights"
NAMES = {  # of beginnings, in the order of tables of samples
    RANDOM: RANDOM,
    "scratch": RANDOM,
    "supervised": "a classifier of the other five classes",
    "ssl": "SimCLR of the other five classes",
    "digits": "the digits 0 to 4",
    "frozen": "the digits 0 to 4, `start.freeze=[discriminator.blocks.0.*]`",
    "shuffled": "the control",
}
SHOWN = {"gan": (0, 2, -1), "diffusion": (0, 2, -1)}  # measurements on the way that the table has
GOOD = {"gan": 3.0, "diffusion": 7.0}  # the FID whose examples it has
AMOUNTS = {"250": "1 %", "2500": "10 %", "25000": "all"}  # training examples of five classes: the share of labels


# --- the record -------------------------------------------------------------------------------------------------------


def record(what: str, report: Path, runs: Path) -> None:
    with (report / "transfer.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    versions = json.loads(next(iter(sorted(runs.rglob("versions.json")))).read_text(encoding="utf-8"))
    content = {
        "about": ABOUT[what],
        "hardware": "{cpu}, {cores} cores".format(**versions["hardware"]),
        "revision": versions["revision"],
    }
    found = {} if what == "labels" else {row.name: curves(row) for row in sorted(runs.iterdir())}
    drawn = ",\n".join(f"  {json.dumps(name)}: {json.dumps(line)}" for name, line in found.items())
    rows = ",\n".join(f"  {json.dumps(_rounded(line), ensure_ascii=False)}" for line in lines)
    head = json.dumps(content, indent=1, ensure_ascii=False).removesuffix("\n}")
    path = MEASURED / f"transfer_{what}.json"
    lists = f' "beginnings": [\n{rows}\n ],\n "curves": {{\n{drawn}\n }}'
    path.write_text(f'{head},\n{lists},\n "runs": [],\n "baselines": {{}}\n}}\n', encoding="utf-8")
    for plot, name in PLOTS[what].items():
        shutil.copyfile(report / "plots" / f"{plot}.png", IMAGES / f"{name}.png")


def curves(row: Path) -> dict[str, list[float]]:
    """FIDs of the runs of one beginning, by seed, after each number of examples."""
    found: dict[str, list[float]] = {}
    for path in sorted(row.glob("*/metrics.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                fid = next((value for name, value in line.items() if name.startswith("val/fid_") and value), None)
                if fid is not None:
                    seen = str(int(float(line["progress/examples"])))
                    found.setdefault(seen, []).append(float(f"{float(fid):.6g}"))
    return found


def _rounded(line: dict[str, str]) -> dict[str, Any]:
    """Numbers with the digits of a record; what was not measured is null."""
    return {
        name: text if name in TEXTS else float(f"{float(text):.6g}") if text else None for name, text in line.items()
    }


# --- the tables -------------------------------------------------------------------------------------------------------


def beginnings(what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MEASURED / f"transfer_{what}.json").read_text(encoding="utf-8"))[
        "beginnings"
    ]
    return found


def number(value: float | None, half: float | None, places: int, signed: bool = False) -> str:
    if value is None:
        return ""
    text = f"{value:+.{places}f}" if signed else f"{value:.{places}f}"
    return text.replace("-", "−") + (f" ±{half:.{places}f}" if half is not None else "")


def labels() -> list[str]:
    """Accuracy in percent by what a run begins with, with each share of the labels; and what it gains."""
    rows = beginnings("labels")
    shares = {f"{row['num_train']:.0f}": None for row in rows}
    lines = [row_of(["begins with", *(f"{AMOUNTS[amount]} of the labels" for amount in shares)])]
    lines.append("|---|" + "---:|" * len(shares))
    for name in dict.fromkeys(row["begins_with"] for row in rows):
        cells = []
        for amount in shares:
            row = next(r for r in rows if r["begins_with"] == name and f"{r['num_train']:.0f}" == amount)
            gain = number(_percent(row["gain"]), _percent(row["gain_half_width"]), 1, signed=True)
            cells.append(
                number(100 * row["accuracy_val"], _percent(row["half_width"]), 1) + (f" ({gain})" if gain else "")
            )
        lines.append(row_of([NAMES[name], *cells]))
    return lines


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def samples(what: str) -> list[str]:
    """FID on the way and in the end by what a run begins with, and after how many examples the mean is a good one."""
    found = json.loads((MEASURED / f"transfer_{what}.json").read_text(encoding="utf-8"))["curves"]
    names = [name for name in NAMES if name in found]
    times = [sorted(map(int, found[names[0]]))[i] for i in SHOWN[what]]
    headings = [*(f"FID after {time:,} examples" for time in times), f"examples to a FID of {GOOD[what]:g}"]
    lines = [row_of(["begins with", *headings]), "|---|" + "---:|" * len(headings)]
    for name in names:
        drawn = [found[name][str(time)] for time in times]
        cells = [number(statistics.fmean(values), half_width(values), 2) for values in drawn]
        there = reached({int(time): statistics.fmean(values) for time, values in found[name].items()}, GOOD[what])
        lines.append(row_of([NAMES[name], *cells, "more" if there is None else f"{there:,.0f}"]))
    return lines


def reached(line: dict[int, float], good: float) -> float | None:
    """Where a line through (examples, FID) first comes down to ``good``; None: it does not."""
    points = sorted(line.items())
    if points[0][1] <= good:
        return points[0][0]
    for (here, high), (there, low) in pairwise(points):
        if low <= good:
            return here + (there - here) * (high - good) / (high - low)
    return None


TABLES: dict[str, Callable[[], list[str]]] = {
    "transfer labels": labels,
    "transfer gan": lambda: samples("gan"),
    "transfer diffusion": lambda: samples("diffusion"),
}


if __name__ == "__main__":
    record(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
