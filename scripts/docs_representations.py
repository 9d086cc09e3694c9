"""The table and the figure of docs/self_supervised.md that come from the runs of scripts/representations.sh.

python scripts/docs_representations.py ROOT   # docs/measured/representations.json and docs/images/representations.png

Beside the probes of runs stand the same probes of pixels, of as many principal components of pixels as the networks
have features, and of nothing: always naming the most frequent class.
"""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from docs_rows import MEASURED, REPOSITORY, row_of
from genlab.report.significance import half_width

RECORD = MEASURED / "representations.json"
IMAGE = REPOSITORY / "docs" / "images" / "representations.png"
ABOUT = "features of CIFAR-10 pictures, each method with as many FLOPs"
METHODS = {
    "supervised": "with labels, ResNet",
    "supervised_vit": "with labels, transformer",
    "nt_xent": "`contrastive`, `nt_xent`",
    "barlow": "`contrastive`, `barlow`",
    "vicreg": "`contrastive`, `vicreg`",
    "byol": "`self_distillation`, `byol`",
    "dino": "`self_distillation`, `dino`",
    "masked_autoencoder": "`masked_autoencoder`, transformer",
    "jepa": "`jepa`, transformer",
    "diffusion": "`diffusion`",
    "vae": "`vae`",
    "gan": "`gan`, of the discriminator",
    "random": "random weights, ResNet",
    "random_vit": "random weights, transformer",
}
BASELINES = {"pixels": "pixels", "components": "principal components of pixels", "chance": "the most frequent class"}
PROBES = {
    "linear_probe": "linear probe ↑",
    "knn_probe": "nearest neighbors ↑",
    "few_labels_10pct": "10 % of the labels ↑",
    "few_labels_1pct": "1 % ↑",
}
CHANCE = {"few_labels_10pct": "few_labels", "few_labels_1pct": "few_labels"}  # two probes, one chance
COMPONENTS = 64


# --- the record -------------------------------------------------------------------------------------------------------


def record(root: Path) -> None:
    """What every finished run of ``root`` ended with, and what needs no run."""
    runs = [
        _run(method, folder.parent) for method in METHODS for folder in sorted((root / method).glob("*/summary.json"))
    ]
    if not runs:
        sys.exit(f"error: no run in {root} has finished. Train some: bash scripts/representations.sh")
    first = root / runs[0]["row"] / str(runs[0]["seed"])
    versions = json.loads((first / "versions.json").read_text(encoding="utf-8"))
    values = runs[0]["metrics"]
    content = {
        "about": ABOUT,
        "hardware": "{cpu}, {cores} cores".format(**versions["hardware"]),
        "revision": versions["revision"],
        "baselines": {
            "pixels": {probe: values[f"{probe}_pixels"] for probe in PROBES},
            "components": of_components(first),
            "chance": {probe: values[f"{CHANCE.get(probe, probe)}_chance"] for probe in PROBES},
        },
    }
    text = json.dumps({**content, "runs": []}, indent=1, ensure_ascii=False).removesuffix("[]\n}")
    lines = ",\n".join(f"  {json.dumps(run)}" for run in runs)
    RECORD.write_text(f"{text}[\n{lines}\n ]\n}}\n", encoding="utf-8")


def _run(method: str, run: Path) -> dict[str, Any]:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    metrics = {name.removesuffix("_val"): float(f"{value:.6g}") for name, value in summary["metrics"].items()}
    costs = {name: summary[name] for name in ("parameters", "examples", "flops")}
    return {"row": method, "seed": int(run.name), "metrics": metrics, "costs": costs}


def of_components(run: Path) -> dict[str, float]:
    """The probes of a finished ``run``, of the first principal components of pixels of its training images, which are
    fitted to those that a probe learns from."""
    import torch
    from omegaconf import OmegaConf
    from torch import Tensor

    from genlab.metrics.few_labels import FewLabels
    from genlab.metrics.knn_probe import KNNProbe
    from genlab.metrics.linear_probe import LinearProbe
    from genlab.metrics.probe import Labelled, labelled
    from genlab.run import run_folder
    from genlab.run.assemble import build_data

    config = run_folder.read_config(run)
    data, device = build_data(OmegaConf.create(config)), torch.device("cpu")
    found: dict[str, Tensor] = {}
    for name, kind in {"knn_probe": KNNProbe, "linear_probe": LinearProbe, "few_labels": FewLabels}.items():
        probe = kind(**{key: value for key, value in config["metrics"][name].items() if key != "_target_"})
        train = labelled(data, "train", probe.num_train, name).as_pixels(device)
        held_out = labelled(data, "val", None, name).as_pixels(device)
        project = components(train.features, COMPONENTS)
        found |= probe.scores(*(Labelled(project(part.features), part.labels) for part in (train, held_out)))
    return {name: float(f"{found[name]:.6g}") for name in PROBES}


