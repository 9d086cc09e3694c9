"""Update the numbers in README and docs/ from the runs recorded in docs/measured/.

    python scripts/docs_tables.py            # after `python scripts/record_runs.py ...`
    python scripts/docs_tables.py --check    # changes nothing; fails if a number is not that of the runs

Two marks in the Markdown files, which no reader sees, say what comes from where:

* ``<!-- table: NAME -->`` ... ``<!-- end -->``: all between is what ``TABLES[NAME]`` makes.
* ``<!-- numbers: digits gan.recall floor.recall - -->`` before a paragraph: its decimal numbers (those with a
  point, not in code) are, in their order, these of docs/measured/digits.json, with as many places as they have.
  ``-`` leaves one as it is; ``gan.fid.half`` is half the width of an interval, ``lowest.`` and ``highest.`` go over all
  rows.

What the records hold is described in docs/measured/README.md. Means are over seeds, intervals are Student's 95 %.
"""

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import docs_benchmarks
import docs_captions
import docs_control
import docs_finetune
import docs_gans
import docs_image_rewards
import docs_representations
import docs_rewards
import docs_rlhf
import docs_transfer
from docs_rows import MEASURED, REPOSITORY, row_of
from genlab.report.significance import LEVEL, Pair, half_width, pairs

PAGES = ("README.md", "docs/*.md", "docs/reports/README.md")
MINUS = "−"


LATER = {"digits": "digits_gans", "cifar10": "cifar10_gans"}  # records of rows that a table got later


class Record:
    """A file of docs/measured, and that of rows which its table got later."""

    def __init__(self, name: str):
        self.name = name
        self.baselines: dict[str, dict[str, float]] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {}
        for part in filter(None, (name, LATER.get(name))):
            content = json.loads((MEASURED / f"{part}.json").read_text(encoding="utf-8"))
            self.baselines |= content["baselines"]
            for run in content["runs"]:
                self.rows.setdefault(run["row"], []).append(run)

    def full_name(self, metric: str) -> str | None:
        """``fid`` -> ``fid_digits64_1k``: the shortest name that begins so."""
        names = {name for run in self.all_values() for name in run}
        fitting = [name for name in names if name == metric or re.fullmatch(rf"{metric}(_[a-z]*\d+)?_\d+k?", name)]
        return min(fitting, key=len, default=None)

    def all_values(self) -> list[dict[str, float]]:
        of_runs = [run["metrics"] | run.get("costs", {}) for runs in self.rows.values() for run in runs]
        return [*of_runs, *self.baselines.values()]

    def values(self, row: str, metric: str) -> list[float]:
        """By seed; of a baseline, one. Empty: it was not measured. Raises KeyError for a row that there is not."""
        name = self.full_name(metric)
        found = [self.baselines[row]] if row in self.baselines else []
        if not found:
            found = [run["metrics"] | run.get("costs", {}) for run in self.rows[row]]
        return [values[name] for values in found if name in values] if name else []

    def likelihood(self, row: str, unit: str = "bits_per_dim") -> tuple[str, list[float]]:
        """What kind of likelihood a row has, and its values by seed."""
        found = [(match[1], value) for run in self.rows.get(row, ()) for name, value in run["metrics"].items()
                 if (match := re.fullmatch(rf"{unit}_([a-z_]+)_val_\w+", name))]  # fmt: skip
        kinds = {kind for kind, _ in found}
        assert len(kinds) < 2, f"{self.name}: {row} has likelihoods of several kinds: {kinds}"
        return next(iter(kinds), ""), [value for _, value in found]


@cache
def record(name: str) -> Record:
    return Record(name)


def shown(value: float, places: int) -> str:
    text = f"{value:,.{places}f}"
    return text.replace("-", MINUS) if float(text.replace(",", "")) else text.removeprefix("-")


def mean(values: Sequence[float], places: int) -> str:
    """With an interval where there are seeds enough for one."""
    if not values:
        return "–"
    half = half_width(values)
    return shown(statistics.fmean(values), places) + (f" ±{shown(half, places)}" if half is not None else "")


