"""The tables and the figure of docs/control_benchmark.md, from what scripts/benchmark_control.py measured.

python scripts/docs_control.py [RECORD] [FIGURE]      # draws the figure and prints the tables
"""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from docs_rows import MEASURED, REPOSITORY, row_of
from genlab.report.significance import half_width

RECORD = MEASURED / "control.json"
IMAGE = REPOSITORY / "docs" / "images" / "control.png"
GUIDANCE = {  # by method: its name, and its strengths
    "none": ("none", ()),
    "classifier_free": ("`classifier_free`", (1.5, 2, 3, 5)),
    "interval": ("`interval`", (2, 3, 5)),
    "apg": ("`apg`", (2, 3, 5)),
    "autoguidance": ("`autoguidance`", (2, 3)),
    "perturbed_attention": ("`perturbed_attention`", (1, 2)),
    "classifier": ("`classifier`, of shapes", (1, 4)),
    "best_of": ("the best of several, by the classifier of shapes", (4,)),
    "real": ("real pictures", ()),
}
EDITS = {  # by row: its name; what stands beside its point, which is joined with others of its method
    "sdedit_40": ("`sdedit`, strength 0.4", "0.4"),
    "sdedit_50": ("`sdedit`, 0.5", "0.5"),
    "sdedit_60": ("`sdedit`, 0.6", "0.6"),
    "invert_1": ("`invert`, no guidance", "1"),
    "invert_2": ("`invert`, guidance 2 on the way back", "2"),
    "invert_part_2": ("`invert`, strength 0.4, guidance 2", "2"),
    "invert_part_3": ("`invert`, 0.4, 3", "3"),
    "invert_part_4": ("`invert`, 0.4, 4", "4"),
    "invert_masked_2": ("`invert`, 0.4, 2, with the mask", "2"),
    "invert_masked_3": ("`invert`, 0.4, 3, with the mask", "3"),
    "invert_masked_4": ("`invert`, 0.4, 4, with the mask", "4"),
    "inpaint_1": ("`inpaint`, `resamplings=1`", "1"),
    "inpaint_2": ("`inpaint`, 2", "2"),
    "inpaint_4": ("`inpaint`, 4", "4"),
    "inpaint_8": ("`inpaint`, 8", "8"),
    "inpaint_unguided_4": ("`inpaint`, 4, no guidance", "4"),
    "inpaint_begun_40": ("`inpaint`, 1, strength 0.4", "0.4"),
    "inpaint_begun_50": ("`inpaint`, 1, 0.5", "0.5"),
    "inpaint_begun_60": ("`inpaint`, 1, 0.6", "0.6"),
    "samples": ("samples for the new caption: no edits", ""),
    "perfect": ("the scene drawn anew, as asked", ""),
    "input": ("the picture itself", ""),
}
NOT_DRAWN = ("perfect", "input")  # in the figure
TASKS = {
    "super_resolution": "`super_resolution=4`",
    "colorize": "`colorize=true`",
    "half": "all to the right of the object's center is missing",
}
METHODS = {"ddrm": "`ddrm`", "dps": "`dps`", "inpaint": "`inpaint`, `resamplings=8`", "nothing": "none: A⁺ y"}
OTHERS = {  # row and metric: what it is
    ("back", "psnr"): "a picture inverted and back, 40 steps of Heun's method each: PSNR, dB",
    ("layout", "layout_iou"): "`model=control`, layouts: IoU with what was asked for",
    ("no_layout", "layout_iou"): "the same without the hint",
    ("layout", "right"): "`model=control`: captions right, %",
    ("no_layout", "right"): "the same without the hint, %",
    ("word", "recognized"): "a new word with `prior_weight=1`: recognized, %",
    ("word_alone", "recognized"): "without a prior, %",
    ("word", "as_told"): "with a prior: recognized, with size and color as told, %",
    ("word_alone", "as_told"): "without, %",
    ("word", "others_right"): "other shapes with a prior: captions right, %",
    ("word_alone", "others_right"): "without, %",
    ("no_word", "others_right"): "of the base, %",
    ("word", "others_taken"): "other shapes that look like the new one, with a prior, %",
    ("word_alone", "others_taken"): "without, %",
    ("no_word", "others_taken"): "of the base, %",
}
SHARES = {"right", "recognized", "as_told", "others_right", "others_taken"}


