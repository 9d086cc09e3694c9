"""What a message advises is tried in the command that printed it, and helps; remedies.py has the table.

Every message of the sources that advises something to type is in it. What no test can do (weights to fetch, a disk to
clear) is at least an option that there is.
"""

import re
import resource
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from advice import advices
from genlab import cli
from genlab.command import train
from genlab.config.tree import ConfigTree, resolved
from genlab.data.shapes import Shapes
from genlab.errors import CheckpointError, ConfigError, GenlabError, ResourceError
from genlab.run import run_folder
from genlab.run.assemble import load_tokenizer
from genlab.sampling.pictures import picture_destination
from genlab.sampling.texts import text_destination
from genlab.sweep import loop
from remedies import (
    COMPARED,
    ELSEWHERE,
    IMAGES,
    MLP,
    OFFERED,
    TRIED,
    Elsewhere,
    Offered,
    Tried,
    arrays,
    damaged,
    make_run,
    pictures,
    runs,
    unlabelled,
)
from tiny_run import REPOSITORY, SHORT
from wrong_values import draw, outcome

QUICK = (
    "and none are given. Name some",
    "put several folders",
    "The learning rate is",
    "or classes? Splits",
    "names no folder",
    "attention heads). Use",
    "shows samples, and a",
)


class Trained(BaseException):
    """Training, or a sweep, would have begun: nothing was refused."""


@pytest.fixture(autouse=True)
def no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: object) -> None:
        raise Trained

    monkeypatch.setattr(train, "fit", begin)
    monkeypatch.setattr(loop, "sweep", begin)
    monkeypatch.chdir(tmp_path)


def said(*typed: str) -> str:
    """The error of a command; nothing where training would begin."""
    try:
        cli.run(list(typed))
    except GenlabError as error:
        return str(error)
    except Trained:
        pass
    return ""


# --- the table is whole -----------------------------------------------------------------------------------------------


@cache
def found() -> list[tuple[str, str]]:
    return list(advices())


def test_every_message_that_advises_something_is_in_the_table() -> None:
    rows = (*TRIED, *OFFERED, *ELSEWHERE)
    lacking = [
        f"{module}: {text}"
        for module, text in found()
        if not any(row.module in ("", module) and row.fragment in text for row in rows)
    ]
    assert not lacking, "add them to tests/remedies.py: " + "; ".join(lacking)


def test_every_row_is_of_a_message() -> None:
    rows = (*TRIED, *OFFERED, *ELSEWHERE)
    stale = [
        row for row in rows if not any(row.module in ("", module) and row.fragment in text for module, text in found())
    ]
    assert not stale
    doubled = [key for key, n in Counter((row.module, row.fragment) for row in rows).items() if n > 1]
    assert not doubled


@pytest.mark.parametrize("row", ELSEWHERE, ids=lambda row: row.fragment)
def test_the_test_that_a_row_names_is_there(row: Elsewhere) -> None:
    file, _, name = row.test.partition("::")
    assert f"def {name}(" in (REPOSITORY / "tests" / file).read_text(encoding="utf-8")


# --- every remedy is tried --------------------------------------------------------------------------------------------


def applied(typed: tuple[str, ...], words: list[str]) -> list[str]:
    """``typed`` with ``words`` in it: ``name=value`` in place of the same name, ``-name`` taken out, ``+name=value`` of
    the user's own."""
    new = [word.lstrip("+") for word in words if not word.startswith("-")]
    names = {word.partition("=")[0] for word in new} | {word[1:] for word in words if word.startswith("-")}
    kept = [line for line in typed[1:] if line.partition("=")[0] not in names]
    return [typed[0], *(["-m"] if "-m" in words else []), *kept, *new]


def try_all(row: Tried, patch: pytest.MonkeyPatch) -> None:
    row.prepare()
    row.patch(patch)
    shown = said(*row.typed)
    assert row.fragment in shown
    for remedy in row.remedies:
        words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", remedy)]
        for word in words:
            if word[0] not in "+-":  # the message has it: the whole, or the name with a value left to the user
                assert word in shown or word.partition("=")[0] in shown
        after = said(*applied(row.typed, words))
        assert row.fragment not in after
        assert not re.search("unknown|no such argument|is not an option|cannot be chosen", after), after


