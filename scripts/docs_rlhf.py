"""The tables and figures of docs/rlhf.md, from the runs of scripts/policies.sh and scripts/loop_example.sh.

python scripts/docs_rlhf.py record ROOT   # of scripts/policies.sh: docs/measured/policies.json and a figure
python scripts/docs_rlhf.py loop ROOT     # of scripts/loop_example.sh: a table, and ROOT/gamed.png
"""

import csv
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from docs_rows import MEASURED, REPOSITORY, row_of
from genlab.report.significance import half_width

RECORD = MEASURED / "policies.json"
LEARNERS = {
    "sft": "500 answers",
    "continued": "the same, continued",
    "grpo": "then the checker: GRPO",
    "rloo": "then the checker: RLOO",
    "ppo": "then the checker: PPO",
}
LAST = 20  # steps of the log whose mean is given for the end of a run

POLICIES = ("grpo-0.3", "grpo-0.03", "grpo-0.003", "ppo-0.03")
NAMES = {
    "grpo-0.3": "GRPO, beta 0.3",
    "grpo-0.03": "GRPO, beta 0.03",
    "grpo-0.003": "GRPO, beta 0.003",
    "ppo-0.03": "PPO, beta 0.03",
}
BEST_OF = (4, 16)
COLUMNS = ("wishes fulfilled, of 2", "reward model", "held-back judge", "KL, nats", "letters", "different answers")


# --- learning from a checker ------------------------------------------------------------------------------------------


def record(root: Path) -> None:
    """What every run of ``ROOT/<row>/<seed>`` measured, at its end and on the way."""
    found = [(row, run) for row in LEARNERS for run in sorted((root / row).iterdir())]
    runs = [{"row": row, "seed": int(run.name), **_measured(run)} for row, run in found]
    versions = json.loads((root / "sft" / "0" / "versions.json").read_text(encoding="utf-8"))
    content = {
        "about": "sums of three numbers: answers, then a checker, three seeds",
        "hardware": "{cpu}, {cores} cores".format(**versions["hardware"]),
        "revision": versions["revision"],
    }
    text = json.dumps({**content, "runs": []}, indent=1).removesuffix("[]\n}")
    lines = ",\n".join(f"  {json.dumps(run)}" for run in runs)
    RECORD.write_text(f"{text}[\n{lines}\n ]\n}}\n", encoding="utf-8")
    draw_policies()


def _measured(run: Path) -> dict[str, Any]:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    values = {"right": summary["metrics"]["exact_match_val"]}
    for path in run.glob("evaluation-*.json"):
        for name, value in json.loads(path.read_text(encoding="utf-8"))["metrics"].items():
            if name.endswith("_of_n_8_val"):
                values[name.removesuffix("_8_val")] = value
    logged: dict[str, list[float]] = {"kl": [], "length": [], "entropy": []}
    curve = []
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            for name, found in logged.items():
                if line.get(f"train/{name}"):
                    found.append(float(line[f"train/{name}"]))
            if line.get("val/exact_match_val"):
                curve.append([float(line["progress/flops"]), float(line["val/exact_match_val"])])
    values |= {name: statistics.fmean(found[-LAST:]) for name, found in logged.items() if found}
    rounded = {name: float(f"{value:.5g}") for name, value in values.items()}
    cost = {"flops": float(f"{summary['flops']:.4g}"), "examples": summary["examples"]}
    return {**cost, **rounded, "curve": [[float(f"{x:.4g}"), float(f"{y:.4g}")] for x, y in curve]}


def policies() -> list[str]:
    """Right answers to held-out problems, of one answer and of eight, and how far from the beginning."""
    runs = json.loads(RECORD.read_text(encoding="utf-8"))["runs"]
    columns = ("right", "best_of_n", "most_frequent_of_n", "kl", "length", "flops")
    lines = [
        row_of(["learned from", "right, %", "best of 8, %", "most frequent of 8, %", "KL, nats", "tokens", "FLOPs"]),
        "|---|" + "---:|" * len(columns),
    ]
    for row, name in LEARNERS.items():
        mine = [run for run in runs if run["row"] == row]
        lines.append(row_of([name, *(_cell(mine, column) for column in columns)]))
    return lines


def _cell(runs: Sequence[dict[str, Any]], column: str) -> str:
    if any(column not in run for run in runs):
        return ""
    values = [run[column] for run in runs]
    if column == "flops":
        return f"{statistics.fmean(values):.1e}"
    scale, digits = (100, 1) if column not in ("kl", "length") else (1, 2)
    return f"{scale * statistics.fmean(values):.{digits}f} ±{scale * half_width(values):.{digits}f}"


