"""Plots of a sweep: importance of settings, and parallel coordinates of all trials."""

from collections.abc import Sequence
from pathlib import Path

from genlab.report.figure import arrange, clipped, save, styled
from genlab.report.importance import FORESTS, Setting, Share, judged, settings_of, some, what_mattered
from genlab.report.trials import Sweep

MOST_AXES = 8
MOST_LINES = 200  # of a figure; of more trials, evenly spaced ones by how good they are


def search_plots(sweep: Sweep, folder: Path) -> list[str]:
    """-> the files' names; none of a sweep of few trials that came to an end. Raises OSError."""
    trials, shares = judged(sweep), what_mattered(sweep)
    if not trials:
        return []
    place = {share.name: i for i, share in enumerate(shares)}
    ranked = sorted(settings_of(trials), key=lambda setting: place.get(setting.name, 0))
    label, name = sweep.metric or "value", sweep.folder.resolve().name
    written = _importance_figure(name, shares, label, len(some(trials)), folder) if shares else []
    values = [trial.value for trial in trials if trial.value is not None]
    return [*written, *_coordinates_figure(name, ranked[:MOST_AXES], values, label, sweep.direction, folder)]


def _importance_figure(name: str, shares: Sequence[Share], label: str, count: int, folder: Path) -> list[str]:
    with styled() as pyplot:
        figure, panel = pyplot.subplots(figsize=(7, 1.2 + 0.36 * len(shares)))
        places = range(len(shares))
        panel.barh(
            places,
            [s.mean for s in shares],
            xerr=[s.spread for s in shares],
            color="#0072b2",
            height=0.62,
            error_kw={"ecolor": "#333333", "elinewidth": 1, "capsize": 2},
        )
        panel.set_yticks(places, [clipped(s.name, 40) for s in shares])
        panel.invert_yaxis()
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", length=0)
        panel.set_xlim(0, 1)
        panel.set_xlabel(
            f"share of the variance of {label} over {count} trials (fANOVA; bars: sd of {FORESTS} forests)"
        )
        panel.set_title(f"what mattered in {name}")
        arrange(figure, left=0.3 + 0.075 * max(len(clipped(s.name, 40)) for s in shares))
        return save(figure, folder, f"importance-{name}")


def _coordinates_figure(
    name: str, settings: Sequence[Setting], values: Sequence[float], label: str, direction: str | None, folder: Path
) -> list[str]:
    """One line a trial through all settings to its value; good ones dark, the best one black."""
    heights = Setting(label, [""] * len(values), list(values))
    ends = heights.places()
    goodness = [end if direction == "higher" else 1 - end for end in ends]
    axes = [*((s.name, s.places(), s.ticks()) for s in settings), (label, ends, heights.ticks())]
    with styled() as pyplot:
        figure, panel = pyplot.subplots(figsize=(max(6.0, 1.9 * len(axes)), 4.2))
        colors = pyplot.get_cmap("viridis_r")
        order = sorted(range(len(values)), key=goodness.__getitem__)
        step = -(-len(order) // MOST_LINES)
        for i in order[::step]:
            xs, ys = smooth([places[i] for _, places, _ in axes])
            panel.plot(xs, ys, color=colors(0.12 + 0.88 * goodness[i]), alpha=0.35 + 0.5 * goodness[i], linewidth=1.2)
        best = max(range(len(values)), key=goodness.__getitem__)
        panel.plot(*smooth([places[best] for _, places, _ in axes]), color="black", linewidth=2.2)
        panel.set_xlim(-0.25, len(axes) - 0.75 + 0.35)
        panel.set_ylim(-0.06, 1.06)
        for x, (_, _, ticks) in enumerate(axes):
            panel.axvline(x, color="#666666", linewidth=0.9, zorder=4)
            for y, text in ticks:
                panel.plot([x - 0.015, x + 0.015], [y, y], color="#666666", linewidth=0.9, zorder=4)
                panel.text(
                    x + 0.03,
                    y,
                    clipped(text, 16),
                    fontsize=7.5,
                    va="center",
                    zorder=5,
                    bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
                )
        panel.set_xticks(range(len(axes)), [_wrapped(title) for title, *_ in axes])
        panel.tick_params(axis="x", length=0, pad=6)
        panel.set_yticks([])
        panel.grid(visible=False)
        for side in ("left", "bottom"):
            panel.spines[side].set_visible(False)
        told = "the trials" if step == 1 else f"{len(order[::step])} of {len(order):,} trials"
        panel.set_title(f"{told} of {name}: dark is better, black the best")
        arrange(figure, left=0.3, bottom=0.6)
        return save(figure, folder, f"trials-{name}")


def _wrapped(name: str) -> str:
    """A dotted name in lines."""
    lines = [""]
    for part in name.replace(".", ".\n").split("\n"):
        if len(lines[-1]) + len(part) > 18 and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(clipped(line, 22) for line in lines)


def smooth(heights: Sequence[float], steps: int = 24) -> tuple[list[float], list[float]]:
    """A line through heights at 0, 1, 2, ... that is level at each, so that lines through one point can be followed."""
    xs, ys = [], []
    for place in range(len(heights) - 1):
        for step in range(steps + (place == len(heights) - 2)):
            t = step / steps
            xs.append(place + t)
            ys.append(heights[place] + (heights[place + 1] - heights[place]) * t * t * (3 - 2 * t))
    return xs, ys