@dataclass(frozen=True)
class Column:
    title: str
    metric: str
    places: int
    better: str | None = None  # lower, higher, one; None: nobody is best at it
    scale: float = 1.0
    unit: str = ""
    interval: bool = True

    def drawn(self, source: Record, row: str) -> list[float]:
        return [value / self.scale for value in source.values(row, self.metric)]

    def worth(self, value: float) -> float:
        return {"lower": value, "higher": -value, "one": abs(value - 1)}[str(self.better)]

    def marks(self, source: Record, rows: Sequence[str]) -> dict[str, tuple[str, str]]:
        """What stands before and after a row's number: the best is bold, ≈ is not told apart from it, † is worse if
        seeds scatter normally. Single seeds tell nothing, so they are not marked."""
        if self.better is None:
            return {}
        drawn = {i: self.drawn(source, row) for i, row in enumerate(rows)}
        worths = {i: [self.worth(value) for value in values] for i, values in drawn.items() if values}
        if sum(len(values) > 1 for values in worths.values()) < 2:
            return {}
        # By the mean's worth, not the mean of worths: as scripts/compare.py ranks.
        ranked = {i: self.worth(statistics.fmean(drawn[i])) for i in worths}
        best = min(ranked, key=lambda i: ranked[i])
        signs = {rows[i]: ("**", "**") for i, worth in ranked.items() if worth == ranked[best]}
        for pair in pairs(worths):
            if best in (pair.a, pair.b) and (other := rows[pair.b if pair.a == best else pair.a]) not in signs:
                sign = {"apart": "", "apart if normal": " †", "not told apart": " ≈"}[pair.verdict]
                signs[other] = ("", sign)
        return signs

    def cell(self, source: Record, row: str, marks: dict[str, tuple[str, str]]) -> str:
        values = self.drawn(source, row)
        if not values:
            return "" if row in source.baselines else "–"
        before, after = marks.get(row, ("", ""))
        text = mean(values, self.places) if self.interval else shown(statistics.fmean(values), self.places)
        return f"{before}{text}{self.unit}{after}"


@dataclass(frozen=True)
class Likelihood(Column):
    """Of unlike kinds, so that nobody is best; the kind stands beside the number."""

    def cell(self, source: Record, row: str, marks: dict[str, tuple[str, str]]) -> str:
        kind, values = source.likelihood(row, self.metric)
        if not values:
            return "" if row in source.baselines else "–"
        return f"{mean(values, self.places)} {kind.replace('_', ' ')}"


def runs_table(
    source: str, columns: Sequence[Column], rows: dict[str, str], baselines: dict[str, str], sort: str | None = "fid",
    heading: str = "",
) -> list[str]:  # fmt: skip
    """A row for each configuration, the best in ``sort`` first, and below them what took no training."""
    data = record(source)
    present = [row for row in rows if row in data.rows]
    unknown = set(data.rows) - set(rows)
    assert not unknown, f"docs/measured/{source}.json: rows that have no name in scripts/docs_tables.py: {unknown}"
    if sort is not None:
        present.sort(key=lambda row: statistics.fmean(data.values(row, sort)))
    lines = [row_of([heading, *(column.title for column in columns)]), "|---|" + "---:|" * len(columns)]
    marks = [column.marks(data, present) for column in columns]
    for row in [*present, *(name for name in baselines if name in data.baselines)]:
        cells = [column.cell(data, row, signs) for column, signs in zip(columns, marks, strict=True)]
        lines.append(row_of([rows.get(row) or baselines[row], *cells]))
    return lines


# What the rows are called: names of configurations are those of the sweeps that scripts/families.sh runs.
DIGITS = {
    "gan": "GAN (DCGAN, non-saturating)",
    "stylegan2": "StyleGAN2",
    "progan": "progressive GAN",
    "hierarchical_vae": "hierarchical VAE",
    "latent_diffusion": "latent diffusion",
    "flow": "flow (RealNVP)",
    "vae": "VAE",
    "transformer_codes": "transformer of codes",
    "diffusion": "diffusion (U-Net, EDM)",
    "transformer_pixels": "transformer of pixels",
    "masked_codes": "masked, of codes",
    "consistency": "diffusion, consistency",
    "masked_pixels": "masked, of pixels",
}
CIFAR = {
    "gan": "GAN (DCGAN)",
    "stylegan2": "StyleGAN2",
    "progan": "progressive GAN",
    "transformer_codes": "transformer of codes (VQ-VAE 300 s, itself 300 s)",
    "diffusion": "diffusion (EDM, small U-Net)",
    "vae": "VAE",
}
BASELINES = {
    "floor": "real training images: the floor",
    "copies": "copies of training images",
    "class_gaussian": "a Gaussian for each class",
    "class_means": "the mean image of each class",
    "uniform_noise": "uniform noise",
}
FID = Column("FID ↓", "fid", 2, "lower")
KID = Column("KID ↓", "kid", 4, "lower")
PRECISION = Column("precision ↑", "precision", 2, "higher")
RECALL = Column("recall ↑", "recall", 2, "higher")
AS_ASKED = Column("label accuracy ↑", "label_accuracy", 3, "higher")
DISTANCE = Column("distance →1", "nn_distance_ratio", 2, "one")
BITS = Likelihood("bits/dim ↓", "bits_per_dim", 3)
PROBED = Column("accuracy of the probe ↑", "text_probe_val", 3, "higher")
PARAMETERS = Column("parameters", "parameters", 2, scale=1e6, unit=" M", interval=False)
EXAMPLES = Column("examples", "examples", 0, scale=1e3, unit=" k", interval=False)
FLOPS = Column("TFLOP", "flops", 1, scale=1e12, interval=False)
SPEED = Column("samples/s", "samples_per_second", 0)
EVALUATIONS = Column("evaluations", "evaluations_per_sample", 0, interval=False)


