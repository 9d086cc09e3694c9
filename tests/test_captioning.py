"""Captions of pictures as a user asks for them: ``sample run=... image=...``, and what is refused."""

from pathlib import Path

import pytest
import torch

from genlab.cli import run as command_line
from genlab.data.digits import Digits
from genlab.errors import ConfigError, DataError
from genlab.metrics.caption_perplexity import CaptionPerplexity
from genlab.sampling.captions import Captions
from genlab.sampling.png import save_png
from genlab.sampling.texts import Texts
from tiny_run import small, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*small("model=captioner"), "budget.value=16", outputs=tmp_path_factory.mktemp("captioner"))


def test_a_picture_gets_its_caption(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        save_png(torch.randint(256, (16, 16, 3), dtype=torch.uint8).numpy(), tmp_path / f"{name}.png")
    command_line(["sample", f"run={run}", f"image={tmp_path}", f"out={tmp_path / 'captions.txt'}"])
    lines = (tmp_path / "captions.txt").read_text().splitlines()
    assert [Path(line.split("\t")[0]).name for line in lines] == ["a.png", "b.png"]
    assert "2 samples" in capsys.readouterr().out


def test_what_is_asked_of_it_is_a_picture(run: Path, tmp_path: Path) -> None:
    """Each advice is what the test above types."""
    save_png(torch.zeros(16, 16, 3, dtype=torch.uint8).numpy(), tmp_path / "x.png")
    for typed, said in (
        ((), "describes pictures: name one, several or a folder: image=picture.png"),
        (("prompt=a",), "describes pictures. Name one: image=picture.png"),
        ((f"image={tmp_path / 'x.png'}", "out=x.jpg"), "Use out=x.txt"),
    ):
        with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
            command_line(["sample", f"run={run}", *typed])
    with pytest.raises(DataError, match="there is no such file"):
        command_line(["sample", f"run={run}", "image=nowhere.png"])
    other = train("model=vae", "budget.value=8", outputs=tmp_path)
    with pytest.raises(ConfigError, match=r"does not describe pictures\. Leave task= out"):
        command_line(["sample", f"run={other}", "task=caption", "image=x.png"])


def test_texts_take_no_picture() -> None:
    with pytest.raises(ConfigError, match=r"the model of r continues text\. Leave image= out"):
        Texts.read(None, None, {"image": ["x.png"]}, Path("r"))  # type: ignore[arg-type]
    assert Captions((3, 8, 8)).count == 1


def test_a_perplexity_of_captions_needs_some() -> None:
    class Writes:
        def caption_log_probs(self) -> None: ...

    with pytest.raises(ConfigError, match=r"the data have no captions\. Leave it out of metrics=\[\.\.\.\]\."):
        CaptionPerplexity().check(Writes(), Digits())  # type: ignore[arg-type]


def test_a_model_of_pictures_writes_none(tmp_path: Path) -> None:
    """What is advised, ``model=captioner``, is the run above."""
    typed = ("data=shapes", "data.image_size=16", "data.num_val=8", "model=vae", "budget.value=8", "task=caption")
    with pytest.raises(
        ConfigError, match=r"a VAE does not describe pictures\. Use model=captioner, or leave task= out"
    ):
        train(*typed, "metrics=[cider]", outputs=tmp_path)
