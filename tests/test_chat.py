"""A run that answers: its evaluation, and a conversation with it in the terminal."""

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from chats import SMALL, Given, chats, said
from genlab import cli
from genlab.checkpoint import read
from genlab.command.chat import Talk, _answer
from genlab.data.chat_template import template_of
from genlab.data.chat_tokens import ChatTokens
from genlab.data.conversation import Conversation
from genlab.data.reasoning_gym import ReasoningGym, _generated
from genlab.data.tokenizer.bytes import Bytes
from genlab.errors import CheckpointError, ConfigError, DataError
from genlab.metrics.answer_score import AnswerScore
from genlab.metrics.exact_match import ExactMatch
from genlab.metrics.held_out_answers import answered
from genlab.model.answering import answers, check_answers
from genlab.model.base import GenerativeModel
from genlab.sampling.texts import BETWEEN
from genlab.seeding import RandomStream
from genlab.task.answer import Answer
from text import text_file
from tiny_run import only_run, start, train

END = 258


class Scripted(GenerativeModel):
    """Answers each prompt, read as bytes, by a function; then ends, and goes on with what nobody may see."""

    kinds = frozenset({"tokens"})
    shape = (64,)

    def __init__(self, says: Any):
        super().__init__(0, None)  # type: ignore[arg-type]
        self.says = says
        self.prompts: list[str] = []

    def configure_model(self) -> None: ...

    def training_step(self, batch: Any, batch_idx: int) -> None: ...

    def losses(self, batch: Any) -> Any: ...

    def sample(self, *_: Any) -> Any: ...

    def generate(self, condition: Any, generator: RandomStream) -> Iterator[Tensor]:
        prompts = [bytes(t for t in row if 0 <= t < 256).decode() for row in condition["prompt"].tolist()]
        self.prompts += prompts
        said = [[*self.says(prompt).encode(), END, *b"hidden"] for prompt in prompts]
        for place in range(max(map(len, said))):
            yield torch.tensor([row[place] if place < len(row) else 0 for row in said])


def talk(says: Any, **options: Any) -> Talk:
    tokenizer = Bytes()
    template = template_of("chatml", tokenizer)
    tokenizer.reserve(template.markers)
    return Talk(Scripted(says), ChatTokens(template, tokenizer), seed=0, **options)


# --- in the terminal --------------------------------------------------------------------------------------------------


def test_a_conversation_is_kept_until_another_begins() -> None:
    chat = talk(lambda prompt: f"[{prompt.count('user')}]", system="be brief")
    assert ["".join(chat.reply(line)) for line in ("a", "b")] == ["[1]", "[2]"]
    assert chat.messages == [{"role": "system", "content": "be brief"}, *said("a", "[1]", "b", "[2]")]
    model: Any = chat.model
    assert model.prompts[1] == "system\nbe brief\nuser\na\nassistant\n[1]\nuser\nb\nassistant\n"
    chat.begin()
    assert "".join(chat.reply("c")) == "[1]"


def test_what_acts_on_a_terminal_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    _answer(talk(lambda _: "a\x1b[2Jb\rc\u202e\nd"), "x")
    assert capsys.readouterr().out == "a\\x1b[2Jb\\rc\\u202e\nd\n"


def test_ctrl_c_ends_the_answer_and_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    chat = talk(lambda _: "abc")
    of_model = chat.model.generate

    def interrupted(*given: Any) -> Iterator[Tensor]:
        for i, token in enumerate(of_model(*given)):
            if i == 2:
                raise KeyboardInterrupt
            yield token

    chat.model.generate = interrupted  # type: ignore[method-assign]
    _answer(chat, "x")
    assert capsys.readouterr().out == "ab\n"
    assert chat.messages == said("x", "ab")


def test_a_long_conversation_is_said_to_be_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    chat = talk(lambda _: "b")
    _answer(chat, "x" * 60)
    warning = capsys.readouterr().err
    assert warning.startswith("warning: the model does not see the first 15 tokens of this conversation")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    watched = ("metrics=[perplexity,exact_match]", "callbacks.samples.times=1", "model.sample_length=12")
    return train("model=transformer", *chats(folder), *SMALL, *watched, outputs=folder / "outputs")


def test_what_a_run_of_conversations_leaves(run: Path) -> None:
    assert json.loads((run / "chat_template.json").read_text())["name"] == "chatml"
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    assert {*metrics} == {"perplexity_exact_val", "bits_per_byte_exact_val", "exact_match_val"}
    (file,) = (run / "samples").glob("examples=*.txt")
    assert "user: " in file.read_text()
    assert "\nassistant: " in file.read_text()