def some(names: Sequence[str]) -> dict[str, str]:
    return {name: BASELINES[name] for name in names}


def told_apart(source: str, metric: str, names: dict[str, str]) -> list[str]:
    """In words, which configurations of a record differ by more than luck."""
    data = record(source)
    rows = list(data.rows)
    column = Column(metric, metric, 2, "lower")
    found = pairs({i: column.drawn(data, row) for i, row in enumerate(rows)})
    apart = sorted((pair for pair in found if pair.verdict != "not told apart"), key=lambda pair: pair.told)
    label = data.full_name(metric)
    start = f"Of the {len(found)} pairs, corrected for all of them, "
    if not apart:
        return [f"{start}none is told apart in `{label}`."]
    assert all(pair.by_welch for pair in apart) or not any(pair.by_welch for pair in apart)
    test = "by Welch's test, which believes that seeds scatter normally" if apart[0].by_welch else "by permutation"
    verb = "is" if len(apart) == 1 else "are"
    listed = "; ".join(in_words(apart, [names[row] for row in rows]))
    return [
        f"{start}{len(apart)} {verb} told apart in `{label}` {test}, at the level {LEVEL:g}: {listed}. "
        "The others are not."
    ]


def in_words(apart: Sequence[Pair], names: Sequence[str]) -> Iterator[str]:
    """For each row that is worse than others: which, and how likely such a difference is by chance."""
    below: dict[int, list[Pair]] = {}
    for pair in apart:
        below.setdefault(pair.b if pair.difference < 0 else pair.a, []).append(pair)
    for high, found in sorted(below.items(), key=lambda item: -len(item[1])):
        others = [names[pair.a if pair.b == high else pair.b] for pair in found]
        chances = sorted({f"{pair.told:.2g}" for pair in found}, key=float)
        listed = ", ".join(others[:-1]) + " and " * (len(others) > 1) + others[-1]
        yield f"{names[high]} above {listed} (p = {chances[0]}{f' to {chances[-1]}' * (len(chances) > 1)})"


TEXT_MODELS = {
    "transformer": "`transformer`: the next token",
    "masked_language": "`masked_language`: hidden tokens",
    "random": "random weights",
}
SHAKESPEARE = {
    "nanogpt": "nanoGPT's own code, lr 1e-3",
    "gpt2_parts": "the same network and settings here (`experiment=shakespeare_char_cpu`)",
    "lr": "lr 2e-3, betas 0.9 and 0.95",
    "rotary": "rotary positions",
    "rmsnorm": "RMSNorm",
    "qk_norm": "normalized queries and keys",
    "swiglu": "SwiGLU",
    "muon": "Muon, lr 4e-3",
    "identity": "blocks that start as the identity (`experiment=shakespeare_cpu`)",
}
SHORT_SHAKESPEARE = {
    "nanogpt": "nanoGPT's own code, on the same core",
    "gpt2_parts": "the same network here: `experiment=shakespeare_char_cpu`",
    "identity": "today's parts and Muon: `experiment=shakespeare_cpu`",
}
SPEEDS = {
    "nanogpt": "nanoGPT, float32",
    "gpt2_parts": "GPT-2's parts here, float32",
    "gpt2_parts_bf16": "GPT-2's parts here, bf16",
    "todays_parts": "today's parts, float32",
    "todays_parts_bf16": "today's parts, bf16",
}


def shakespeare() -> list[str]:
    data = record("shakespeare")
    lines = ["| | seeds | loss | this change, of seed 0 |", "|---|---:|---:|---:|"]
    before = math.nan
    for row, label in SHAKESPEARE.items():
        values = data.values(row, "loss")
        now = values[0]  # most rows have no other, and a difference is of one seed
        change = "" if math.isnan(before) else ("+" if now > before else "") + shown(now - before, 3)
        lines.append(row_of([label, str(len(values)), mean(values, 3), change]))
        before = now
    return lines


