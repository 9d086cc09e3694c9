"""What a sweep's settings did: how much of its metric's variance each explains, and all trials at once."""

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab.report.figure import arrange, clipped, save, spans, styled
from genlab.report.trials import Sweep, Trial, given

FEWEST = 8  # trials that say anything about settings
MOST_AXES = 8
FORESTS = 5  # that importances are averaged over
ABSENT = "–"


@dataclass(frozen=True)
class Setting:
    """What the trials were given for one name."""

    name: str
    texts: list[str]  # of each trial
    numbers: list[float] | None  # the same, if all of them are

    @property
    def is_log(self) -> bool:
        return self.numbers is not None and spans(self.numbers, 30)

    @property
    def choices(self) -> list[str]:
        return list(dict.fromkeys(sorted(self.texts)))

    def places(self) -> list[float]:
        """Of each trial on an axis from 0 to 1."""
        if self.numbers is None:
            choices = self.choices
            return [choices.index(text) / max(1, len(choices) - 1) for text in self.texts]
        values = [math.log(n) for n in self.numbers] if self.is_log else self.numbers
        low, high = min(values), max(values)
        return [(value - low) / (high - low) if high > low else 0.5 for value in values]

    def ticks(self) -> list[tuple[float, str]]:
        if self.numbers is None or len(set(self.numbers)) <= 5:
            return sorted(set(zip(self.places(), self.texts, strict=True)))
        low, high = min(self.numbers), max(self.numbers)
        shares = (0, 0.25, 0.5, 0.75, 1)
        values = [low * (high / low) ** s if self.is_log else low + (high - low) * s for s in shares]
        return [(s, f"{value:.3g}") for s, value in zip(shares, values, strict=True)]


def search_plots(sweep: Sweep, folder: Path) -> list[str]:
    """-> the files' names; none of a sweep of few trials that came to an end. Raises OSError."""
    trials = [t for t in sweep.trials if t.state == "finished" and t.value is not None and math.isfinite(t.value)]
    settings = settings_of(trials)
    values = [trial.value for trial in trials if trial.value is not None]
    if len(trials) < FEWEST or not settings or len(set(values)) < 2:
        return []
    try:
        shares = importance(settings, values)
    except ModuleNotFoundError:
        warnings.warn("no importance of settings: it needs a package. Install it: pip install optuna", stacklevel=2)
        shares = {}
    ranked = sorted(settings, key=lambda setting: -statistics.fmean(shares.get(setting.name, [0.0])))
    label = f"{sweep.metric or 'value'}"
    name = sweep.folder.resolve().name
    written = _importance_figure(name, ranked, shares, label, len(trials), folder) if shares else []
    return [*written,
            *_coordinates_figure(name, ranked[:MOST_AXES], values, label, sweep.direction, folder)]  # fmt: skip


def settings_of(trials: Sequence[Trial]) -> list[Setting]:
    """What not all trials share."""
    own = [given(trial) for trial in trials]
    found = []
    for name in dict.fromkeys(name for settings in own for name in settings):
        texts = [settings.get(name, ABSENT) for settings in own]
        if len(set(texts)) > 1:
            found.append(Setting(name, texts, _numbers(texts)))
    return found


def _numbers(texts: Sequence[str]) -> list[float] | None:
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def importance(settings: Sequence[Setting], values: Sequence[float]) -> dict[str, list[float]]:
    """The share of the metric's variance that each setting explains alone or with others (functional ANOVA, Hutter et
    al. 2014, by Optuna), by several random forests."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions: dict[str, BaseDistribution] = {}
    for s in settings:
        distributions[s.name] = (CategoricalDistribution(s.choices) if s.numbers is None else
                                 FloatDistribution(min(s.numbers), max(s.numbers), log=s.is_log))  # fmt: skip
    study = optuna.create_study()
    for i, value in enumerate(values):
        params: dict[str, Any] = {s.name: s.texts[i] if s.numbers is None else s.numbers[i] for s in settings}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    found: dict[str, list[float]] = {s.name: [] for s in settings}
    for seed in range(FORESTS):
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        for name in found:
            found[name].append(float(shares.get(name, 0.0)))
    return found


def _importance_figure(
    name: str, ranked: Sequence[Setting], shares: dict[str, list[float]], label: str, count: int, folder: Path
) -> list[str]:
    with styled() as pyplot:
        figure, panel = pyplot.subplots(figsize=(7, 1.2 + 0.36 * len(ranked)))
        means = [statistics.fmean(shares[s.name]) for s in ranked]
        spreads = [statistics.stdev(shares[s.name]) for s in ranked]
        places = range(len(ranked))
        panel.barh(places, means, xerr=spreads, color="#0072b2", height=0.62,
                   error_kw={"ecolor": "#333333", "elinewidth": 1, "capsize": 2})  # fmt: skip
        panel.set_yticks(places, [clipped(s.name, 40) for s in ranked])
        panel.invert_yaxis()
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", length=0)
        panel.set_xlim(0, 1)
        panel.set_xlabel(
            f"share of the variance of {label} over {count} trials (fANOVA; bars: sd of {FORESTS} forests)"
        )
        panel.set_title(f"what mattered in {name}")
        arrange(figure, left=0.3 + 0.075 * max(len(clipped(s.name, 40)) for s in ranked))
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
        colours = pyplot.get_cmap("viridis_r")
        for i in sorted(range(len(values)), key=goodness.__getitem__):
            xs, ys = smooth([places[i] for _, places, _ in axes])
            panel.plot(xs, ys, color=colours(0.12 + 0.88 * goodness[i]), alpha=0.35 + 0.5 * goodness[i], linewidth=1.2)
        best = max(range(len(values)), key=goodness.__getitem__)
        panel.plot(*smooth([places[best] for _, places, _ in axes]), color="black", linewidth=2.2)
        panel.set_xlim(-0.25, len(axes) - 0.75 + 0.35)
        panel.set_ylim(-0.06, 1.06)
        for x, (_, _, ticks) in enumerate(axes):
            panel.axvline(x, color="#666666", linewidth=0.9, zorder=4)
            for y, text in ticks:
                panel.plot([x - 0.015, x + 0.015], [y, y], color="#666666", linewidth=0.9, zorder=4)
                panel.text(x + 0.03, y, clipped(text, 16), fontsize=7.5, va="center", zorder=5,
                           bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6})  # fmt: skip
        panel.set_xticks(range(len(axes)), [_wrapped(title) for title, *_ in axes])
        panel.tick_params(axis="x", length=0, pad=6)
        panel.set_yticks([])
        panel.grid(visible=False)
        for side in ("left", "bottom"):
            panel.spines[side].set_visible(False)
        panel.set_title(f"the trials of {name}: dark is better, black the best")
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