def is_quick(row: Tried) -> bool:
    return any(part in row.fragment for part in QUICK)


@pytest.mark.parametrize("row", [row for row in TRIED if is_quick(row)], ids=lambda row: row.fragment)
def test_a_remedy_helps_where_it_is_shown(row: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    try_all(row, monkeypatch)


@pytest.mark.matrix
@pytest.mark.parametrize("row", [row for row in TRIED if not is_quick(row)], ids=lambda row: row.fragment)
def test_every_remedy_helps_where_it_is_shown(row: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    try_all(row, monkeypatch)


@pytest.mark.matrix
@pytest.mark.parametrize(
    "row", [row for row in OFFERED if row.options], ids=lambda row: f"{row.module}: {row.fragment}"
)
def test_what_is_advised_is_an_option(row: Offered) -> None:
    runs()
    ConfigTree().compose(["data=digits" if "data=" not in row.options else "seed=0", *row.options.split()])


def test_an_extra_that_is_advised_is_there() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    advised = {name for _, text in found() for name in re.findall(r"genlab\[(\w+)\]", text)}
    assert advised
    assert advised <= {*extras}


def test_samples_go_where_it_is_advised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        picture_destination("x.jpg")
    advised = re.findall(r"out=(\S+?),? ", str(caught.value).partition("Use ")[2])
    assert advised == ["x.png", "x.jpg/"]
    assert [picture_destination(out) for out in advised] == [Path("x.png"), Path("x.jpg")]
    with pytest.raises(ConfigError) as caught:
        text_destination("x.md")
    assert text_destination(str(caught.value).rpartition("Use out=")[2]) == Path("x.txt")


def test_a_folder_of_a_run_is_continued() -> None:
    runs()
    typed = ("train", "data=digits", *SHORT, *MLP)
    shown = said(*typed, "folder=gan")
    (advised,) = re.findall(r"Continue it with (run=\S+?),", shown)
    assert "already holds a run" not in said("train", advised)
    assert "already holds a run" not in said(*typed, "folder=other")


def test_scenes_that_memory_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda _: 400)  # pages, and bytes of a page
    with pytest.raises(ResourceError, match=r"data\.num_train=2147483648 images take 1,649 GB") as caught:
        Shapes(image_size=16, num_train=2**31).table("train")
    (advised,) = re.findall(r"Use data\.num_train=(\d+), or fewer", str(caught.value))
    assert len(Shapes(image_size=16, num_train=int(advised)).table("train").images) == 160_000 // 768 // 2


def test_memory_that_is_out_is_no_surprise(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: object) -> None:
        raise MemoryError("Unable to allocate 16.0 GiB")

    monkeypatch.setattr(cli, "run", run)
    with pytest.raises(SystemExit) as end:
        cli.main(["train"])
    assert end.value.code == 7
    assert capsys.readouterr().err.startswith("error: out of memory (Unable to allocate 16.0 GiB). Use less ")


# --- remedies of two commands -----------------------------------------------------------------------------------------


def test_files_that_are_compared_have_options_of_their_own(tmp_path: Path) -> None:
    arrays()
    typed = ("evaluate", "metrics=[]", "images=a.npz", "data=digits")
    assert said(*typed).endswith("(it has: pictures). Set image_key.")
    assert "image_key" not in said(*typed, "image_key=pictures")
    assert said(
        "evaluate", "metrics=[]", "images=a.npz", "reference=x.npy", "data.image_key=pictures", "data.cache_dir=c"
    )
    np.savez("c.npz", photos=np.zeros((20, 17, 17, 3), np.uint8))
    typed = ("evaluate", "metrics=[]", "images=b.npz", "reference=c.npz", "data.cache_dir=c", "image_key=images")
    assert said(*typed).endswith("(it has: photos). Set data.image_key.")
    assert said(*typed, "data.image_key=photos") == ""


@pytest.mark.matrix
def test_a_damaged_file_that_is_compared_may_be_passed_over() -> None:
    damaged()
    assert "set on_bad=skip" in said(*COMPARED, "metrics=[]")
    assert said(*COMPARED, "metrics=[]", "on_bad=skip") == ""
    typed = (
        *(word for word in COMPARED if "=p" not in word and "=q" not in word),
        "images=q",
        "reference=p",
        "metrics=[]",
    )
    assert "set data.on_bad=skip" in said(*typed)
    assert said(*typed, "data.on_bad=skip") == ""


@pytest.mark.matrix
def test_what_measures_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    unlabelled()
    assert said(*COMPARED, "metrics=[]") == ""
    shown = capsys.readouterr().out
    assert shown.startswith("Nothing was measured: no metric is chosen. Choose one or more, such as metrics=[fid].\n")
    assert said(*COMPARED, "metrics=[fid]") == ""
    assert "fid_random256_12" in capsys.readouterr().out


def test_a_run_writes_with_its_own_tokenizer() -> None:
    typed = ["data=text_file", "data.path=t.txt", "model=transformer", "logger=[none]"]
    make_run("writer", *typed, "data/tokenizer=characters")
    asked = {"data": resolved(ConfigTree().compose([*typed, "data/tokenizer=bytes"]).data)}
    with pytest.raises(
        ConfigError, match=r"own tokenizer, Characters, and cannot use another\. Leave data/tokenizer= out"
    ):
        load_tokenizer(asked, SimpleNamespace(), Path("writer"))  # type: ignore[arg-type]
    own = {"data": resolved(OmegaConf.load("writer/config.yaml").data)}
    with pytest.raises(CheckpointError, match=r"tokenizer\S* does not hold the tokenizer of the run"):  # no such file
        load_tokenizer(own, SimpleNamespace(), Path("writer"))  # type: ignore[arg-type]


@pytest.mark.parametrize("quotes", ["", '"', "'"])
def test_a_home_needs_no_quotes(quotes: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert said("train", "data=digits", *SHORT, *MLP, f"outputs={quotes}~/runs{quotes}") == ""
    assert not Path("~").exists()
    assert run_folder.create("~/runs", "x").is_relative_to(tmp_path / "home" / "runs")


@pytest.mark.parametrize("name", ["a" * 300, "/a" * 3000], ids=["a name", "a path"])
def test_a_path_that_no_system_takes_is_refused(name: str) -> None:
    extractor = ("metrics=[mauve]", "metrics/extractor=language_model", f"metrics.extractor.name={name}")
    for typed in (("data=digits", f"outputs={name}"), ("data=digits", *extractor)):
        with pytest.raises(ConfigError, match="is not a path: it is longer than"):
            cli.run(["train", *typed])
    with pytest.raises(ConfigError, match="is not a path"):
        cli.run(["sample", f"run={name}"])


def test_a_comma_in_a_path_needs_quotes() -> None:
    typed = ("train", *SHORT, "data=image_folder", "data.root=/data/a,b")
    shown = said(*typed)
    assert shown.endswith("needs quotes: 'data.root=\"/data/a,b\"'.")
    assert "/data/a,b is not a folder" in said(*typed[:-1], 'data.root="/data/a,b"')
    assert "model=vae" in said("train", "model = vae")


def test_a_batch_that_was_typed_and_is_larger_than_the_data_is_refused_with_one_that_fits() -> None:
    pictures("p", 12)
    (largest,) = re.findall(r"Use data\.batch_size<=(\d+)\.", said(*IMAGES, "data.batch_size=128"))
    assert said(*IMAGES, f"data.batch_size={largest}") == ""


# --- values of the wrong kind, range and size -------------------------------------------------------------------------


@pytest.mark.parametrize("case", draw(8, seed=0), ids=lambda case: f"{case.option}={case.value}"[:60])
def test_a_wrong_value_is_never_unforeseen(case: object) -> None:
    assert outcome(case) in (0, *range(2, 10))  # type: ignore[arg-type]


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """4 GiB beyond what this process has: a value that asks for more ends in an error, not with the process."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    held = int(re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (held + (4 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.matrix
@pytest.mark.usefixtures("bounded_memory")
def test_300_wrong_values_are_never_unforeseen() -> None:
    assert {outcome(case) for case in draw(300, seed=1)} <= {0, *range(2, 10)}
