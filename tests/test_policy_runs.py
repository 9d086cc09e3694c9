"""Runs that learn from rewards: what they are judged by, killed at any moment, on two ranks, and what is refused."""

import csv
import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from chats import SMALL, lines
from genlab.callbacks.policy_failures import PolicyFailures
from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.command import train as training
from genlab.data.conversation import Conversation
from genlab.errors import ConfigError, GenlabError
from genlab.metrics.best_of_n import BestOfN
from genlab.rewards.checker import Checker
from genlab.rewards.doctests import Doctests, examples_in, program
from genlab.rewards.judged import Judged
from genlab.rewards.rules import Ended, Format, Length
from preferred import pairs
from remedies import root_without_bubblewrap
from test_ddp import finish
from tiny_run import only_run, popen, resume, same, start, train

PROMPTS = 40
ANSWERS = ("model.answers=4", "model.sample_length=6", "callbacks.samples.times=0", "budget.value=32",
           "callbacks.evaluation.times=0")  # fmt: skip
# Of an answer, what it begins with decides: random networks are rewarded differently for their answers to one prompt.
FORM = ("model/rewards=[format]", 'model.rewards.format.pattern="[a-z ].*"')
KILLED = """
import genlab
import json, os, signal, sys
from pathlib import Path
import tiny_run
from genlab.model.policy import Policy
name, wanted = sys.argv[3], int(sys.argv[4])
before, calls = getattr(Policy, name), []
def killed(self, *given, **more):
    calls.append(1)
    if len(calls) == wanted:
        os.kill(os.getpid(), signal.SIGKILL)
    return before(self, *given, **more)
setattr(Policy, name, killed)
tiny_run.train(*json.loads(sys.argv[1]), outputs=Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def began(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The data, and a run of them as conversations."""
    folder = tmp_path_factory.mktemp("asked")
    path = lines(({"prompt": f"{i}?", "answer": f"{i}"} for i in range(PROMPTS)), folder / "prompts.jsonl")
    data = ("data=prompts", f"data.path={path}", f"data.cache_dir={folder / 'cache'}", "data.context=48",
            "data.template=plain", "data.batch_size=8", *SMALL)  # fmt: skip
    run = train("model=transformer", *data, "data.packing=false", "budget.value=8", outputs=folder / "text")
    return ("model=policy", *data, *ANSWERS, f"start={run}")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    return train("model=reward", *pairs(folder), "data.template=plain", *SMALL, "model.members=2", "budget.value=8",
                 outputs=folder / "runs")  # fmt: skip


def state(run: Path) -> dict[str, Any]:
    content = read.newest(run).content
    return {key: content[key] for key in ("state_dict", "ema", "optimizer_states")}


def columns(run: Path) -> list[str]:
    with (run / "metrics.csv").open() as file:
        return next(csv.reader(file))


# --- rewards ----------------------------------------------------------------------------------------------------------


def answers(*texts: str, **others: Any) -> Any:
    given = {"data": SimpleNamespace(), "split": "train", "numbers": [*range(len(texts))], "texts": texts}
    return SimpleNamespace(**(given | others))


def test_rules() -> None:
    found = answers("12", "x", "", length=torch.tensor([3, 2, 6]), ended=torch.tensor([True, True, False]), limit=6)
    assert Length().score(found).tolist() == pytest.approx([0.5, 1 / 3, 1.0])
    assert Ended().score(found).tolist() == [1, 1, 0]
    assert Format(r"\d+").score(found).tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match=r"pattern='\(' is no regular expression"):
        Format("(")


def test_a_checker_gives_its_score_or_whether_it_is_full() -> None:
    data = SimpleNamespace(known=lambda split: ["a", "b"], score=lambda one, text, split: len(text) / 4)
    given = answers("1234", "12", data=data)
    assert Checker().score(given).tolist() == [1.0, 0.5]
    assert Checker(whole=True).score(given).tolist() == [1.0, 0.0]


ASKED = 'def double(x):\n    """Twice x.\n\n    >>> double(2)\n    4\n    >>> double("a")\n    \'aa\'\n    """\n'


def asking(prompt: str) -> Conversation:
    return Conversation(({"role": "user", "content": prompt}, {"role": "assistant", "content": "-"}), "line 1")


def test_programs_pass_their_examples() -> None:
    assert examples_in(ASKED) == [("double(2)", "4"), ('double("a")', "'aa'")]
    for body, passes in (("    return 2 * x\n", True), ("    return 4\n", False), ("    return (", False),
                         ("    return 2 * x\nrepr = lambda x: '4'\n", True)):  # fmt: skip
        try:
            exec(program(ASKED, body), {})
            assert passes, body
        except (AssertionError, SyntaxError):
            assert not passes, body
    cheat = program(ASKED, "    return 5\n\nexamples = []\nrepr = str = lambda x: '4'\n")
    with pytest.raises(AssertionError):
        exec(cheat, {})


