"""A rater with two known criteria, for docs/preferences.md: conversations to begin with, judgments of a run's answers,
and how often it prefers one run's answers to another's.

    python scripts/docs_preferences.py conversations FILE
    python scripts/docs_preferences.py judge RUN train|val FILE NOISE   # NOISE: the share of wrong judgments
    python scripts/docs_preferences.py compare RUN OTHER
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from genlab.machine.torchvision_ops import install
from genlab.model.base import GenerativeModel
from genlab.run.assemble import build_data
from genlab.run.load import load_run
from genlab.run.run_folder import read_config
from genlab.task.answer import Answer

LETTERS, VOWELS = "abcdefgh", ("a", "e")
PROMPTS = [f"{letter}{number}" for letter in LETTERS for number in range(100, 500)]


def score(answer: str) -> int:
    """One for an answer that begins with a vowel, one for an answer that ends with ``!``."""
    return int(answer[:1] in VOWELS) + int(answer[-1:] == "!")


def conversations(path: Path) -> None:
    """Answers of 3 to 8 letters and a full stop or an exclamation mark, of no particular kind."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for prompt in PROMPTS:
            said = "".join(rng.choices(LETTERS, k=rng.randint(3, 8))) + rng.choice(".!")
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": said}]
            file.write(json.dumps({"messages": messages}) + "\n")


def answers_of(run: Path, split: str, seed: int, data_of: Path) -> list[tuple[str, str]]:
    """Each prompt of a split of the data of ``data_of`` with the answer of ``run``."""
    model, _ = load_run(DictConfig(read_config(run)), run)
    assert isinstance(model, GenerativeModel)
    data = build_data(DictConfig(read_config(data_of)))
    task = Answer().on(data, split)  # type: ignore[arg-type]
    indices = range(len(data.known(split)))  # type: ignore[attr-defined]
    prompts = [one.prompt[-1]["content"] for one in task.chosen(indices)]
    texts = task.draw(model, indices, seed, 256).columns["text"]
    return [(prompt, str(text)) for prompt, text in zip(prompts, texts, strict=True)]


def judge(run: Path, split: str, path: Path, noise: float) -> None:
    """Two answers of a run to each prompt of a split, and which is better; ties are marked."""
    rng = random.Random(1)
    scores, lengths = [], []
    first, second = (answers_of(run, split, seed, run) for seed in (1, 2))
    with path.open("w", encoding="utf-8") as file:
        for (prompt, one), (_, two) in zip(first, second, strict=True):
            difference = score(one) - score(two)
            scores += [score(one), score(two)]
            lengths += [len(one), len(two)]
            if not one.strip() or not two.strip():
                continue
            turned = (difference < 0) != (rng.random() < noise)
            chosen, rejected = (two, one) if turned else (one, two)
            row = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "tie": difference == 0}
            file.write(json.dumps(row) + "\n")
    print(f"correlation of score and length: {np.corrcoef(scores, lengths)[0, 1]:.3f}")


def compare(run: Path, other: Path) -> None:
    """On the held-out prompts of ``run``'s data; a tie is half a win."""
    ours = dict(answers_of(run, "val", 3, run))
    theirs = dict(answers_of(other, "val", 4, run))
    wins = [(np.sign(score(ours[p]) - score(theirs[p])) + 1) / 2 for p in ours]
    mean, error = float(np.mean(wins)), float(np.std(wins) / len(wins) ** 0.5)
    lengths = [np.mean([len(said[p]) for p in ours]) for said in (ours, theirs)]
    print(f"win rate {mean:.3f} +- {1.96 * error:.3f} on {len(wins)} held-out prompts; letters an answer "
          f"{lengths[0]:.1f}, before {lengths[1]:.1f}")  # fmt: skip


if __name__ == "__main__":
    install()
    kind, *given = sys.argv[1:]
    if kind == "conversations":
        conversations(Path(given[0]))
    elif kind == "judge":
        judge(Path(given[0]), given[1], Path(given[2]), float(given[3]))
    else:
        compare(Path(given[0]), Path(given[1]))
