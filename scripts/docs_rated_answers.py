"""What docs/preferences.md needs beside genlab's commands: a small language, and a rater with two wishes.

    python scripts/docs_rated_answers.py write data/ --noise 0.2       # chats.jsonl, pairs.jsonl, and held-out prompts
    python scripts/docs_rated_answers.py compare data/ before/ after/  # how often a run's answers are liked better

A question is a word, such as "bead?". Answers repeat it in capitals or not, backwards or not; all are of one length.
The rater likes capitals, and likes the word backwards: an answer has as many points as wishes that it fulfils, and of
two answers the better one is chosen with the probability of Bradley and Terry, 1 / (1 + exp(-2 points)). ``--noise`` is
the share of judgments that are turned round after that, at random.
"""

import argparse
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from genlab.checkpoint import read
from genlab.config.tree import resolved
from genlab.data.chat_tokens import ChatTokens
from genlab.model.answering import answers
from genlab.run import run_folder
from genlab.run.assemble import load_tokenizer
from genlab.run.load import load_run, load_template

LETTERS = "abcdefgh"
SURE = 2.0  # the log-odds that a point is worth


def words(count: int, seed: int, known: frozenset[str] = frozenset()) -> list[str]:
    """Different ones, of three to six letters, none of them a palindrome."""
    draw, found = random.Random(seed), dict[str, None]()
    while len(found) < count:
        word = "".join(draw.choice(LETTERS) for _ in range(draw.randint(3, 6)))
        if word != word[::-1] and word not in known:
            found[word] = None
    return [*found]


def styles(word: str) -> list[str]:
    return [word, word[::-1], word.upper(), word[::-1].upper()]


def points(word: str, answer: str) -> int:
    """Wishes that are fulfilled; none by what is no answer at all."""
    return styles(word).index(answer).bit_count() if answer in styles(word) else -1


def write(out: Path, noise: float, seed: int, chats: int = 3000, pairs: int = 2000, held_out: int = 200) -> None:
    out.mkdir(parents=True, exist_ok=True)
    all_words = words(1500 + held_out, seed=0)
    known, draw = all_words[held_out:], random.Random(seed)
    said = [(word, draw.choice(styles(word))) for word in draw.choices(known, k=chats)]
    _lines(out / "chats.jsonl", ({"messages": _talk(f"{word}?", answer)} for word, answer in said))
    rows = []
    for word in draw.choices(known, k=pairs):
        pair = draw.sample(styles(word), 2)
        odds = SURE * (points(word, pair[0]) - points(word, pair[1]))
        if (draw.random() > 1 / (1 + math.exp(-odds))) != (draw.random() < noise):
            pair.reverse()
        rows.append({"prompt": f"{word}?", "chosen": pair[0], "rejected": pair[1]})
    _lines(out / "pairs.jsonl", rows)
    _lines(out / "prompts.jsonl", ({"prompt": f"{word}?"} for word in all_words[:held_out]))


def _talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _lines(path: Path, rows: object) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))  # type: ignore[attr-defined]


def answered(run: Path, asked: Sequence[str], seed: int) -> list[str]:
    """One answer of a run to each question."""
    config = OmegaConf.create(run_folder.read_config(run))
    model, _ = load_run(config, run)
    template = load_template(run)
    assert template is not None, f"{run} was not trained on conversations"
    chat = ChatTokens(template, load_tokenizer(resolved(config), read.newest(run), run))  # type: ignore[arg-type]
    prompts = [chat.prompt([{"role": "user", "content": text}], "a question") for text in asked]
    model.eval()
    found = answers(model, prompts, range(len(prompts)), seed, chat.end, len(prompts))  # type: ignore[arg-type]
    return [chat.tokenizer.decode(tokens) for batch in found for tokens in batch]


def compare(data: Path, before: Path, after: Path, seed: int) -> None:
    asked = [json.loads(line)["prompt"] for line in (data / "prompts.jsonl").read_text().splitlines()]
    scores = []
    for run, own in ((before, seed), (after, seed + 1)):
        scores.append(
            [points(text[:-1], answer) for text, answer in zip(asked, answered(run, asked, own), strict=True)]
        )
    old, new = scores
    wins = [(b > a) + (b == a) / 2 for a, b in zip(old, new, strict=True)]
    told = {"wins": sum(wins) / len(wins), "best": sum(b == 2 for b in new) / len(new),
            "no_answer": sum(b < 0 for b in new) / len(new)}  # fmt: skip
    print(json.dumps({name: round(value, 4) for name, value in told.items()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("write")
    one.add_argument("out", type=Path)
    one.add_argument("--noise", type=float, default=0.0)
    one.add_argument("--seed", type=int, default=0)
    one = commands.add_parser("compare")
    for name in ("data", "before", "after"):
        one.add_argument(name, type=Path)
    one.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    {"write": write, "compare": compare}[options.pop("command")](**options)


if __name__ == "__main__":
    main()