def test_programs_run_in_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    reward = Doctests(allow_code=True, allow_root=True)
    data = SimpleNamespace(splits=("train",), known=lambda split: [asking(ASKED)])
    reward.check(data)
    given = answers("    return 2 * x\n", "    while True: pass\n", data=data, numbers=[0, 0])
    assert reward.score(given).tolist() == [1, 0]
    with pytest.raises(ConfigError, match=r"the prompt of line 1 has no example"):
        reward.check(SimpleNamespace(splits=("train",), known=lambda split: [asking("Write it.")]))


def test_a_reward_model_judges_and_another_is_held_back(began: tuple[str, ...], judge: Path, tmp_path: Path) -> None:
    """They stand in files of the run that learns from them, which goes on without theirs."""
    run = train(*began, "model/rewards=[judged,gold]", f"model.rewards.judged.model={judge}",
                f"model.rewards.gold.model={judge}", "model.rewards.judged.caution=0.5", outputs=tmp_path)  # fmt: skip
    assert len([*(run / "parts").iterdir()]) == 1
    assert {"train/reward", "train/reward_judged", "train/reward_gold", "train/kl", "val/reward_gold"} <= {
        *columns(run)
    }
    kept = read.newest(run).state
    assert {name.partition(".")[0] for name in kept} == {"network", "reference"}
    resume(run, "budget.value=40")
    assert read.newest(run).progress.examples == 40


def test_a_judge_reads_the_end_of_an_answer() -> None:
    class Network(torch.nn.Module):
        shape, members = (9,), 2

        def answer_rewards(self, tokens: Any, last: Any, padding: Any) -> Any:
            read = tokens[torch.arange(len(tokens)), last].float()
            return torch.stack([read, read + 2])

    judged = object.__new__(Judged)
    judged.model, judged.caution = Network(), 1.0
    given = SimpleNamespace(sequences=torch.tensor([[0, 5, 7, 0], [3, 6, 8, 9]]), last=torch.tensor([2, 3]),
                            padding=torch.tensor([1, 0]))  # fmt: skip
    assert judged.score(given).tolist() == pytest.approx([8 - 2**0.5, 10 - 2**0.5])
    with pytest.raises(ConfigError, match=r"sees 9 tokens at once, and data.context=48\. Use data.context=9\."):
        judged.check(SimpleNamespace(context=48))


# --- promises ---------------------------------------------------------------------------------------------------------


def test_with_an_adapter_the_reference_is_the_network_without_it(began: tuple[str, ...], tmp_path: Path) -> None:
    run = train(*began, *FORM, "model/adapter=lora", "model.adapter.rank=2", outputs=tmp_path)
    kept = read.newest(run).state
    first = read.newest(Path(began[-1].removeprefix("start="))).content["ema"]
    assert {name.partition(".")[0] for name in kept} == {"network"}
    dense = {name: value for name, value in kept.items() if name in first}
    assert dense
    assert same(dense, {name: first[name] for name in dense})
    assert "train/kl" in columns(run)


MOMENTS = [("grpo", "rolled_out", 3), ("grpo", "_step", 6), ("ppo", "rolled_out", 3), ("ppo", "_step", 6)]


@pytest.mark.matrix  # processes of their own
@pytest.mark.parametrize(("objective", "name", "call"), MOMENTS)
def test_killed_in_mid_rollout_and_mid_update(
    objective: str, name: str, call: int, began: tuple[str, ...], tmp_path: Path
) -> None:
    """And continued, bit for bit."""
    typed = [*began, *FORM, f"model/objective={objective}", "model.passes=2", "model.minibatches=2",
             "callbacks.checkpoint.every_minutes=0.00001"]  # fmt: skip
    whole = train(*typed, outputs=tmp_path / "whole")
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "killed.py"), json.dumps(typed), str(tmp_path / "runs"), name, str(call)]
    process = popen(command)
    _, said = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, said
    run = only_run(tmp_path / "runs")
    assert 0 < read.newest(run).progress.examples < 32
    resume(run)
    assert same(state(run), state(whole))
    assert read.newest(run).progress.flops == read.newest(whole).progress.flops


@pytest.mark.matrix  # two processes that start anew
@pytest.mark.parametrize("objective", ["grpo", "ppo"])
def test_two_ranks_take_the_steps_of_one(objective: str, began: tuple[str, ...], tmp_path: Path) -> None:
    given = (*began, *FORM, f"model/objective={objective}", "model.passes=2", "model.minibatches=2")
    alone = read.newest(train(*given, outputs=tmp_path / "one"))
    finish(start(*given, "trainer=ddp_cpu", outputs=tmp_path / "two"))
    together = read.newest(only_run(tmp_path / "two"))
    assert together.progress.examples == alone.progress.examples
    for name, value in alone.state.items():
        torch.testing.assert_close(together.state[name], value, rtol=0, atol=1e-6)