def shakespeare_short() -> list[str]:
    data = record("shakespeare")
    rows = [(label, data.values(row, "loss")) for row, label in SHORT_SHAKESPEARE.items()]
    return ["| | seeds | loss |", "|---|---:|---:|",
            *(row_of([label, str(len(values)), mean(values, 3)]) for label, values in rows)]  # fmt: skip


def shakespeare_speed() -> list[str]:
    """Tokens a second, and what 2000 steps of 12 x 64 tokens take at that speed."""
    data = record("shakespeare_speed")
    lines = ["| 4 layers, 128 wide, context 64, batch 12 | tokens/s | | 2000 steps |", "|---|---:|---:|---:|"]
    (first,) = data.values("nanogpt", "tokens_per_second")
    for row, label in SPEEDS.items():
        (speed,) = data.values(row, "tokens_per_second")
        lines.append(row_of([label, shown(speed, 0), f"{speed / first:.2f}", f"{2000 * 12 * 64 / speed:.0f} s"]))
    return lines


def intervals() -> list[str]:
    content = json.loads((MEASURED / "intervals.json").read_text(encoding="utf-8"))["coverage"]
    names = list(next(iter(content.values())))
    lines = [row_of(["seeds", *names]), "|---:|" + "---:|" * len(names)]
    return lines + [row_of([seeds, *(f"{share:.0%}" for share in row.values())]) for seeds, row in content.items()]


def false_alarms() -> list[str]:
    """In words: how often luck is called a difference."""
    content = json.loads((MEASURED / "intervals.json").read_text(encoding="utf-8"))["false_alarms"]
    shares = ((seeds, [100 * share for share in row.values()]) for seeds, row in content.items())
    told = [f"{min(row):.0f} to {max(row):.0f} % with {seeds} seeds" for seeds, row in shares]
    kinds = list(next(iter(content.values())))
    return [f"Among four equal configurations any pair was told apart, by the rule above, in {', '.join(told)}",
            f"(of 300 comparisons each; draws are {', '.join(kinds[:-1])}, and {kinds[-1]})."]  # fmt: skip


def photographs() -> list[str]:
    data = record("photographs")
    (trained,) = data.rows["trained"]
    seconds, examples = trained["costs"]["seconds"], trained["costs"]["examples"]
    rows = {
        "untrained": "the untrained network (`budget=examples budget.value=32`)",
        "trained": f"after {seconds:,.0f} s, {examples:,} examples (one seed)",
        "class_gaussian": "a full-covariance Gaussian for each class",
        "floor": "real training images (the floor)",
    }
    lines = ["| `fid_random256_1k`, against the training pictures | FID |", "|---|---:|"]
    return lines + [row_of([label, shown(data.values(row, "fid")[0], 3)]) for row, label in rows.items()]


def default_run() -> list[str]:
    """`make run`, by seed of its training."""
    columns = [FID, KID, PRECISION, RECALL, AS_ASKED, DISTANCE]
    label = f"**the default run** ({len(record('default').rows['default'])} seeds)"
    return runs_table("default", columns, {"default": label}, BASELINES)


TABLES: dict[str, Callable[[], list[str]]] = {
    "default": default_run,
    "photographs": photographs,
    "intervals": intervals,
    "false alarms": false_alarms,
    "families": lambda: runs_table(
        "digits", [FID, RECALL, AS_ASKED, DISTANCE, SPEED], DIGITS, some(["floor", "class_gaussian"])
    ),
    "digits": lambda: runs_table(
        "digits", [FID, KID, PRECISION, RECALL, AS_ASKED, DISTANCE, BITS, PARAMETERS, EXAMPLES, FLOPS, SPEED],
        DIGITS, BASELINES,
    ),
    "digits one seed": lambda: runs_table(
        "digits_one_seed", [FID, KID, PRECISION, RECALL, AS_ASKED, DISTANCE, BITS, PARAMETERS, EXAMPLES, SPEED],
        DIGITS, {},
    ),
    "digits report": lambda: runs_table(
        "digits", [FID, RECALL, AS_ASKED, DISTANCE, BITS, PARAMETERS, FLOPS, SPEED],
        DIGITS, some(["floor", "class_gaussian"]),
    ),
    "digits told apart": lambda: told_apart("digits", "fid", DIGITS),
    "cifar10": lambda: runs_table(
        "cifar10", [Column("FID ↓", "fid", 3, "lower"), KID, PARAMETERS, FLOPS, EXAMPLES, SPEED, EVALUATIONS],
        CIFAR, some(["floor", "class_gaussian"]),
    ),
    "text representations": lambda: runs_table(
        "text_representations", [PROBED, PARAMETERS, EXAMPLES, FLOPS], TEXT_MODELS, {}, None,
    ),
    "shakespeare": shakespeare,
    "shakespeare short": shakespeare_short,
    "shakespeare speed": shakespeare_speed,
    **docs_benchmarks.TABLES,
    **docs_captions.TABLES,
    **docs_control.TABLES,
    **docs_finetune.TABLES,
    **docs_gans.TABLES,
    **docs_image_rewards.TABLES,
    **docs_representations.TABLES,
    **docs_rlhf.TABLES,
    **docs_rewards.TABLES,
    **docs_transfer.TABLES,
}  # fmt: skip

