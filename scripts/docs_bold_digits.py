"""What docs/preferences.md needs beside genlab's commands: a rater who likes bold digits, and what became of them.

python scripts/docs_bold_digits.py judge samples/ pairs.jsonl       # more ink is preferred
python scripts/docs_bold_digits.py compare before/ after/           # mean ink, and how often there is more
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image


def ink(folder: Path) -> dict[Path, float]:
    """The mean brightness of each picture, in [0, 1]."""
    files = sorted(folder.glob("*.png"))
    return {file: float(np.asarray(Image.open(file).convert("L")).mean()) / 255 for file in files}


def judge(samples: Path, out: Path, count: int, noise: float, seed: int) -> None:
    """``noise``: the share of judgments that are turned round, at random."""
    found, draw = [*ink(samples).items()], np.random.default_rng(seed)
    with out.open("w") as file:
        for _ in range(count):
            pair = sorted((found[i] for i in draw.choice(len(found), 2, replace=False)), key=lambda one: one[1])
            if draw.random() < noise:
                pair = pair[::-1]
            rejected, chosen = (os.path.relpath(path, out.parent) for path, _ in pair)
            file.write(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n")


def compare(before: Path, after: Path) -> None:
    old, new = (np.array([*ink(folder).values()]) for folder in (before, after))
    wins = (new[:, None] > old[None]).mean() + (new[:, None] == old[None]).mean() / 2
    print(json.dumps({"ink_before": round(old.mean(), 4), "ink_after": round(new.mean(), 4), "wins": round(wins, 4)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("judge")
    one.add_argument("samples", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--count", type=int, default=2000)
    one.add_argument("--noise", type=float, default=0.0)
    one.add_argument("--seed", type=int, default=0)
    one = commands.add_parser("compare")
    one.add_argument("before", type=Path)
    one.add_argument("after", type=Path)
    options = vars(parser.parse_args())
    {"judge": judge, "compare": compare}[options.pop("command")](**options)


if __name__ == "__main__":
    main()