# --- what is refused --------------------------------------------------------------------------------------------------


class Trained(BaseException):
    """Training would have begun: nothing was refused."""


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: object) -> None:
        raise Trained

    monkeypatch.setattr(training, "fit", begin)


def refused(*typed: str, outputs: Path) -> str:
    with pytest.raises(GenlabError) as caught:
        command_line(["train", "trainer=cpu", "logger=[none]", *typed, f"outputs={outputs}"])
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert not outputs.exists()
    return str(caught.value)


def begins(*typed: str, outputs: Path) -> None:
    with pytest.raises(Trained):
        command_line(["train", "trainer=cpu", "logger=[none]", *typed, f"outputs={outputs}"])


# What is typed, what is said, and what is advised: typed beside it, or nothing where that is tried elsewhere.
REFUSED = [
    (("model.answers=1",), "this objective compares answers", "model.answers=8"),
    (("model.answers=1",), "this objective compares answers", "model/objective=reinforce"),
    (("model.minibatches=5",), "does not divide the 32 answers", "model.minibatches=4"),
    (("model.sampler.top_k=5",), "changes with what probability", "model.sampler.top_k=null"),
    (("model.sampler.temperature=0",), "changes with what probability", "model.sampler.temperature=1.0"),
    (("model.sample_length=100",), "do not fit after the longest prompt", "model.sample_length="),
    (("model.sample_length=100",), "do not fit after the longest prompt", "data.context="),
    (("model.rewards.checker.weight=0",), "no reward has a weight", "model/rewards=[checker]"),
    (("model/objective=rloo", "model.objective.kl_in=loss"), "kl=k1 in the loss has no gradient",
     "model.objective.kl_in=reward"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "said", "remedy"), REFUSED)
def test_what_does_not_fit_is_refused_with_what_does(
    typed: tuple[str, ...], said: str, remedy: str, began: tuple[str, ...], no_training: None, outputs: Path
) -> None:
    message = refused(*began, *typed, outputs=outputs)
    assert said in message
    if remedy.endswith("="):
        words = message.replace(",", " ").split()
        remedy = next(word for word in reversed(words) if word.startswith(remedy)).rstrip(".")
    assert remedy in message or not remedy
    if remedy == "model/rewards=[checker]":
        typed = ()
    if remedy:
        name = remedy.partition("=")[0]
        begins(*began, *(word for word in typed if not word.startswith(f"{name}=")), remedy, outputs=outputs)


def test_programs_need_permission(
    no_training: None, began: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outputs: Path
) -> None:
    rows = lines(
        ({"prompt": f"{ASKED}# {i}\n", "answer": "    return x + x\n"} for i in range(40)), tmp_path / "p.jsonl"
    )
    typed = [*began, f"data.path={rows}", "data.context=160", "model/rewards=[doctests]"]
    said = refused(*typed, outputs=outputs)
    assert said.endswith("set model.rewards.doctests.allow_code=true.")
    typed.append("model.rewards.doctests.allow_code=true")
    root_without_bubblewrap(monkeypatch)
    said = refused(*typed, outputs=outputs)
    assert said.endswith("set model.rewards.doctests.allow_root=true.")
    begins(*typed, "model.rewards.doctests.allow_root=true", outputs=outputs)


def test_data_without_a_checker_and_judges_of_other_tokens_are_refused(
    no_training: None, began: tuple[str, ...], judge: Path, tmp_path: Path, outputs: Path
) -> None:
    chats = lines(({"q": f"{i}?", "a": f"{i}"} for i in range(40)), tmp_path / "chats.jsonl")
    other = [word for word in began if not word.startswith(("data=", "data.path"))]
    typed = [*other, "data=conversations", f"data.path={chats}", "data.prompt=q", "data.answer=a"]
    said = refused(*typed, outputs=outputs)
    assert "Conversations has no checker of answers. Use data=prompts or data=reasoning_gym" in said
    assert said.endswith("model/rewards=[judged].")
    judged = ("model/rewards=[judged]", f"model.rewards.judged.model={judge}")
    other_tokens = refused(*typed, *judged, "data/tokenizer=characters", outputs=outputs)
    assert "its model knows other tokens (Bytes, " in other_tokens
    assert "gives no rewards for answers. Name a run of model=reward." in refused(
        *typed,
        "model/rewards=[judged]",
        f"model.rewards.judged.model={began[-1].removeprefix('start=')}",
        outputs=outputs,
    )
    said = refused(*typed, *judged, "data.context=128", "data.template=plain", outputs=outputs)
    assert "sees 64 tokens at once, and data.context=128. Use data.context=64." in said
    begins(*typed, *judged, "data.context=64", outputs=outputs)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    return train("model=reward", *pairs(folder), "data.template=plain", *SMALL, "budget.value=8",
                 outputs=folder / "runs")  # fmt: skip


