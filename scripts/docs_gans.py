"""The tables and figures of docs/stylegan2.md and docs/progan.md that come from runs.

python scripts/docs_gans.py few_images ROOT   # of scripts/few_images.sh: docs/measured/few_images.json, and pictures
python scripts/docs_gans.py growing ROOT      # of scripts/growing.sh: docs/measured/growing.json, and pictures
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

IMAGES = REPOSITORY / "docs" / "images"
ABOUT = {
    "few_images": "StyleGAN2 on 500 CIFAR-10 pictures, without and with adaptive augmentation",
    "growing": "CIFAR-10 pictures: a progressive GAN, and StyleGAN2 with as many FLOPs",
}
ROWS = {
    "few_images": {"none": "without", "ada": "`model/augment=ada`"},
    "growing": {"progan": "progressive GAN", "stylegan2": "StyleGAN2"},
}
SHARE = 3 / 8  # of a grid's rows that is shown
EVERY = 5  # logged steps between two points of the curves of steps


# --- the records ------------------------------------------------------------------------------------------------------


def record(what: str, root: Path) -> None:
    """What every run said on the way, and at its end."""
    runs = [_run(row, run) for row in ROWS[what] for run in sorted((root / row).iterdir())]
    versions = json.loads((root / next(iter(ROWS[what])) / "0" / "versions.json").read_text(encoding="utf-8"))
    content = {
        "about": ABOUT[what],
        "hardware": "{cpu}, {cores} cores".format(**versions["hardware"]),
        "revision": versions["revision"],
    }
    text = json.dumps({**content, "runs": []}, indent=1).removesuffix("[]\n}")
    lines = ",\n".join(f"  {json.dumps(run)}" for run in runs)
    (MEASURED / f"{what}.json").write_text(f"{text}[\n{lines}\n ]\n}}\n", encoding="utf-8")


def _run(row: str, run: Path) -> dict[str, Any]:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    points, steps = [], []
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for number, line in enumerate(csv.DictReader(file)):
            seen = int(float(line["progress/examples"] or 0))
            if fid := next((value for name, value in line.items() if name.startswith("val/fid_") and value), None):
                flops = float(line["progress/flops"])
                points.append({"examples": seen, "flops": float(f"{flops:.6g}"), "fid": float(f"{float(fid):.6g}")})
            elif number % EVERY == 0 and line.get("train/accuracy_real"):
                sign = float(line.get("train/r_t") or 2 * float(line["monitor/accuracy_real"]) - 1)
                steps.append([seen, round(sign, 4), round(float(line.get("train/augment_p") or 0), 4)])
    metrics = {name: float(f"{value:.6g}") for name, value in summary["metrics"].items()}
    errors = {name: float(f"{value:.6g}") for name, value in summary["errors"].items()}
    costs = {name: summary[name] for name in ("parameters", "examples", "flops")}
    return {
        "row": row,
        "seed": int(run.name),
        "metrics": metrics,
        "errors": errors,
        "costs": costs,
        "points": points,
        "steps": steps,
    }


def _runs(what: str, row: str) -> list[dict[str, Any]]:
    content = json.loads((MEASURED / f"{what}.json").read_text(encoding="utf-8"))
    return [run for run in content["runs"] if run["row"] == row]


# --- the tables -------------------------------------------------------------------------------------------------------


def few_images() -> list[str]:
    """FID at the end, with the standard error of a bootstrap; r_t and p in the second half."""
    names = ["", "FID at the end", "lowest on the way", "r_t, second half", "p at the end", "parameters", "examples"]
    lines = [row_of(names), "|---|---:|---:|---:|---:|---:|---:|"]
    for row, name in ROWS["few_images"].items():
        for run in _runs("few_images", row):
            fid, error = _fid(run)
            later = [sign for seen, sign, _ in run["steps"] if 2 * seen > run["costs"]["examples"]]
            cells = [
                f"{fid:.2f} ±{1.96 * error:.2f}",
                f"{min(point['fid'] for point in run['points']):.2f}",
                f"{statistics.fmean(later):.2f}",
                f"{run['steps'][-1][2]:.2f}" if row == "ada" else "–",
            ]
            lines.append(row_of([name, *cells, *_costs(run)]))
    return lines


def growing() -> list[str]:
    """At the end of the budget, means over the seeds that there are."""
    names = ["", "FID", "precision", "recall", "parameters", "examples", "TFLOP"]
    lines = [row_of(names), "|---|---:|---:|---:|---:|---:|---:|"]
    for row, name in ROWS["growing"].items():
        runs = _runs("growing", row)
        values = [[_metric(run, metric) for run in runs] for metric in ("fid", "precision", "recall")]
        cells = [_mean(found) for found in values]
        examples = statistics.fmean(run["costs"]["examples"] for run in runs)
        parameters = f"{runs[0]['costs']['parameters'] / 1e6:.2f} M"
        operations = f"{statistics.fmean(run['costs']['flops'] for run in runs) / 1e12:.1f}"
        lines.append(row_of([name, *cells, parameters, f"{examples:,.0f}", operations]))
    return lines


def _mean(values: Sequence[float]) -> str:
    """And half the 95 % interval over seeds, of more than one."""
    return f"{statistics.fmean(values):.2f}" + (f" ±{half_width(values):.2f}" if len(values) > 1 else "")


def _metric(run: dict[str, Any], metric: str) -> float:
    return float(next(value for name, value in run["metrics"].items() if name.startswith(f"{metric}_")))


def _fid(run: dict[str, Any]) -> tuple[float, float]:
    name = next(name for name in run["metrics"] if name.startswith("fid_"))
    return run["metrics"][name], run["errors"][name]


def _costs(run: dict[str, Any]) -> Sequence[str]:
    return f"{run['costs']['parameters'] / 1e6:.2f} M", f"{run['costs']['examples']:,.0f}"


TABLES: dict[str, Callable[[], list[str]]] = {"few images": few_images, "growing": growing}


# --- the figures ------------------------------------------------------------------------------------------------------


def draw(what: str) -> None:
    """FID on the way; of few images also what the discriminator knows of them, and p."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panes = ["FID", "r_t", "p"] if what == "few_images" else ["FID", "FID "]
    figure, axes = plt.subplots(1, len(panes), figsize=(3.4 * len(panes), 2.6), layout="constrained")
    for color, (row, name) in zip(("tab:orange", "tab:blue"), ROWS[what].items(), strict=True):
        for number, run in enumerate(_runs(what, row)):
            style = {"color": color, "label": name.strip("`") if not number else None, "lw": 1.2}
            points, fids = run["points"], [point["fid"] for point in run["points"]]
            axes[0].plot([point["examples"] / 1000 for point in points], fids, ".-", **style)
            if what == "growing":
                axes[1].plot([point["flops"] / 1e12 for point in points], fids, ".-", **style)
            else:
                seen = [step[0] / 1000 for step in run["steps"]]
                for pane, index in ((axes[1], 1), (axes[2], 2)):
                    pane.plot(seen, [step[index] for step in run["steps"]], **style)
    for pane, title in zip(axes, panes, strict=True):
        pane.set_title(title, fontsize=9)
        pane.set_xlabel("TFLOP" if title == "FID " else "thousand examples", fontsize=8)
        pane.tick_params(labelsize=8)
    if what == "few_images":
        axes[1].axhline(0.6, color="gray", lw=0.8, ls="--")
    axes[0].legend(fontsize=8)
    figure.savefig(IMAGES / f"{what}.png", dpi=100)


def show(what: str, root: Path) -> None:
    """Pictures of the runs of seed 0, one grid below the other: at the end; of what grows, at each stage."""
    from PIL import Image

    grids = [sorted((root / row / "0" / "samples").glob("examples=*.png")) for row in ROWS[what]]
    paths = [paths[-1] for paths in grids] if what == "few_images" else [*grids[0][:5], grids[0][-1], grids[1][-1]]
    pictures = [Image.open(path).convert("RGB") for path in paths]
    share = SHARE if what == "few_images" else 1 / 8
    pictures = [picture.crop((0, 0, picture.width, int(picture.height * share))) for picture in pictures]
    gap = 6
    height = sum(picture.height + gap for picture in pictures) - gap
    whole = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height + gap
    whole.resize((2 * whole.width, 2 * whole.height), Image.Resampling.NEAREST).save(
        IMAGES / f"{what}_samples.png", optimize=True
    )


if __name__ == "__main__":
    record(sys.argv[1], Path(sys.argv[2]))
    draw(sys.argv[1])
    show(sys.argv[1], Path(sys.argv[2]))
