"""Problems that a model is asked: what it is given, what counts, and the estimate of pass@k."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bigrams import Bigrams
from genlab.data.digits import Digits
from genlab.data.tokenizer.bytes import Bytes
from genlab.errors import ConfigError, DataError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.exact_match import ExactMatch
from genlab.metrics.pass_at_k import PassAtK, pass_at_k
from genlab.metrics.problems import read_problems, up_to
from given_text import GivenText


class Text(GivenText):
    """Tokens are bytes."""

    tokenizer = Bytes()  # type: ignore[assignment]


@pytest.fixture
def text() -> Text:
    return Text(np.arange(100), context=16, vocab_size=98)


class Knows(Bigrams):
    """Says what it was told to say after a prompt, or one of several things, as its random numbers have it; then the
    end token, and then nonsense."""

    def __init__(self, answers: dict[str, list[str]]):
        super().__init__(97)
        self.answers = answers
        self.batches: list[int] = []

    def sample(self, num_samples: int, condition: Any = None, generator: Any = None) -> Tensor:
        rows = []
        self.batches.append(num_samples)
        for prompt, u in zip(condition["prompt"].tolist(), generator.rand().tolist(), strict=True):
            choices = self.answers[Bytes().decode(prompt)]
            said = Bytes().encode(choices[int(u * len(choices))]).tolist()
            rows.append((said + [256] + [65] * 200)[:200])
        return torch.tensor(rows)


def written(path: Path, *problems: dict[str, str]) -> str:
    path.write_text("\n\n".join(json.dumps(problem) for problem in problems))
    return str(path)


# --- exact match ------------------------------------------------------------------------------------------------------

SUMS = {"1+1=": ["2"], "10+5=": ["15\n7"], "2+2=": ["5"], "3+3=": [" 6 "], "4+4=": ["8 "], "é=": ["e"]}
RIGHT = {"1+1=": "2", "10+5=": "15", "2+2=": "4", "3+3=": "6", "4+4=": "\t8", "é=": "é"}


def sums(folder: Path) -> str:
    return written(folder / "sums.jsonl", *({"prompt": p, "answer": a, "id": 3} for p, a in RIGHT.items()))  # type: ignore[dict-item]


def test_exact_match(text: Text, tmp_path: Path) -> None:
    """Up to the end token or a new line, without the spaces around: 4 of 6."""
    judge = Evaluation(None, {"exact_match": ExactMatch(sums(tmp_path))}, seed=3)
    result = judge.run(Knows(SUMS), text, weights="ema")
    assert result.values == {"exact_match_sums": pytest.approx(4 / 6)}
    assert result.directions == {"exact_match_sums": "higher"}
    settings = result.protocol["metrics"]["exact_match"]
    assert (settings["num_samples"], settings["seed"], len(settings["problems"])) == (1, 3, 16)
    again = Evaluation(None, {"exact_match": ExactMatch(sums(tmp_path))}, seed=4).run(Knows(SUMS), text, weights="ema")
    assert again.ids != result.ids


def test_answers_do_not_depend_on_batches(text: Text, tmp_path: Path) -> None:
    """And prompts of different lengths are never in one batch."""
    unsure = Knows({prompt: [RIGHT[prompt].strip(), "no", "never"] for prompt in RIGHT})
    values, metric = [], ExactMatch(sums(tmp_path), num_samples=50)
    for batch_size in (1, 7, 300):
        metric.reset()
        unsure.batches.clear()
        metric.measure(unsure, text, "val", batch_size, seed=1)
        values.append(float(metric.compute()["exact_match"]))
        assert max(unsure.batches) == min(batch_size, 200), "4 prompts have 4 bytes"
    assert values[0] == values[1] == values[2]
    assert 0.2 < values[0] < 0.5
    metric.reset()
    metric.measure(unsure, text, "val", 300, seed=2)
    assert float(metric.compute()["exact_match"]) != values[0]


def test_an_answer_ends_before_the_first_mark() -> None:
    assert up_to("ab\ncd\n#e", ["\n#", "\nc"]) == "ab"
    assert up_to("ab", ["c"]) == "ab"
    assert up_to("ab", []) == "ab"
    assert up_to("\nab", ["\n"]) == ""


# --- pass@k -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 4, 7])
def test_the_estimate_is_the_share_of_all_subsets(n: int) -> None:
    for right, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([True] * right + [False] * (n - right), k))
        assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_the_estimate_is_unbiased() -> None:
    """Its mean over what n tries may give is the chance of k, for any rate of success: by the binomial distribution."""
    from math import comb

    n, k = 8, 3
    for p in (0.1, 0.5, 0.9):
        mean = sum(comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
        assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


HEAD = 'def double(x):\n    """Twice x."""\n'
PROBLEMS = (
    {"task_id": "T/0", "prompt": HEAD, "entry_point": "double",
     "test": "def check(candidate):\n    assert candidate(3) == 6\n    assert candidate(0) == 0\n"},
    {"task_id": "T/1", "prompt": "def one():\n", "entry_point": "one",
     "test": "def check(candidate):\n    assert candidate() == 1\n"},
)  # fmt: skip


def test_pass_at_k(text: Text, tmp_path: Path) -> None:
    """The first is solved by some of the answers, which go on with what is cut off; the second never."""
    model = Knows({HEAD: ["    return 2 * x\n\nprint(1 / 0)", "    return x * x\n", "    import sys; sys.exit(0)"],
                   "def one():\n": ["    return 2", "    retur"]})  # fmt: skip
    metric = PassAtK(written(tmp_path / "two.jsonl", *PROBLEMS), allow_code=True, allow_root=True, k=[1, 4],
                     num_samples=8, seconds=60)  # fmt: skip
    result = Evaluation(None, {"pass_at_k": metric}).run(model, text, weights="ema")
    right = sum(passed(model, text, tmp_path))
    assert 0 < right < 5, "else this shows nothing"
    assert result.values == {
        "pass_at_1_two_8": pytest.approx(right / 8 / 2),
        "pass_at_4_two_8": pytest.approx(pass_at_k(8, right, 4) / 2),
    }
    assert result.protocol["metrics"]["pass_at_k"]["num_samples"] == 8


def passed(model: Knows, text: Text, folder: Path) -> list[bool]:
    """Which answers to the first problem are those that double."""
    from genlab.metrics.problems import answers

    problems = read_problems(written(folder / "again.jsonl", *PROBLEMS), ("prompt",), "pass_at_k")
    return ["2 * x" in answer for answer in dict(answers(model, text, problems, 8, (), 64, 0))[0]]


# --- what cannot be ---------------------------------------------------------------------------------------------------


def test_programs_run_if_that_is_allowed_and_not_else(text: Text, tmp_path: Path) -> None:
    path = written(tmp_path / "two.jsonl", *PROBLEMS)
    with pytest.raises(
        ConfigError, match=r"runs programs that the model writes.*set metrics\.pass_at_k\.allow_code=true"
    ):
        Evaluation(None, {"pass_at_k": PassAtK(path)}).check(Knows({}), text)


def test_problems_are_looked_at_before_training(text: Text, tmp_path: Path) -> None:
    def refused(kind: type[Exception], said: str, path: str, data: Any = text, model: Any = None) -> None:
        for metric in (ExactMatch(path), PassAtK(path, allow_code=True, allow_root=True)):
            with pytest.raises(kind, match=said):
                Evaluation(None, {"m": metric}).check(model or Knows({}), data)

    refused(ConfigError, r"problems=/no/such cannot be read", "/no/such")
    refused(DataError, "has no problems", written(tmp_path / "none"))
    refused(DataError, r"one, line 1: there is no text field prompt", written(tmp_path / "one", {"x": "y"}))
    refused(DataError, r"three, line 3: there is no text field", written(tmp_path / "three", *PROBLEMS[:1] * 0,
            {"prompt": "", "answer": "", "entry_point": "", "test": ""}, {"prompt": "x"}))  # fmt: skip
    (tmp_path / "bad").write_text("{")
    refused(DataError, r"bad, line 1: not JSON", str(tmp_path / "bad"))
    refused(ConfigError, "is for text; the data are image", sums(tmp_path), Digits())
    refused(ConfigError, "Linear does not generate text", sums(tmp_path), model=torch.nn.Linear(1, 1))


def test_an_empty_prompt_is_refused(text: Text, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a problem has an empty prompt"):
        ExactMatch(written(tmp_path / "x", {"prompt": "", "answer": ""})).measure(Knows({}), text, "val", 3)


@pytest.mark.parametrize(
    "options",
    [{"k": [0]}, {"k": []}, {"k": [21]}, {"seconds": 0}, {"memory_mb": 1}, {"workers": 0}, {"num_samples": 5}],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.pass_at_k"):
        PassAtK("x", **options)
    with pytest.raises(ConfigError, match=r"metrics\.exact_match\.num_samples"):
        ExactMatch("x", num_samples=0)
