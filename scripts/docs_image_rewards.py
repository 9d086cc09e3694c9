"""The table, figure and pictures of docs/image_rewards.md, from the runs of scripts/image_rewards.sh.

python scripts/docs_image_rewards.py record ROOT   # docs/measured/image_rewards.json, then the figures below
python scripts/docs_image_rewards.py draw ROOT     # docs/images/image_rewards.png and image_rewards_digits.png
"""

import csv
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from docs_rows import MEASURED, REPOSITORY, row_of
from genlab.report.significance import half_width

RECORD = MEASURED / "image_rewards.json"
IMAGES = REPOSITORY / "docs" / "images"
METRICS = ("fid", "precision", "recall", "label_accuracy")  # of evaluations, whose names end with their numbers
REWARDS = {
    "jpeg": ("jpeg_size",),
    "label-base": ("label", "second_label"),
    "label-early": ("label", "second_label"),
}
NAMES = {
    "jpeg_size": "kilobytes of JPEG",
    "label": "classifier: nats of the label",
    "second_label": "held-back classifier",
    "kl": "KL",
    "fid": "FID",
    "precision": "precision",
    "recall": "recall",
    "label_accuracy": "label accuracy",
}
ROWS = {"jpeg": "small files", "label-base": "the label", "label-early": "the label, begun early"}

DIGITS = {"jpeg_size": 3, "label": 3, "second_label": 3, "fid": 1}  # behind the point; else 2
SHOWN = (64, 512, 768, 1536)  # samples seen


# --- the record -------------------------------------------------------------------------------------------------------


def record(root: Path) -> None:
    """What every run said on the way."""
    runs = [
        {"row": row, "seed": int(run.name), "points": _points(run, row)}
        for row in REWARDS
        for run in sorted((root / row).iterdir())
    ]
    versions = json.loads((root / "jpeg" / "0" / "versions.json").read_text(encoding="utf-8"))
    content = {
        "about": "digits: a diffusion model that learns from rewards of its samples, three seeds",
        "hardware": "{cpu}, {cores} cores".format(**versions["hardware"]),
        "revision": versions["revision"],
        "runs": runs,
    }
    text = json.dumps({**content, "runs": []}, indent=1).removesuffix("[]\n}")
    lines = ",\n".join(f"  {json.dumps(run)}" for run in runs)
    RECORD.write_text(f"{text}[\n{lines}\n ]\n}}\n", encoding="utf-8")


def _points(run: Path, row: str) -> list[dict[str, float]]:
    """The evaluations of a run: examples seen, rewards of held-out conditions, metrics, and the divergence that was
    logged last before."""
    found, divergence = [], 0.0
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            divergence = float(line["train/kl"] or divergence)
            if line["val/loss"]:
                values = {name.removeprefix("val/"): float(value) for name, value in line.items() if value}
                point = {"examples": int(values["progress/examples"]), "kl": divergence, **_named(values)}
                found.append(point | {name: values[f"reward_{name}"] for name in REWARDS[row]})
    return [{name: float(f"{value:.6g}") for name, value in point.items()} for point in found]


def _named(values: dict[str, float]) -> dict[str, float]:
    """The metrics without what follows their names."""
    found = {name: value for metric in METRICS for name, value in values.items() if name.startswith(metric)}
    return {metric: found[name] for name in found for metric in METRICS if name.startswith(f"{metric}_")}


# --- the table --------------------------------------------------------------------------------------------------------


def image_rewards() -> list[str]:
    """Some points of the curves, as means over seeds."""
    content = json.loads(RECORD.read_text(encoding="utf-8"))
    columns = ("jpeg_size", "label", "second_label", "kl", *METRICS)
    lines = [row_of(["rewarded", "samples seen", *(NAMES[name] for name in columns)])]
    lines.append("|---|" + "---:|" * (1 + len(columns)))
    for row, name in ROWS.items():
        runs = [run["points"] for run in content["runs"] if run["row"] == row]
        for points in [point for point in zip(*runs, strict=True) if point[0]["examples"] in SHOWN]:
            cells = [_mean([p[column] for p in points], column) if column in points[0] else "" for column in columns]
            lines.append(row_of([name, f"{points[0]['examples']:,.0f}", *cells]))
    return lines


def _mean(values: Sequence[float], column: str) -> str:
    digits = DIGITS.get(column, 2)
    return f"{statistics.fmean(values):.{digits}f} ±{half_width(values):.{digits}f}"


TABLES: dict[str, Callable[[], list[str]]] = {"image rewards": image_rewards}


# --- the figures ------------------------------------------------------------------------------------------------------


def draw_curves() -> None:
    """Rewards, FID and recall over what has been seen, of every seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    content = json.loads(RECORD.read_text(encoding="utf-8"))
    panes_of = {row: (*REWARDS[row], "fid", "recall") for row in ROWS}
    width = max(len(panes) for panes in panes_of.values())
    figure, axes = plt.subplots(len(ROWS), width, figsize=(3 * width, 2.3 * len(ROWS)), layout="constrained")
    for line, (row, panes) in zip(axes, panes_of.items(), strict=True):
        for pane in line[len(panes) :]:
            pane.axis("off")
        for pane, name in zip(line, panes, strict=False):
            for run in content["runs"]:
                if run["row"] == row:
                    points = run["points"]
                    pane.plot([p["examples"] for p in points], [p[name] for p in points], ".-", markersize=4, lw=1)
            pane.set_title(f"{ROWS[row]}: {NAMES[name]}", fontsize=9)
            pane.set_xlabel("samples seen", fontsize=8)
            pane.tick_params(labelsize=8)
    figure.savefig(IMAGES / "image_rewards.png", dpi=100)


def draw_digits(root: Path) -> None:
    """Samples of the ten classes: of the model that is begun with, and after each reward."""
    from PIL import Image

    grids = [_grid(root / name, Image) for name in ("base", "jpeg/1", "label-base/1")]
    gap = 6
    whole = Image.new("L", (grids[0].width, sum(grid.height + gap for grid in grids) - gap), 255)
    top = 0
    for grid in grids:
        whole.paste(grid, (0, top))
        top += grid.height + gap
    whole.save(IMAGES / "image_rewards_digits.png", optimize=True)


def _grid(run: Path, image: Any) -> Any:
    """The first three of eight rows of the last grid of a run."""
    picture = image.open(sorted((run / "samples").glob("*.png"))[-1]).convert("L")
    return picture.crop((0, 0, picture.width, picture.height * 3 // 8))


if __name__ == "__main__":
    if sys.argv[1] == "record":
        record(Path(sys.argv[2]))
    draw_curves()
    draw_digits(Path(sys.argv[2]))
