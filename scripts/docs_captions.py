"""The tables of docs/text_to_image.md and docs/captioning.md that come from records of runs, of scripts/captions.sh."""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from docs_rows import MEASURED, row_of

FAMILIES = {
    "transformer_codes": "transformer of codes",
    "masked_codes": "masked, of codes",
    "latent_diffusion": "latent diffusion (DiT)",
    "diffusion": "diffusion (U-Net)",
    "gan": "GAN (DCGAN)",
}
PARTS = {
    "scene_accuracy": "all of it",
    "scene_accuracy_seen": "seen",
    "scene_accuracy_held_out": "held out",
    "color_accuracy": "color",
    "size_accuracy": "size",
    "shape_accuracy": "shape",
    "count_accuracy": "number",
    "relation_accuracy": "relations",
}
STRENGTHS = (1, 2, 4, 8)
SHARES = (0.25, 0.5, 0.75, 1.0)


def runs_of(row: str) -> list[dict[str, Any]]:
    content = json.loads((MEASURED / "captions.json").read_text(encoding="utf-8"))
    return [run for run in content["runs"] if run["row"] == row]


def rows() -> list[str]:
    content = json.loads((MEASURED / "captions.json").read_text(encoding="utf-8"))
    there = {run["row"] for run in content["runs"]}
    assert there <= {*FAMILIES}, f"docs/measured/captions.json: rows without a name here: {there - {*FAMILIES}}"
    return [row for row in FAMILIES if row in there]


def value_of(metrics: Mapping[str, float], metric: str) -> float:
    """``scene_accuracy`` -> that of ``scene_accuracy_500``, whatever the number of samples."""
    (found,) = (value for name, value in metrics.items() if name.rpartition("_")[0] == metric)
    return found


def by_strength(run: Mapping[str, Any]) -> dict[float, dict[str, float]]:
    """What a run's samples scored, by guidance: those drawn cooler, where some were. A GAN has no guidance."""
    cooler = any("model.sampler.temperature" in other["changed"] for other in run["others"])
    typed = [text.partition("=")[2] for text in run["overrides"] if text.startswith("model.guidance=")]
    own = float(typed[0]) if typed else 1.0
    found = {} if cooler else {own: run["metrics"]}
    for other in run["others"]:
        changed = other["changed"]
        if not other["shuffled"] and cooler == ("model.sampler.temperature" in changed):
            strength = changed.get("model.guidance.strength", own)
            found[1.0 if strength is None else float(strength)] = other["metrics"]
    return found


def best(row: str) -> tuple[float, list[dict[str, float]]]:
    """The guidance with the highest mean over seeds of all that captions ask for, and its scores by seed."""
    each = [by_strength(run) for run in runs_of(row)]
    strengths = set.intersection(*({*scores} for scores in each))
    strength = max(strengths, key=lambda s: statistics.fmean(value_of(scores[s], "scene_accuracy") for scores in each))
    return strength, [scores[strength] for scores in each]


def families() -> list[str]:
    """Each family at its best guidance, the best family first."""
    found = {row: best(row) for row in rows()}
    order = sorted(found, key=lambda row: -mean(found[row][1], "scene_accuracy"))
    lines = [
        row_of(["family", "guidance", *PARTS.values(), "other captions"]),
        "|---|---:|" + "---:|" * (len(PARTS) + 1),
    ]
    for row in order:
        strength, scores = found[row]
        others = [other["metrics"] for run in runs_of(row) for other in run["others"] if other["shuffled"]]
        cells = [f"{mean(scores, part):.3f}" for part in PARTS]
        guidance = "–" if row == "gan" else f"{strength:g}"
        lines.append(row_of([FAMILIES[row], guidance, *cells, f"{mean(others, 'scene_accuracy'):.3f}"]))
    return lines


def mean(scores: list[dict[str, float]], metric: str) -> float:
    return statistics.fmean(value_of(each, metric) for each in scores)


def guidance() -> list[str]:
    """All that captions ask for, of seen and of held-out combinations, by guidance."""
    guided = [row for row in rows() if row != "gan"]
    lines = [row_of(["guidance", *(FAMILIES[row] for row in guided)]), "|---:|" + "---:|" * len(guided)]
    for strength in STRENGTHS:
        lines.append(row_of([str(strength), *(both(row, strength) for row in guided)]))
    return lines


def both(row: str, strength: float) -> str:
    scores = [found[strength] for run in runs_of(row) if strength in (found := by_strength(run))]
    if not scores:
        return "–"
    return f"{mean(scores, 'scene_accuracy_seen'):.3f}, {mean(scores, 'scene_accuracy_held_out'):.3f}"


def budget() -> list[str]:
    """All that captions ask for, after parts of the budget, of evaluations during training."""
    lines = [row_of(["family", *(f"{share:.0%}" for share in SHARES)]), "|---|" + "---:|" * len(SHARES)]
    return [*lines, *(row_of([FAMILIES[row], *on_the_way(row)]) for row in rows())]


def on_the_way(row: str) -> Iterator[str]:
    runs = runs_of(row)
    for share in SHARES:
        near = [min(run["curve"], key=lambda point: abs(point[0] - share * run["curve"][-1][0])) for run in runs]
        fits = all(abs(point[0] / run["curve"][-1][0] - share) < 0.05 for point, run in zip(near, runs, strict=True))
        yield f"{statistics.fmean(point[1] for point in near):.3f}" if fits else "–"


TABLES: dict[str, Callable[[], list[str]]] = {
    "captions families": families,
    "captions guidance": guidance,
    "captions budget": budget,
}
