"""The tables and figures of docs/transfer.md that come from runs.

python scripts/docs_transfer.py labels REPORT RUNS      # of scripts/transfer_labels.sh report: the record, two plots
python scripts/docs_transfer.py gan REPORT RUNS         # of scripts/transfer.sh report, with MODEL=model=gan
python scripts/docs_transfer.py diffusion REPORT RUNS   # the same, with MODEL=model=diffusion

REPORT: the folder that ``compare transfer=true`` wrote, whose transfer.csv is kept as it is; RUNS: that of the runs.
"""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docs_rows import MEASURED, REPOSITORY, row_of

IMAGES = REPOSITORY / "docs" / "images"
ABOUT = {
    "labels": "classifiers of five classes of CIFAR-10 pictures, by what they begin with and how many labels there are",
    "gan": "GANs of the digits 5 to 9, by what they begin with",
    "diffusion": "diffusion of the digits 5 to 9, by what it begins with",
}
PLOTS = {  # of the report: what they are called on the page
    "labels": {"transfer-accuracy_val": "transfer_labels", "transfer-amounts-accuracy_val": "transfer_amounts"},
    "gan": {"transfer-fid_digits64_500": "transfer_gan"},
    "diffusion": {"transfer-fid_digits64_500": "transfer_diffusion"},
}
TEXTS = {"task", "begins_with"}
RANDOM = "random weights"
NAMES = {
    RANDOM: RANDOM,
    "supervised": "a classifier of the other five classes",
    "ssl": "SimCLR of the other five classes",
    "shuffled": "the control",
    "digits": "the digits 0 to 4",
    "frozen": "the digits 0 to 4, `start.freeze=[discriminator.blocks.0.*]`",
}
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
    rows = ",\n".join(f"  {json.dumps(_rounded(line), ensure_ascii=False)}" for line in lines)
    head = json.dumps(content, indent=1, ensure_ascii=False).removesuffix("\n}")
    path = MEASURED / f"transfer_{what}.json"
    path.write_text(f'{head},\n "beginnings": [\n{rows}\n ],\n "runs": [],\n "baselines": {{}}\n}}\n', encoding="utf-8")
    for plot, name in PLOTS[what].items():
        shutil.copyfile(report / "plots" / f"{plot}.png", IMAGES / f"{name}.png")


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
    """FID in the end by what a run begins with, what it gains, and when it is where random weights end."""
    headings = ["FID ↓", "better by", "examples to the end of random weights", "FLOPs of all training to there"]
    lines = [row_of(["begins with", *headings]), "|---|" + "---:|" * len(headings)]
    rows = beginnings(what)
    (fid,) = [name for name in rows[0] if name.startswith("fid_")]
    spent = next(row["flops_to_random"] for row in rows if row["begins_with"] == RANDOM)
    for row in rows:
        is_random = row["begins_with"] == RANDOM
        there = row["examples_to_random"]
        flops = row["flops_to_random"]
        cells = [
            number(row[fid], row["half_width"], 2),
            number(row["gain"], row["gain_half_width"], 2, signed=True),
            f"{there:,.0f}" if there is not None else "never",
            "" if flops is None else f"{flops / spent:.2g} times",
        ]
        lines.append(row_of([NAMES[row["begins_with"]], *cells[:3], "1" if is_random else cells[3]]))
    return lines


TABLES: dict[str, Callable[[], list[str]]] = {
    "transfer labels": labels,
    "transfer gan": lambda: samples("gan"),
    "transfer diffusion": lambda: samples("diffusion"),
}


if __name__ == "__main__":
    record(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