_TABLE = re.compile(r"(<!-- table: (?P<name>[^>]+?) -->\n)(?P<body>.*?)(?P<end><!-- end -->)", re.S)
_NUMBERS = re.compile(r"(?P<mark><!-- numbers: (?P<sources>[^>]+?) -->\n)(?P<text>(?:[^\n]+\n?)+)")
_DECIMAL = re.compile(rf"`[^`]*`|\[[^\]]*\]\([^)]*\)|[-{MINUS}]?(?<![\w.])\d[\d,]*\.\d+(?!\.?\d)")


def rewritten(text: str, where: str) -> str:
    """A page with its tables and numbers from the records. Raises ValueError for a mark that cannot be followed."""

    def table(match: re.Match[str]) -> str:
        if match["name"] not in TABLES:
            raise ValueError(f"{where}: there is no table {match['name']!r}. There are: {', '.join(TABLES)}.")
        return match[1] + "\n".join(TABLES[match["name"]]()) + "\n" + match["end"]

    def numbers(match: re.Match[str]) -> str:
        name, *wanted = match["sources"].split()
        left = list(wanted)

        def number(found: re.Match[str]) -> str:
            old = found[0]
            if old[0] in "`[":
                return old
            if not left:
                raise ValueError(f"{where}: {old} stands in a paragraph whose numbers are only: {match['sources']}")
            source = left.pop(0)
            if source == "-":
                return old
            value = quoted(name, source, where)
            return shown(value, len(old.partition(".")[2]))

        body = _DECIMAL.sub(number, match["text"])
        if left:
            raise ValueError(f"{where}: no number is left in the paragraph for {' '.join(left)}")
        return match["mark"] + body

    if text.count("<!-- table:") != len(_TABLE.findall(text)):
        raise ValueError(f"{where}: a table has no end: write <!-- end --> below it.")
    return _NUMBERS.sub(numbers, _TABLE.sub(table, text))


def quoted(name: str, source: str, where: str) -> float:
    """``gan.fid``, a mean over seeds; ``gan.fid.half``, half the width of its interval; ``gan.bits_per_dim``;
    ``lowest.fid.half`` and ``highest.fid.half`` of all configurations."""
    row, metric, *which = source.split(".")
    data = record(name)
    try:
        rows = list(data.rows) if row in ("lowest", "highest") else [row]
        drawn = [data.likelihood(r)[1] if metric == "bits_per_dim" else data.values(r, metric) for r in rows]
    except KeyError:
        raise ValueError(f"{where}: docs/measured/{name}.json has no row {row}.") from None
    found = [half_width(values) if which == ["half"] else statistics.fmean(values) for values in drawn if values]
    numbers = [value for value in found if value is not None]
    if not numbers:
        raise ValueError(f"{where}: docs/measured/{name}.json has no {'.'.join([metric, *which])} of {row}.")
    return max(numbers) if row == "highest" else min(numbers)


def pages() -> list[Path]:
    return [path for pattern in PAGES for path in sorted(REPOSITORY.glob(pattern))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something would change")
    check = parser.parse_args().check
    changed = []
    for path in pages():
        before = path.read_text(encoding="utf-8")
        try:
            after = rewritten(before, str(path.relative_to(REPOSITORY)))
        except ValueError as error:
            sys.exit(f"error: {error}")
        if after != before:
            changed.append(str(path.relative_to(REPOSITORY)))
            if not check:
                path.write_text(after, encoding="utf-8")
    print(f"{'not as measured' if check else 'rewritten'}: {', '.join(changed) or 'none'}")
    if check and changed:
        sys.exit("error: run `python scripts/docs_tables.py`, and read what stands around the numbers that changed.")


if __name__ == "__main__":
    main()
