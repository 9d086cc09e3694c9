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
SHARES = (0.2, 0.4, 0.5, 0.6, 0.8, 1.0)


def runs_of(row: str) -> list[dict[str, Any]]:
    content = json.loads((MEASURED / "captions.json").read_text(encoding="utf-8"))
    return [run for run in content["runs"] if run["row"] == row]


def rows() -> list[str]:
    content = json.loads((MEASURED / "captions.json").read_text(encoding="utf-8"))
    there = {run["row"] for run in content["runs"]}
    assert there <= {*FAMILIES}, f"docs/measured/captions.json: rows without a name here: {there - {*FAMILIES}}"
    return [row for row in FAMILIES if row in there]


def value_of(metrics: Mapping[str, float], metric: str) -> float:
    """``scene_accuracy`` -> that of ``scene_accuracy_500``: of the most samples that there are."""
    found = {name.rpartition("_")[2]: value for name, value in metrics.items() if name.rpartition("_")[0] == metric}
    return found[max(found, key=lambda count: float(count.replace("k", "e3")))]


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
        fits = all(abs(point[0] / run["curve"][-1][0] - share) < 0.03 for point, run in zip(near, runs, strict=True))
        yield f"{statistics.fmean(point[1] for point in near):.3f}" if fits else "–"


# --- captions of pictures, docs/captioning.md, and a judge of them, docs/clip.md --------------------------------------

WRITERS = {"nearest_training_picture": "the nearest training picture's", "other_pictures": "another picture's: chance"}
SCENES = {
    "caption_match": "word for word",
    "caption_match_seen": "seen",
    "caption_match_held_out": "held out",
    "caption_objects": "objects",
    "caption_color": "color",
    "caption_size": "size",
    "caption_shape": "shape",
}
EMOJI = {"caption_match": "word for word", "bleu": "BLEU", "chrf": "chrF"}


def captioning(name: str, columns: Mapping[str, str], places: int) -> list[str]:
    """The captions of a trained model beside those of baselines."""
    content = json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))
    found = {"written by the captioner": [run["metrics"] for run in content["runs"]]}
    found |= {label: [content["baselines"][who]] for who, label in WRITERS.items()}
    lines = [row_of(["captions", *columns.values()]), "|---|" + "---:|" * len(columns)]
    return [*lines, *(row_of([who, *(f"{mean(s, name):.{places}f}" for name in columns)]) for who, s in found.items())]


def retrieval() -> list[str]:
    """Recall of a judge on held-out pictures, beside that of a random order."""
    (run,) = json.loads((MEASURED / "clip_emoji.json").read_text(encoding="utf-8"))["runs"]
    lines = ["| | R@1 | R@5 | R@10 | random order: R@1, R@5, R@10 |", "|---|---:|---:|---:|---:|"]
    for direction, label in {"image_to_text": "picture to caption", "text_to_image": "caption to picture"}.items():
        found, chance = (
            [f"{run['metrics'][f'{direction}{kind}_r{k}_val']:.3f}" for k in (1, 5, 10)] for kind in ("", "_chance")
        )
        lines.append(row_of([label, *found, ", ".join(chance)]))
    return lines


TABLES: dict[str, Callable[[], list[str]]] = {
    "captions families": families,
    "captions guidance": guidance,
    "captions budget": budget,
    "captioning shapes": lambda: captioning("captioning_shapes", SCENES, 3),
    "captioning emoji": lambda: captioning("captioning_emoji", EMOJI, 1),
    "clip emoji": retrieval,
}