def test_caution_needs_an_ensemble(single: Path, began: tuple[str, ...], no_training: None, outputs: Path) -> None:
    typed = [*began, "model/rewards=[judged]", f"model.rewards.judged.model={single}"]
    said = refused(*typed, "model.rewards.judged.caution=1", outputs=outputs)
    assert said.endswith("caution=1 needs a reward model of several members. Use model.rewards.judged.caution=0.")
    begins(*typed, "model.rewards.judged.caution=0", outputs=outputs)


# --- what is warned of ------------------------------------------------------------------------------------------------


def test_groups_of_equal_rewards_are_warned_of() -> None:
    watch, said = PolicyFailures(), []
    for step in range(6):
        said.append(watch.look({"train/reward": 0.0, "train/equal_groups": 1.0, "train/cut": 0.2}, 8 * step, ()))
    assert [*map(bool, said)] == [False] * 4 + [True] * 2
    assert "all answers to a prompt had the same reward. Use model.answers=16 or more" in said[-1]["equal groups"]
    again = PolicyFailures()
    again.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    assert again.look({"train/reward": 0.0, "train/equal_groups": 0.5}, 48, ()) == {}


def test_a_reward_that_is_gamed_is_warned_of() -> None:
    """The judge that was held back rises and falls while the reward rises."""
    watch, found = PolicyFailures(), []
    for step in range(60):
        gold = 1 - ((step - 25) / 25) ** 2 + 0.02 * (-1) ** step
        logged = {"train/reward": step / 10, "train/reward_gold": gold, "train/equal_groups": 0.0, "train/cut": 0.0}
        found.append("gamed gold" in watch.look(logged, step, ("gold",)))
    assert not any(found[:30])
    assert found[45]
    steady = PolicyFailures()
    assert not any(
        steady.look({"train/reward": step / 10, "train/reward_gold": 0.1 * (-1) ** step}, step, ("gold",))
        for step in range(60)
    )


def test_answers_without_an_end_are_warned_of() -> None:
    watch = PolicyFailures()
    said = [watch.look({"train/reward": float(i), "train/cut": 0.8}, i, ()) for i in range(5)][-1]
    assert "80% do not end within model.sample_length tokens" in said["cut answers"]


# --- best of n --------------------------------------------------------------------------------------------------------


def test_the_best_and_the_most_frequent_of_n() -> None:
    metric = BestOfN(n=4)
    metric.update(["a", "b ", "b", "c"], [1.0, 0.25, 0.25, 0.0])
    metric.update(["x", "y", "z", "w"], [0.0, 0.5, 0.0, 0.0])  # all once: the first
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found == pytest.approx({"best_of_n": 0.75, "most_frequent_of_n": 0.125, "mean_of_n": 0.25,
                                   "best_of_n_kl": 0.63629436})  # fmt: skip
    with pytest.raises(ConfigError, match=r"metrics.best_of_n.n must be a whole number from 2 to 1024, got 1"):
        BestOfN(n=1)


def test_a_run_is_measured_by_the_best_of_its_answers(began: tuple[str, ...], tmp_path: Path) -> None:
    """Answer j to problem i is one of the numbers that no other has: more of them are no worse."""
    run = train(*began, *FORM, "metrics=[best_of_n]", "metrics.best_of_n.n=3", "metrics.best_of_n.whole=true",
                outputs=tmp_path)  # fmt: skip
    found = json.loads((run / "summary.json").read_text())["metrics"]
    assert {name.rpartition("_3_val")[0] for name in found} == {*BestOfN.directions}
    assert found["best_of_n_3_val"] >= found["mean_of_n_3_val"]


def test_what_does_not_change_a_run(began: tuple[str, ...], tmp_path: Path) -> None:
    """Blocks that are computed twice; half precision trains too."""
    whole = train(*began, *FORM, "budget.value=16", outputs=tmp_path / "whole")
    twice = train(*began, *FORM, "budget.value=16", "trainer.activation_checkpointing=true", outputs=tmp_path / "twice")
    assert same(state(twice), state(whole))
    assert read.newest(twice).progress.flops == read.newest(whole).progress.flops
    half = train(*began, *FORM, "budget.value=16", "trainer.precision=bf16-mixed", outputs=tmp_path / "half")
    assert read.newest(half).progress.examples == 16
