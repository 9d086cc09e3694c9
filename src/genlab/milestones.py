"""Bands in which a recipe's metric should be at 5, 25 and 100 % of the budget."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab.errors import ConfigError, GenlabError
from genlab.files.regular_file import open_text
from genlab.former_names import current_number

POINTS = (5, 25, 100)  # per cent of the budget
_LATE = 0.05  # shares of the budget by which a measurement may come later than its point

Band = tuple[float | None, float | None]  # lowest and highest value; null: no limit


class OutsideBand(GenlabError):
    """A metric of a run is outside the band of its recipe."""

    exit_code = 9


@dataclass(frozen=True)
class Judgement:
    """A measured value and its band."""

    point: int  # per cent of the budget
    metric: str
    value: float | None  # None: not measured there
    band: Band
    source: str  # where the band comes from

    @property
    def holds(self) -> bool:
        """Also where nothing was measured; nan is in no band."""
        low, high = self.band
        if self.value is None:
            return True
        return (low is None or self.value >= low) and (high is None or self.value <= high) and self.value == self.value

    def expected(self) -> str:
        low, high = self.band
        if low is None or high is None:
            return f"at most {high:g}" if low is None else f"at least {low:g}"
        return f"{low:g} to {high:g}"

    def check(self) -> None:
        """Raises OutsideBand."""
        if not self.holds:
            raise OutsideBand(
                f"the run left its band at {self.point} % of its budget: {self.metric} is {self.value:.4g}, "
                f"expected {self.expected()} ({self.source})."
            )

    def __str__(self) -> str:
        found = "not measured" if self.value is None else f"{self.value:.4g}"
        return f"{self.point:3} %  {self.metric} {found}, expected {self.expected()} ({self.source})"


class Bands:
    """Bands of one logged metric."""

    def __init__(
        self,
        metric: str,  # e.g. val/loss
        at_5: Band | None = None,  # after 5 % of the budget: lowest and highest
        at_25: Band | None = None,
        at_100: Band | None = None,  # in the full evaluation
        final_metric: str | None = None,  # the metric's name there, if it uses more samples
        recorded: str | None = None,  # the source of the bands: our own runs, their seeds and device
        published: str | None = None,  # the source of the band at 100 %, if it is a published figure
        examples: int | None = None,  # the budget of the recorded runs, if it is not the recipe's own
    ):
        bands = {5: at_5, 25: at_25, 100: at_100}
        self.bands: dict[int, Band] = {point: (b[0], b[1]) for point, b in bands.items() if b is not None}
        for point, (low, high) in self.bands.items():
            if (low is None and high is None) or (low is not None and high is not None and low > high):
                raise ConfigError(f"milestones.at_{point} must be [lowest, highest], got [{low}, {high}].")
        if not self.bands or (recorded is None and (published is None or set(self.bands) != {100})):
            raise ConfigError("milestones need a band, and the source of it: recorded or published.")
        self.metric, self.final_metric = current_number(metric), current_number(final_metric or metric)
        self.examples = examples
        self.recorded, self.published = recorded, published

    @property
    def early(self) -> list[int]:
        """The points before the end that have a band."""
        return [point for point in self.bands if point < 100]

    def judge(self, point: int, values: Mapping[str, float]) -> Judgement:
        """``values``: what was measured there, by name."""
        metric = self.final_metric if point == 100 else self.metric
        is_published = point == 100 and self.published is not None
        source = f"published: {self.published}" if is_published else f"recorded: {self.recorded}"
        return Judgement(point, metric, values.get(metric), self.bands[point], source)

    def judge_files(self, run: Path, budget: Mapping[str, Any]) -> list[Judgement]:
        """Judge a run by its ``metrics.csv``, at every point that has a band. ``budget``: the node of the run's
        config."""
        currency = str(budget["_target_"]).rpartition(".")[2].lower()
        rows = list(_rows(run / "metrics.csv"))
        judged = []
        for point in self.bands:
            metric = self.final_metric if point == 100 else self.metric
            share = point / 100
            there = (
                row
                for row in rows
                if metric in row
                and f"progress/{currency}" in row
                and share <= row[f"progress/{currency}"] / budget["value"] + 1e-9
                and (point == 100 or row[f"progress/{currency}"] / budget["value"] < share + _LATE)
            )
            judged.append(self.judge(point, next(there, {})))
        return judged


def _rows(path: Path) -> Iterator[dict[str, float]]:
    """The values logged at each step. Raises ConfigError if there are none."""
    if not path.exists():
        raise ConfigError(f"{path} is missing: there is nothing to judge.")
    with open_text(path) as file:
        for row in csv.DictReader(file):
            yield {current_number(name): float(text) for name, text in row.items() if text}
