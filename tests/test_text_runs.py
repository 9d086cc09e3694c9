"""Runs of text from end to end: what they leave, how text is sampled from them, and what is refused."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from genlab import cli
from genlab.checkpoint import read
from genlab.command.train import Interrupted
from genlab.data.tokenizer.base import Tokenizer
from genlab.data.tokenizer.bytes import Bytes
from genlab.data.tokenizer.characters import Characters
from genlab.model.transformer import Transformer
from genlab.redaction import for_terminal
from genlab.run import run_folder
from text import text_file
from tiny_run import SignalAt, command, only_run, resume, small, train

WATCHED = ("metrics=[perplexity]", "callbacks.samples.times=2", "callbacks.evaluation.times=2",
           "model/schedule=constant")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return text_file(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def run(data: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes as tokens."""
    return train(*small("model=transformer", *data), *WATCHED, outputs=tmp_path_factory.mktemp("transformer"))


@pytest.fixture(scope="module")
def masked(data: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Characters as tokens."""
    given = (*data, "data/tokenizer=characters")
    return train(*small("model=masked", *given), *WATCHED, outputs=tmp_path_factory.mktemp("masked"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code and the one line that a command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main(list(arguments))
    (line,) = capsys.readouterr().err.splitlines()
    return int(left.value.code or 0), line  # type: ignore[arg-type]


def texts(path: Path) -> list[str]:
    from genlab.sampling.texts import BETWEEN

    return path.read_bytes().decode("utf-8").removesuffix("\n").split(BETWEEN)


# --- what a run leaves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind", "tokenizer"), [("run", "exact", Bytes()), ("masked", "bound", Characters())])
def test_what_a_run_leaves(name: str, kind: str, tokenizer: Tokenizer, request: pytest.FixtureRequest) -> None:
    run: Path = request.getfixturevalue(name)
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary["metrics"]) == {f"perplexity_{kind}_val", f"bits_per_byte_{kind}_val"}
    assert 1 < summary["metrics"][f"perplexity_{kind}_val"] < 400
    assert summary["protocol"]["context"] == 16
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row[f"val/perplexity_{kind}_val"]] == ["6", "13"]
    tokenizer.load_state((run / "tokenizer.json").read_text(encoding="utf-8"))
    last = read.newest(run).content
    assert last["tokenizer"] == tokenizer.fingerprint() == summary["protocol"]["tokenizer"]
    files = sorted((run / "samples").glob("examples=*"))
    assert [file.name for file in files] == ["examples=000000000056.txt", "examples=000000000104.txt"]
    assert [len(texts(file)) for file in files] == [2, 2]
    assert texts(files[0]) != texts(files[1])


def test_what_to_do_next_can_be_done(run: Path, masked: Path, data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, family in ((run, "transformer"), (masked, "masked")):
        more = folder.parents[1] / "again"
        given = (*data, *(("data/tokenizer=characters",) if family == "masked" else ()))
        train(*small(f"model={family}", *given), "budget.value=8", outputs=more)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next:")]
        words = line.split()
        assert words[:3] == ["next:", "genlab", "sample"]
        cli.main(["sample", *words[3:]])


# --- sampling ---------------------------------------------------------------------------------------------------------


def sample(run: Path, out: Path, *overrides: str) -> list[str]:
    cli.main(["sample", f"run={run}", f"out={out}", *overrides])
    return texts(out)


@pytest.mark.parametrize("name", ["run", "masked"])
def test_a_seed_names_its_texts(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run, out = request.getfixturevalue(name), tmp_path / "a.txt"
    five = sample(run, out, "n=5", "seed=3", "prompt=la la")
    assert len(set(five)) == 5
    assert all(text.startswith("la la") and len(text) > 8 for text in five)
    assert sample(run, out, "n=5", "seed=3", "prompt=la la", "batch_size=2") == five
    assert sample(run, out, "seed=3", "prompt=la la") == five[:1]
    assert sample(run, out, "n=5", "seed=4", "prompt=la la") != five
    assert sample(run, out, "n=5", "seed=3") != five


PROMPTS = ["a, b", "[1, 2]=x", "{a: ${b}}", "two\nlines\n", "\"quoted\" 'it's'", "prompt=n=3", "  spaces ", "=",
           "-- \\ % € 𝄞", "run=x,y", "null", "a" * 50]  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_a_prompt_arrives_as_it_is(prompt: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = sample(run, tmp_path / "a.txt", f"prompt={prompt}")
    assert text.startswith(prompt)
    assert len(text) > len(prompt)
    assert capsys.readouterr().out.startswith(prompt)


def test_where_text_goes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    cli.main(["sample", f"run={run}", "n=2", "seed=7"])
    out = capsys.readouterr().out
    path = run / "samples" / "seed=7-n=2.txt"
    assert out == f"{for_terminal(path.read_bytes().decode())}\n2 samples: {path}\n"
    cli.main(["sample", f"run={run}", "prompt=la"])
    cli.main(["sample", f"run={run}", "prompt=so"])
    assert len(list((run / "samples").glob("seed=0-n=1-prompt=*.txt"))) == 2


def test_a_single_text_is_shown_while_it_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When a token is asked for, all before it has been flushed; of a character, once its last byte is there."""

    class Screen:
        """What has been written, and what has been flushed of it."""

        written = shown = ""

        def write(self, text: str) -> int:
            self.written += text
            return len(text)

        def flush(self) -> None:
            self.shown = self.written

    told = [b for text in ("la ", "€", " 𝄞!") for b in text.encode()]
    seen: list[str] = []

    def generate(self: Transformer, condition: Any, generator: Any) -> Any:
        import torch

        for token in told:
            seen.append(screen.shown)
            yield torch.tensor([token])

    screen = Screen()
    monkeypatch.setattr(Transformer, "generate", generate)
    monkeypatch.setattr(sys, "stdout", screen)
    cli.main(["sample", f"run={run}", f"out={tmp_path / 'a.txt'}", "prompt=so "])
    assert seen == ["so " + bytes(told[:i]).decode("utf-8", "ignore") for i in range(len(told))]
    assert screen.written.startswith("so la € 𝄞!\n")
    assert texts(tmp_path / "a.txt") == ["so la € 𝄞!"]


def test_samples_that_cannot_be(run: Path, masked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "sample", f"run={run}", "label=1") == (
        2, f"error: label=1: the model of {run} takes no labels.")  # fmt: skip
    assert refused(capsys, "sample", f"run={run}", "out=x.png") == (
        2, "error: out=x.png: texts go into a .txt file. Use out=x.txt")  # fmt: skip
    code, said = refused(capsys, "sample", f"run={masked}", "prompt=la Z")
    assert code == 2
    assert "has no 'Z' (U+005A), which is at character 3 (line 1)" in said
    assert (
        refused(capsys, "sample", f"run={run}", "prompt=\udcff")[0] == 5
    )  # a byte of no encoding, as a shell gives it


# --- measuring samples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "length"), [("run", {0: 20, 5: 20}), ("masked", {0: 16, 5: 12})])
def test_samples_are_measured(name: str, length: dict[int, int], request: pytest.FixtureRequest) -> None:
    """As long as the family makes them after a prompt, beside texts that took no model."""
    run: Path = request.getfixturevalue(name)
    for prompt_length, sample_length in length.items():
        before = set(run.glob("evaluation-*.json"))
        cli.main(["evaluate", f"run={run}", "metrics=[perplexity,distinct,repetition,bleu,chrf,mauve]", "n=6",
                  "metrics/extractor=ngrams", f"evaluation.prompt_length={prompt_length}",
                  "baselines=true"])  # fmt: skip
        (path,) = set(run.glob("evaluation-*.json")) - before
        report = json.loads(path.read_text())
        assert (report["protocol"]["sample_length"], report["protocol"]["num_windows"]) == (sample_length, 6)
        assert {"bleu_6", "mauve_ngrams1024_6", "distinct_2_ratio_6"} < set(report["metrics"])
        assert set(report["baselines"]) == {"random_tokens", "shuffled_words", "floor"}
        assert set(report["baselines"]["floor"]) == set(report["metrics"]) - {
            key for key in report["metrics"] if key.endswith("_val")}  # fmt: skip


# --- a run belongs to its tokenizer and its text ----------------------------------------------------------------------

EDITS = {
    "swapped": lambda path: path.write_text('{"characters": "abc", "end": false}'),
    "damaged": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "not text": lambda path: path.write_bytes(b"\xff\xfe"),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("edit", EDITS)
def test_another_tokenizer_is_refused(edit: str, masked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = masked / "tokenizer.json"
    before = path.read_bytes()
    try:
        EDITS[edit](path)
        for arguments in (["sample"], ["evaluate"], ["train", "budget.value=200"]):
            code, said = refused(capsys, arguments[0], f"run={masked}", *arguments[1:])
            assert code == 3, said
            assert "estore" in said
            assert "tokenizer" in said
    finally:
        path.write_bytes(before)
    cli.main(["evaluate", f"run={masked}"])


def test_another_choice_of_tokenizer_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["evaluate"], ["train", "budget.value=200"]):
        given = (f"run={run}", "data/tokenizer=characters", *arguments[1:])
        code, said = refused(capsys, arguments[0], *given)
        assert code in (2, 3), said


def test_a_changed_text_is_refused(tmp_path: Path) -> None:
    """Also where its tokenizer learns nothing from it."""
    from genlab.errors import CheckpointError

    data = text_file(tmp_path)
    with pytest.raises(Interrupted):
        train(*small("model=transformer", *data), SignalAt.override(16), outputs=tmp_path / "outputs")
    run, path = only_run(tmp_path / "outputs"), tmp_path / "text.txt"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("la", "ma", 1), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"the training data are not those that .* was trained on: other text\. Put those back"
    ):
        resume(run)
    path.write_text(text, encoding="utf-8")
    resume(run)
    assert (run / "summary.json").exists()


# --- what does not go together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model=transformer", "metrics=[fid]"],
         "error: metrics=fid is for images, or for texts with features of texts; the data are text. "
         "Use metrics=[perplexity], or choose metrics/extractor=ngrams."),
        (["model=transformer", "metrics=[fid]", "metrics/extractor=random"],
         "error: metrics=fid is for images, or for texts with features of texts; the data are text. "
         "Use metrics=[perplexity], or choose metrics/extractor=ngrams."),
        (["model=transformer", "metrics=[label_accuracy]"], "metrics=label_accuracy is for images; the data are text."),
        (["model=transformer", "metrics=[distinct]", "task.prompt_length=65"],
         "task.prompt_length=65 must be at most data.context=64."),
        (["model=masked", "metrics.perplexity.stride=4"],
         "metrics.perplexity.stride=4: Masked gives no likelihood of single tokens. Use null."),
        (["model=gan"], "text"),
        (["model=diffusion"], "text"),
        (["model=transformer", "model/sampler=unmask"], "Use model/sampler=next_token."),
        (["model=masked", "model/sampler=next_token"], "Use model/sampler=unmask."),
        (["model=transformer", "model.tokenizer=/no/run"], "model.tokenizer=/no/run: there is no run here"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_text(
    arguments: list[str], said: str, data: Any, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = refused(capsys, "train", *data, "logger=[none]", f"outputs={outputs}", *arguments)
    assert code == 2
    assert said in line
    assert not outputs.exists(), "before there is a folder"


@pytest.mark.parametrize("arguments", [["metrics=[distinct]"], ["metrics=[fid,bleu]"]])
def test_metrics_of_text_are_refused_for_images(
    arguments: list[str], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = refused(capsys, "train", *command(*arguments, outputs=outputs))
    name = arguments[0].strip("[]").split(",")[-1].removeprefix("metrics=[")
    assert (code, line) == (2, f"error: metrics={name} is for texts; the data are image. Use metrics=[fid].")
    assert not outputs.exists()


def test_perplexity_of_images_is_refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = command("metrics=[perplexity]", outputs=outputs)
    code, line = refused(capsys, "train", *given)
    assert (code, line) == (2, "error: metrics=perplexity is for text; the data are image.")
    assert refused(capsys, "train", *given, "dry_run=true")[1] == line
    assert not outputs.exists()


# --- images as the codes of a tokenizer -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vq_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*small("model=vq_vae"), outputs=tmp_path_factory.mktemp("vq_vae"))


@pytest.mark.parametrize("family", ["transformer", "masked"])
def test_codes_of_a_run(family: str, vq_vae: Path, tmp_path: Path) -> None:
    """Trained, sampled, measured, stopped and continued; the tokenizer stays as it is, and is part of the run."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    given = small(f"model={family}", f"model.tokenizer={vq_vae}")
    with pytest.raises(Interrupted):
        train(*given, SignalAt.override(16), outputs=tmp_path)
    run = only_run(tmp_path)
    vq_vae.rename(vq_vae.with_name("moved"))  # from here on it is not needed
    try:
        resume(run)
        cli.main(["sample", f"run={run}", "n=5", f"out={tmp_path / 'a.npz'}"])
        cli.main(["sample", f"run={run}", "n=5", "batch_size=2", f"out={tmp_path / 'b.npz'}"])
        cli.main(["evaluate", f"run={run}", "n=4", "likelihood=2", "metrics=[]"])
    finally:
        vq_vae.with_name("moved").rename(vq_vae)
    images = np.load(tmp_path / "a.npz")["images"]
    assert images.shape == (5, 16, 16, 1)
    assert np.array_equal(images, np.load(tmp_path / "b.npz")["images"])
    (report,) = run.glob("evaluation-*.json")
    assert json.loads(report.read_text())["metrics"]["bits_per_dim_bound_val_2"] > 0
    last, theirs = read.newest(run), read.newest(vq_vae)
    entry = run_folder.read_config(run)["pretrained"]["model.tokenizer"]
    assert entry["where"] == str(vq_vae)
    kept = load_file(run / "parts" / f"{entry['sha256']}.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in theirs.content["ema"].items())
    assert not any(name.startswith("tokenizer.") for name in (*last.state, *last.content["ema"]))


def test_a_run_without_tokens_is_no_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vae = train(*small("model=vae"), "budget.value=8", outputs=tmp_path)
    code, said = refused(capsys, "train", "model=transformer", f"model.tokenizer={vae}", "logger=[none]")
    assert (code, said) == (
        2, f"error: model.tokenizer={vae}: a VAE has no discrete tokens. Name a run of model=vq_vae.")  # fmt: skip