def guidance_rows() -> dict[str, tuple[str, str]]:
    """By row of the record: its name, and its strength."""
    return {
        f"guidance_{method}" + (f"_{strength}" if strengths else ""): (name, f"{strength}" if strengths else "")
        for method, (name, strengths) in GUIDANCE.items()
        for strength in strengths or (0,)
    }


def restored_rows() -> dict[str, tuple[str, str]]:
    return {
        f"restored_{method}_{task}": (told, name)
        for task, told in TASKS.items()
        for method, name in METHODS.items()
        if method != "inpaint" or task == "half"
    }


# --- the record -------------------------------------------------------------------------------------------------------


def values(row: str, metric: str) -> list[float]:
    """By seed."""
    content = json.loads(RECORD.read_text(encoding="utf-8"))
    runs: list[dict[str, Any]] = sorted((run for run in content["runs"] if run["row"] == row), key=lambda r: r["seed"])
    assert runs, f"{RECORD}: there is no row {row}"
    return [float(run["metrics"][metric]) for run in runs]


def number(found: Sequence[float], places: int, scale: float = 1.0) -> str:
    """The mean over seeds, with half the 95 % interval where there are several."""
    half = half_width(found)
    text = f"{scale * statistics.fmean(found):.{places}f}"
    return text + (f" ±{scale * half:.{places}f}" if half is not None else "")


def percent(row: str, metric: str) -> str:
    return number(values(row, metric), 1, 100)


# --- the tables -------------------------------------------------------------------------------------------------------


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """``words``: the first columns, which hold no numbers."""
    rule = "|" + "---|" * words + "---:|" * (len(headings) - words)
    return [row_of(headings), rule, *(row_of(row) for row in rows)]


def guidance() -> list[str]:
    rows = []
    for row, (name, strength) in guidance_rows().items():
        cells = [percent(row, "right"), number(values(row, "fid"), 2), number(values(row, "variety"), 2)]
        rows.append([name, strength, *cells, f"{statistics.fmean(values(row, 'evaluations')):.0f}"])
    return table(["guidance", "strength", "asked right, % ↑", "FID ↓", "variety →1", "evaluations"], rows)


def edits() -> list[str]:
    rows = []
    whole = values("edits_samples", "whole")
    for name, (told, _) in EDITS.items():
        row = f"edits_{name}"
        shares = [percent(row, metric) for metric in ("asked", "kept", "both")]
        pixels = [number(values(row, metric), 2) for metric in ("fid", "seam")]
        rows.append([told, *shares, beside(values(row, "both"), whole), *pixels, number(values(row, "psnr"), 1),
                     f"{statistics.fmean(values(row, 'evaluations')):.0f}"])  # fmt: skip
    headings = ["asked right, % ↑", "others kept, % ↑", "both, % ↑", "both, beside samples ↑", "FID ↓", "seam →1"]
    return table(["", *headings, "PSNR, dB", "evaluations"], rows)


def beside(found: Sequence[float], of_samples: Sequence[float]) -> str:
    """Shares of edits divided by those of samples for the same captions, seed by seed."""
    if not all(of_samples):
        return "–"
    return number([share / most for share, most in zip(found, of_samples, strict=True)], 2)


def restored() -> list[str]:
    rows = []
    for row, (task, method) in restored_rows().items():
        cells = [percent(row, "kept"), number(values(row, "psnr"), 1), f"{statistics.fmean(values(row, 'misfit')):.1e}"]
        rows.append([task, method, *cells, f"{statistics.fmean(values(row, 'evaluations')):.0f}"])
    headings = ["known", "method", "scene kept, % ↑", "PSNR, dB ↑", "\\|A x − y\\|, gray levels ↓", "evaluations"]
    return table(headings, rows, words=2)


