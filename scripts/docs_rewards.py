"""The table of docs/rewards.md that comes from a record of runs."""

import json
import statistics
from collections.abc import Callable
from typing import Any

from docs_rows import MEASURED, row_of
from genlab.report.significance import half_width

SENTENCES = {"films": "film reviews", "products": "reviews of products"}
NUMBERS = {
    "pair_accuracy_val": "accuracy on pairs",
    "rating_rmse_val": "error of ratings",
    "rating_correlation_val": "correlation of ranks",
    "rating_slope_val": "slope",
    "disagreement_val": "disagreement",
}
BESIDE = {
    "tfidf_accuracy_val": "TF-IDF, ridge",
    "human_accuracy_val": "one person",
    "longer_wins_val": "the longer one",
}


def rewards() -> list[str]:
    """What reward models of rated sentences are worth, beside what no model changes."""
    content = json.loads((MEASURED / "rewards.json").read_text(encoding="utf-8"))
    lines = [row_of(["sentences", *NUMBERS.values(), *BESIDE.values()])]
    lines.append("|---|" + "---:|" * (len(NUMBERS) + len(BESIDE)))
    for row, name in SENTENCES.items():
        runs = [run["metrics"] for run in content["runs"] if run["row"] == row]
        cells = [_mean([run[number] for run in runs]) for number in NUMBERS]
        lines.append(row_of([name, *cells, *(f"{runs[0][number]:.3f}" for number in BESIDE)]))
    return lines


def _mean(values: list[Any]) -> str:
    return f"{statistics.fmean(values):.3f} ±{half_width(values):.3f}"


TABLES: dict[str, Callable[[], list[str]]] = {"rewards": rewards}