def draw_policies() -> None:
    """Right answers over FLOPs after the first model, of each seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    runs = json.loads(RECORD.read_text(encoding="utf-8"))["runs"]
    began = {run["seed"]: run["right"] for run in runs if run["row"] == "sft"}
    figure, pane = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for color, row in zip(("gray", "tab:blue", "tab:orange", "tab:green"), list(LEARNERS)[1:], strict=True):
        for run in [run for run in runs if run["row"] == row]:
            curve = [[0.0, began[run["seed"]]], *run["curve"]]
            label = LEARNERS[row] if run["seed"] == 0 else None
            pane.plot(*zip(*curve, strict=True), ".-", color=color, linewidth=1, label=label)
    pane.set_xlabel("FLOPs after the first model")
    pane.set_ylabel("right answers, held-out problems")
    pane.legend(fontsize=8)
    figure.savefig(REPOSITORY / "docs" / "images" / "policies.png", dpi=110)


TABLES: dict[str, Callable[[], list[str]]] = {"policies": policies}


# --- the loop ---------------------------------------------------------------------------------------------------------


class Judges:
    """The rater, the reward model and the one that was held back, of a seed."""

    def __init__(self, root: Path, seed: str):
        from omegaconf import DictConfig

        from genlab.run.assemble import build_data
        from genlab.run.load import load_run
        from genlab.run.run_folder import read_config

        self.data: Any = build_data(DictConfig(read_config(root / "answers")))
        self.models = {}
        for name in ("some", "all"):
            run = root / f"reward-{name}" / seed
            self.models[name], _ = load_run(DictConfig(read_config(run)), run)

    def rewards(self, name: str, said: Sequence[tuple[str, str]]) -> np.ndarray:
        """(N,), of prompts and answers."""
        import torch

        found = []
        for start in range(0, len(said), 256):
            rows = [
                self.data.chat.conversation(
                    [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer or " "}], "an answer"
                )[0][: self.data.context]
                for prompt, answer in said[start : start + 256]
            ]
            tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
            last = torch.zeros(len(rows), dtype=torch.long)
            for i, row in enumerate(rows):
                ends = np.flatnonzero(row == self.data.chat.end)
                tokens[i, : len(row)], last[i] = torch.from_numpy(row), int(ends[-1]) if len(ends) else len(row) - 1
            with torch.no_grad():
                found.append(self.models[name].answer_rewards(tokens, last, torch.zeros_like(last)).mean(dim=0))
        return torch.cat(found).numpy()

    def row(self, said: Sequence[tuple[str, str]], divergence: float) -> list[float]:
        """The values of ``COLUMNS``."""
        from docs_preferences import score

        texts = [answer for _, answer in said]
        return [
            float(np.mean([score(text) for text in texts])),
            float(self.rewards("some", said).mean()),
            float(self.rewards("all", said).mean()),
            divergence,
            float(np.mean([len(text) for text in texts])),
            len({*texts}) / len(texts),
        ]


def loop(root: Path) -> None:
    """Print the table, and draw the figure."""
    from docs_preferences import answers_of

    seeds = sorted(path.name for path in (root / "dpo").iterdir())
    rows: dict[str, list[list[float]]] = {}
    drawn = [answers_of(root / "answers", "val", 10 + i, root / "answers") for i in range(max(BEST_OF))]
    for seed in seeds:
        judges = Judges(root, seed)
        rows.setdefault("the first model", []).append(judges.row(drawn[0], 0.0))
        rewards = np.stack([judges.rewards("some", said) for said in drawn])
        for n in BEST_OF:
            best = rewards[:n].argmax(axis=0)
            chosen = [drawn[k][i] for i, k in enumerate(best)]
            rows.setdefault(f"best of {n}", []).append(judges.row(chosen, float(np.log(n) - (n - 1) / n)))
        runs = [("dpo", "DPO, the same pairs"), *((run, NAMES[run]) for run in POLICIES)]
        for run, name in runs:
            said = answers_of(root / run / seed, "val", 3, root / "answers")
            rows.setdefault(name, []).append(judges.row(said, _divergence(root / run / seed)))
    print(row_of(["", *COLUMNS]))
    print("|---|" + "---:|" * len(COLUMNS))
    for name, found in rows.items():
        print(row_of([name, *map(_mean, zip(*found, strict=True))]))
    draw(root, seeds)


def _divergence(run: Path) -> float:
    """Of an answer, the mean over the last ten steps; of DPO nobody counts it by answers."""
    found = [row["train/kl"] for row in _logged(run) if row.get("train/kl") and row.get("train/length")]
    return float(np.mean([float(value) for value in found[-10:]])) if found else float("nan")


def _logged(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw(root: Path, seeds: Sequence[str]) -> None:
    """Both judges over the square root of the divergence (Gao et al. 2022, figure 1), of every policy."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panes = plt.subplots(1, len(POLICIES), figsize=(3 * len(POLICIES), 2.8), sharey=True, layout="constrained")
    for pane, run in zip(panes, POLICIES, strict=True):
        for seed in seeds:
            rows = [row for row in _logged(root / run / seed) if row.get("train/reward_gold")]
            root_kl = np.sqrt([float(row["train/kl"]) for row in rows])
            for column, color, label in (("judged", "tab:orange", "reward model"), ("gold", "tab:blue", "held back")):
                values = np.array([float(row[f"train/reward_{column}"]) for row in rows])
                pane.plot(root_kl, values, ".", color=color, markersize=2, label=label if seed == seeds[0] else None)
        pane.set_title(NAMES[run], fontsize=9)
        pane.set_xlabel("√KL")
    panes[0].set_ylabel("reward")
    panes[0].legend(fontsize=8, markerscale=4)
    figure.savefig(root / "gamed.png", dpi=110)


def _mean(values: Sequence[Any]) -> str:
    numbers = [float(value) for value in values]
    if any(np.isnan(numbers)):
        return ""
    return f"{statistics.fmean(numbers):.2f}" + (f" ±{half_width(numbers):.2f}" if len(numbers) > 1 else "")


if __name__ == "__main__":
    from genlab.machine.torchvision_ops import install

    install()
    {"loop": loop, "record": record}[sys.argv[1]](Path(sys.argv[2]))