def others() -> list[str]:
    rows = []
    for (name, metric), told in OTHERS.items():
        row = f"others_{name}"
        plain = number(values(row, metric), 1 if metric == "psnr" else 2)
        rows.append([told, percent(row, metric) if metric in SHARES else plain])
    return table(["", "measured"], rows)


TABLES: dict[str, Callable[[], list[str]]] = {
    "control guidance": guidance,
    "control edits": edits,
    "control restored": restored,
    "control others": others,
}


# --- the figure -------------------------------------------------------------------------------------------------------


def draw(path: Path) -> None:
    """What was asked for against FID: a point for each method and strength, those of a method joined from the weakest
    to the strongest; dashed: the FID of real pictures."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure, panes = plt.subplots(1, 2, figsize=(10, 5.4), layout="constrained")
    points = {
        method: [_row("guidance", method, s) for s in strengths or (None,)]
        for method, (_, strengths) in GUIDANCE.items()
    }
    del points["real"]
    _plot(panes[0], points, "right", {m: f"{name}".replace("`", "") for m, (name, _) in GUIDANCE.items()})
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, (_, told) in EDITS.items():
        if name not in NOT_DRAWN:
            groups.setdefault(name.rpartition("_")[0] or name, []).append((f"edits_{name}", told))
    _plot(panes[1], groups, "both", {name: name.replace("_", ", ") for name in groups})
    panes[0].set_title("guidance: asked right, %", fontsize=10)
    panes[1].set_title("edits: asked right and others kept, %", fontsize=10)
    for pane, real in zip(panes, ("guidance_real", "edits_perfect"), strict=True):
        pane.axvline(statistics.fmean(values(real, "fid")), color="gray", lw=0.9, ls="--", label="real pictures")
        pane.set_xscale("log")
        pane.set_xlabel("FID, better to the left", fontsize=9)
        pane.tick_params(labelsize=8, which="both")
        pane.grid(lw=0.3)
        pane.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        pane.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        pane.xaxis.set_minor_formatter(NullFormatter())
        pane.set_ylim(max(-4, pane.dataLim.y0 - 6), 104)
        pane.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    figure.savefig(path, dpi=100)


def _row(kind: str, method: str, strength: float | None) -> tuple[str, str]:
    return (f"{kind}_{method}", "") if strength is None else (f"{kind}_{method}_{strength}", str(strength))


def _plot(pane: Any, groups: dict[str, list[tuple[str, str]]], metric: str, names: dict[str, str]) -> None:
    """``groups``: rows of the record and what stands beside their points, by method."""
    markers = "osD^v<>PX*"
    for place, (method, rows) in enumerate(groups.items()):
        x = [statistics.fmean(values(row, "fid")) for row, _ in rows]
        y = [100 * statistics.fmean(values(row, metric)) for row, _ in rows]
        error = [100 * (half_width(values(row, metric)) or 0.0) for row, _ in rows]
        pane.errorbar(
            x, y, yerr=error, fmt="-", marker=markers[place % len(markers)], ms=5, lw=1, elinewidth=0.6,
            color=f"C{place}", label=names[method],
        )  # fmt: skip
        for left, top, (_, told) in zip(x, y, rows, strict=True):
            pane.annotate(told, (left, top), xytext=(5, 4), textcoords="offset points", fontsize=7, color=f"C{place}")


def main() -> None:
    global RECORD
    given = [Path(typed) for typed in sys.argv[1:]]
    RECORD = given[0] if given else RECORD
    draw(given[1] if len(given) > 1 else IMAGE)
    for name, made in TABLES.items():
        print(f"{name}\n", *made(), "", sep="\n")


if __name__ == "__main__":
    main()