def components(x: Any, count: int) -> Callable[[Any], Any]:
    """A map from rows like those of ``x`` (N, D) to their first ``count`` principal components, (N, count)."""
    import torch

    mean = x.double().mean(dim=0)
    centered = x.double() - mean
    directions = torch.linalg.eigh(centered.T @ centered).eigenvectors.flip(1)[:, :count]  # (D, count)
    return lambda rows: (rows.double() - mean) @ directions


# --- the table --------------------------------------------------------------------------------------------------------


def representations() -> list[str]:
    """Means over seeds, with half the 95 % interval, in percent; the best linear probe of each group first."""
    content = json.loads(RECORD.read_text(encoding="utf-8"))
    names = ["", *PROBES.values(), "parameters", "examples", "TFLOP"]
    lines = [row_of(names), "|---|" + "---:|" * (len(names) - 1)]
    for method in ranked(content):
        runs = of(content, method)
        cells = [_percent([run["metrics"][probe] for run in runs]) for probe in PROBES]
        examples = statistics.fmean(run["costs"]["examples"] for run in runs)
        operations = statistics.fmean(run["costs"]["flops"] for run in runs) / 1e12
        costs = [f"{runs[0]['costs']['parameters'] / 1e6:.2f} M", f"{examples / 1e3:,.0f} k", f"{operations:.1f}"]
        lines.append(row_of([METHODS[method], *cells, *costs]))
    for name, label in BASELINES.items():
        cells = [_percent([content["baselines"][name][probe]]) for probe in PROBES]
        lines.append(row_of([label, *cells, "", "", ""]))
    return lines


def of(content: dict[str, Any], method: str) -> list[dict[str, Any]]:
    return [run for run in content["runs"] if run["row"] == method]


def ranked(content: dict[str, Any]) -> list[str]:
    """The methods that a record has, the best linear probe first."""
    means = {
        method: statistics.fmean(run["metrics"]["linear_probe"] for run in runs)
        for method in METHODS
        if (runs := of(content, method))
    }
    return sorted(means, key=lambda method: -means[method])


def _percent(values: Sequence[float]) -> str:
    half = half_width(values)
    return f"{100 * statistics.fmean(values):.1f}" + (f" ±{100 * half:.1f}" if half is not None else "")


TABLES: dict[str, Callable[[], list[str]]] = {"representations": representations}


# --- the figure -------------------------------------------------------------------------------------------------------


def draw() -> None:
    """The accuracy of each probe by method, with intervals over seeds; dashed: of pixels; dotted: chance."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    content = json.loads(RECORD.read_text(encoding="utf-8"))
    methods = ranked(content)[::-1]
    figure, axes = plt.subplots(
        1, len(PROBES), figsize=(2.6 * len(PROBES) + 1.6, 0.26 * len(methods) + 1), sharey=True, layout="constrained"
    )
    for pane, (probe, title) in zip(axes, PROBES.items(), strict=True):
        drawn = [[100 * run["metrics"][probe] for run in of(content, method)] for method in methods]
        means = [statistics.fmean(values) for values in drawn]
        halves = [half_width(values) or 0.0 for values in drawn]
        pane.errorbar(means, range(len(methods)), xerr=halves, fmt="o", ms=4, lw=1.2, color="tab:blue")
        for name, style in (("pixels", "--"), ("chance", ":")):
            pane.axvline(100 * content["baselines"][name][probe], color="gray", lw=0.8, ls=style, label=name)
        pane.set_title(f"{title.removesuffix(' ↑')}, accuracy %", fontsize=8)
        pane.set_yticks(range(len(methods)), [METHODS[method].replace("`", "") for method in methods], fontsize=8)
        pane.tick_params(axis="x", labelsize=8)
        pane.grid(axis="x", lw=0.3)
    axes[-1].legend(fontsize=7)
    figure.savefig(IMAGE, dpi=100)


if __name__ == "__main__":
    record(Path(sys.argv[1]))
    draw()