def ask(run: Path, lines: bytes, patch: pytest.MonkeyPatch, *typed: str) -> None:
    patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), "utf-8", errors="surrogateescape"))
    cli.run(["chat", f"run={run}", *typed])


def test_lines_of_a_pipe_are_answered(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    ask(run, b"3?\n\n/new\n3?\n\xff\n4?", monkeypatch, "model.sampler.temperature=0", "system=[a, b=c")
    out, err = capsys.readouterr()
    assert "error: the text is not Unicode" in err
    first = out[: len(out) // 3]
    assert out.startswith(first * 2)  # greedy answers to the same conversation
    ask(run, b"3?\n", monkeypatch, "seed=1")
    drawn = capsys.readouterr().out
    ask(run, b"3?\n", monkeypatch, "seed=1")
    assert capsys.readouterr().out == drawn
    ask(run, b"", monkeypatch)
    assert capsys.readouterr().out == ""


def test_a_sample_answers_its_prompt(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Up to its end, and no further; one that is shown while it is written is the same."""
    typed = ["sample", f"run={run}", f"out={tmp_path / 'a.txt'}", "prompt=3?", "model.sample_length=400"]
    cli.run([*typed, "n=3"])
    several = (tmp_path / "a.txt").read_text().split(BETWEEN)
    assert all(text.startswith("3?\n") for text in several)
    assert len({*map(len, several)}) > 1
    assert min(map(len, several)) < 400
    cli.run(typed)
    assert (tmp_path / "a.txt").read_text().removesuffix("\n") == several[0].removesuffix("\n")


def test_an_export_has_the_template_and_what_ends_an_answer(run: Path, tmp_path: Path) -> None:
    cli.run(["export", f"run={run}", "format=transformers", f"out={tmp_path / 'out'}"])
    template = json.loads((run / "chat_template.json").read_text())
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == template["source"]
    tokens = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["added_tokens"]
    (end,) = (token["id"] for token in tokens if token["content"] == "<|im_end|>")
    assert end in json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"]


def test_a_template_that_is_damaged_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "chat_template.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"chat_template\.json does not hold the chat template of the run"):
        ask(copy, b"a\n", monkeypatch)


def test_a_run_of_other_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = train("model=transformer", *text_file(tmp_path), *SMALL, "metrics=[]", outputs=tmp_path / "outputs")
    with pytest.raises(ConfigError, match=r"was not trained on conversations.*Use genlab sample run=(\S+)$") as caught:
        ask(other, b"a\n", monkeypatch)
    command = str(caught.value).rpartition("Use genlab ")[2].split()
    cli.run([*command, "model.sample_length=3"])
    assert only_run(tmp_path / "outputs") == other


@pytest.mark.matrix
def test_ranks_and_accumulated_batches_take_the_steps_of_one(tmp_path: Path) -> None:
    """Two processes whose steps have two batches each, against one process and batches twice as large."""
    given = (
        "model=transformer",
        *chats(tmp_path, 64),
        *SMALL,
        "metrics=[]",
        "model.optimizer.fused=false",
        "data.packing=false",
        "model/schedule=constant",
    )
    alone = train(*given, "data.batch_size=8", outputs=tmp_path / "alone")
    shared = ("trainer=ddp_cpu", "data.batch_size=4", "trainer.accumulate_grad_batches=2")
    process = start(*given, *shared, outputs=tmp_path / "together")
    assert process.wait(100) == 0
    one, two = (read.newest(run).content["state_dict"] for run in (alone, only_run(tmp_path / "together")))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-5, rtol=1e-4)


# --- answers that are measured ----------------------------------------------------------------------------------------


def known(tmp_path: Path, count: int = 9) -> Given:
    return Given([Conversation(tuple(said(f"q{i}", f"a{i}")), f"line {i}") for i in range(count)], tmp_path, context=64)


def right_on_even(prompt: str) -> str:
    number = int(prompt.split("q")[1].split()[0])
    return f"a{number}" if number % 2 == 0 else "b"


def test_answers_end_at_their_end_in_any_batches() -> None:
    prompts = [talk(None).chat.prompt(said("x" * n), "") for n in (1, 5, 2)]
    model = Scripted(lambda prompt: "y" * prompt.count("x"))
    for size in (1, 2, 3):
        (found,) = [[bytes(answer) for batch in answers(model, prompts, range(3), 0, END, size) for answer in batch]]
        assert found == [b"y", b"yyyyy", b"yy"]
    with pytest.raises(ConfigError, match=r"metrics=x: SimpleNamespace does not answer. Use model=transformer"):
        check_answers(SimpleNamespace(), "metrics=x")  # type: ignore[arg-type]


def test_exact_match_of_held_out_conversations(tmp_path: Path) -> None:
    data, model, metric = known(tmp_path), Scripted(right_on_even), ExactMatch()
    metric.measure(model, data, "val", batch_size=4)
    assert float(metric.compute()["exact_match"]) == pytest.approx(5 / 9)
    assert metric.subject(model, "val") == "val"
    chosen = [one.answer for one, _ in answered(model, data, "val", 3, 2, 0)]
    assert chosen == ["a0", "a4", "a8"]


def test_answers_are_compared_with_those_that_are_there(tmp_path: Path) -> None:
    data, model = known(tmp_path), Scripted(right_on_even)
    task = Answer().on(data, "val").sized(3, model)
    assert task.reference()["text"] == ["a0", "a4", "a8"]
    assert task.draw(model, range(3), 0, 2)["text"] == ["a0", "a4", "a8"]
    assert task.baselines(3, 0)["most_frequent_answer"]["text"] == ["a0"] * 3
    assert task.reference_hash() != Answer().on(data, "val").sized(4, model).reference_hash()


# --- problems with a checker ------------------------------------------------------------------------------------------


class Sums:
    """As reasoning-gym has it: problem i of seed s is a function of s + i, and problems repeat."""

    def __init__(self, size: int, seed: int, most: int = 50):
        assert most > 1, "most must be above 1"
        self.size, self.seed, self.most = size, seed, most

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not 0 <= i < self.size:
            raise IndexError(i)
        a = (self.seed + i) * 7919 % 1009 % self.most
        return {"question": f"{a}+1?", "answer": str(a + 1), "metadata": {}}

    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        return 1.0 if answer == entry["answer"] else 0.5 if answer.startswith("a") else 0.0


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleNamespace(create_dataset=lambda name, **options: Sums(**options), __spec__=None)
    monkeypatch.setitem(sys.modules, "reasoning_gym", made)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", SimpleNamespace(DATASETS={"sums": 1}))
    _generated.cache_clear()


@pytest.mark.usefixtures("package")
def test_no_held_out_problem_is_among_the_training_problems(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = ReasoningGym(Bytes(), "sums", num_train=30, num_val=60, cache_dir=str(tmp_path))
    train, val = data.known("train"), data.known("val")
    questions = [one.prompt[0]["content"] for one in val]
    assert not {*questions} & {one.prompt[0]["content"] for one in train}
    assert 0 < len({*questions}) == len(val) < 60
    assert f"{60 - len(val)} of the 60 held-out problems of sums are also among" in caplog.text
    metric = AnswerScore()
    metric.measure(Scripted(lambda prompt: str(int(prompt.split()[1].split("+")[0]) + 1)), data, "val", 16)
    assert float(metric.compute()["answer_score"]) == 1
    metric.reset()
    metric.measure(Scripted(lambda prompt: "about"), data, "val", 16)
    assert float(metric.compute()["answer_score"]) == 0.5


@pytest.mark.usefixtures("package")
def test_problems_that_there_are_not(tmp_path: Path) -> None:
    def known(task: str = "sums", **options: Any) -> Any:
        return ReasoningGym(Bytes(), task, cache_dir=str(tmp_path), **options).known("val")

    with pytest.raises(ConfigError, match=r"data\.task=sumz: reasoning-gym has no such generator.*'sums'"):
        known("sumz")
    with pytest.raises(ConfigError, match=r"data\.options do not suit the generator sums \(most must be above 1"):
        known(options={"most": 1})
    with pytest.raises(ConfigError, match=r"data\.options do not suit the generator sums \(.*'least'"):
        known(options={"least": 1})
    with pytest.raises(DataError, match=r"all 500 held-out problems of sums .* such as data\.num_train=100"):
        known(num_train=1000)


def test_the_package_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    _generated.cache_clear()
    with pytest.raises(ConfigError, match=r"data=reasoning_gym needs a package: pip install 'genlab\[reasoning\]'"):
        ReasoningGym(Bytes(), "sums", cache_dir=str(tmp_path)).known("train")


def test_a_checker_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Given has no checker of answers. Use metrics=\[exact_match\]"):
        AnswerScore().check(Scripted(None), known(tmp_path))
