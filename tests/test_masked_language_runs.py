"""Runs of masked language models: what they fill in, and what begins with their weights."""

import re
from pathlib import Path

import pytest

from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.errors import ConfigError
from text import text_file
from tiny_run import small, train

STILL = ("model.optimizer.lr=0", "budget.value=8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("masked_language")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    given = (*text_file(folder), "data/tokenizer=characters", "model.network.tied=false")
    return train(*small("model=masked_language", *given), "budget.value=8", outputs=folder / "runs")


def test_masked_tokens_are_filled_in(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command_line(["sample", f"run={run}", "prompt=la [MASK]a[MASK]la"])
    text, first, second = capsys.readouterr().out.splitlines()[-3:]
    found = re.fullmatch("la (.)a(.)la", text)
    assert found
    for number, line in ((1, first), (2, second)):
        best = re.fullmatch(rf"\[MASK\] {number}: " + ", ".join([r"'(\\?.)' (0\.\d+)"] * 5), line)
        assert best, line
        shares = [float(share) for share in best.groups()[1::2]]
        assert shares == sorted(shares, reverse=True)
    command_line(["sample", f"run={run}", "prompt=la [MASK]a[MASK]la"])
    assert capsys.readouterr().out.splitlines()[-3:] == [text, first, second]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["prompt=la la"], r'fills in masked tokens\. Type a text with some: prompt="the \[MASK\]ext"'),
        ([], r"fills in masked tokens"),
        (["prompt=[MASK]", "n=2"], r"^n=\.\.\.: the model of .* fills in one text\. Leave n= out\."),
        (["prompt=[MASK]", "out=x.txt"], r"^out=\.\.\.: .*Leave out= out\."),
        ([f"prompt=[MASK]{'la' * 8}"], r"the text has 17 tokens, and the model sees 16 at once\. Shorten it\."),
        (["prompt=[MASK]~"], r"^prompt: .*Leave it out of the prompt\."),
    ],
)
def test_what_cannot_be_filled_in_is_refused(typed: list[str], said: str, run: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        command_line(["sample", f"run={run}", *typed])


@pytest.mark.parametrize("family", ["transformer", "masked_language"])
def test_others_begin_with_what_fits(family: str, run: Path, folder: Path) -> None:
    """A transformer has no mask token, so its embedding is another; what to take over is said, and can be typed. With
    another share of chosen tokens all fits."""
    given = (f"model={family}", *text_file(folder), "data/tokenizer=characters", "model.network.tied=false")
    choices = (*small(*given), *STILL, f"start={run}")
    if family == "transformer":
        with pytest.raises(ConfigError, match=r"weights are not those of this model \(.*embedding.*\)") as refused:
            train(*choices, outputs=folder / "refused")
        (advised,) = re.findall(r"start\.only=\S+\]", str(refused.value))
        choices = (*choices, advised)
    theirs, ours = read.newest(run), read.newest(train(*choices, outputs=folder / family))
    theirs_averaged = {**theirs.state, **theirs.content["ema"]}
    equal = {name for name, value in ours.state.items() if value.equal(theirs_averaged[name])}
    assert ours.state.keys() - equal <= ({"network.embedding.weight"} if family == "transformer" else set())
    assert {"network.head.weight", "network.blocks.0.attention.qkv.weight"} <= equal
