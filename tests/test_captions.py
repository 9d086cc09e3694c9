"""Pictures that are asked for in words: every family is told captions, and commands read them."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from genlab.cli import main
from genlab.config.tree import ConfigTree, resolved
from genlab.data.image import to_float
from genlab.data.scenes import SHAPES as SHAPE_NAMES
from genlab.model.base import GenerativeModel, HasLikelihood, in_eval_mode
from genlab.model.diffusion import Diffusion
from genlab.run import run_folder
from genlab.run.assemble import build_data, build_model
from genlab.run.load import load_run
from genlab.seeding import RandomStream
from genlab.task.generate import Generate
from tiny_run import compose_small, train

SHAPES = ("data=shapes", "data.image_size=16", "data.max_objects=1", "data.num_train=16", "data.num_val=8")
FAMILIES = {
    "diffusion": ("model/network=mlp",),
    "unet": ("model.network.channel_mult=[1,1]", "model.guidance=2.0"),
    "unet_words": ("model.network.channel_mult=[1,1]", "model.network.attends_to_words=true"),
    "dit": ("model/network=dit_small", "model/guidance=interval"),
    "dit_words": ("model/network=dit_small", "model.network.attends_to_words=true"),
    "mmdit": ("model/network=mmdit", "model.guidance=2.0"),
    "gan": ("model=gan",),
    "sngan": ("model=gan", "model/generator=sngan", "model/discriminator=sngan"),
    "biggan": ("model=gan", "model/generator=biggan", "model/discriminator=biggan"),
    "vae": ("model=vae",),
    "hierarchical_vae": ("model=hierarchical_vae",),
    "flow": ("model=flow", "model.guidance=2.0"),
    "tarflow": ("model=flow", "model/network=tarflow", "model.guidance=2.0"),
    "transformer": ("model=transformer", "model.guidance=2.0"),
    "masked": ("model=masked", "model.guidance=2.0"),
}
TOLD = ("[caption]", "[label,caption]")
SOME = {("unet", "[label,caption]"), ("unet_words", "[label,caption]"), ("dit_words", "[caption]"),
        ("mmdit", "[label,caption]"), ("gan", "[caption]"), ("vae", "[caption]"), ("flow", "[caption]"),
        ("tarflow", "[label,caption]"), ("masked", "[label,caption]")}  # fmt: skip


def made(*overrides: str, outputs: Path) -> tuple[Any, Any]:
    config = compose_small(*SHAPES, *overrides, outputs=outputs)
    data = build_data(config)
    model = build_model(resolved(config))
    model.configure_model()
    assert isinstance(model, GenerativeModel)
    torch.manual_seed(0)
    for parameter in model.parameters():  # nothing is zero, so that all that is told counts
        torch.nn.init.normal_(parameter, std=0.1)
    return data, model


@pytest.mark.parametrize(("family", "told"), [
    pytest.param(*case, marks=() if case in SOME else pytest.mark.matrix, id="-".join(case))
    for case in product(FAMILIES, TOLD)
])  # fmt: skip
def test_every_family_is_told(family: str, told: str, tmp_path: Path) -> None:
    """It learns from captions, draws others for others, and its likelihood depends on them."""
    data, model = made(*FAMILIES[family], f"model.conditions={told}", outputs=tmp_path)
    batch = data.dataset("train")[[(0, i) for i in range(4)]]
    batch["image"] = to_float(batch["image"])
    sum(loss for name, loss in model.losses(batch).items() if "accuracy" not in name).backward()
    words = {name: p for name, p in model.named_parameters() if "caption.words" in name}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in words.values())
    assert len(words) > 0 or family in ("transformer", "masked")  # to which a word is a token like others

    def drawn(first: int) -> torch.Tensor:
        asked = model.conditions.in_turn(range(first, first + 2))
        return model.sample(2, asked, RandomStream.for_samples(1, range(2)))

    with in_eval_mode(model):
        assert drawn(0).shape == (2, 3, 16, 16)
        if family != "masked":  # where a few words of 772 tokens move logits, and in so small a network no sample
            assert not torch.equal(drawn(0), drawn(2))
        assert torch.equal(drawn(0), drawn(0))
        if isinstance(model, HasLikelihood) and model.likelihood_kind != "estimate":
            x, one, other = batch["image"][:2].clamp(-1, 0.99), *(model.conditions.in_turn([i] * 2) for i in (0, 3))
            assert not torch.equal(model.log_likelihood(x, one), model.log_likelihood(x, other))


@pytest.mark.parametrize(("overrides", "said"), [
    (("model=vq_vae", "model.conditions=[caption]"), "a VQVAE only counts its codes by label"),
    (("data=digits", "model.conditions=[caption]"), "the data have no caption, they have label"),
    (("model/guidance=interval", "model=flow"), "does not fit here"),
])  # fmt: skip
def test_what_a_family_cannot_be_told(overrides: tuple[str, ...], said: str, tmp_path: Path, capsys: Any) -> None:
    shapes = () if "data=digits" in overrides else SHAPES
    with pytest.raises(SystemExit) as end:
        main(["train", *shapes, "trainer=cpu", "logger=[none]", f"outputs={tmp_path}", *overrides])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*SHAPES, "model/network=mlp", "model.network.width=8", "model.network.depth=1",
                 "model.sampler.num_steps=2", "model.conditions=[label,caption]", "data.limit=16", "budget.value=16",
                 "callbacks.samples.times=1", "callbacks.samples.rows=1",
                 outputs=tmp_path_factory.mktemp("captions"))  # fmt: skip


def test_grids_say_what_was_asked_for(run: Path) -> None:
    (grid,) = (run / "samples").glob("examples=*.png")
    captions = (run / "samples" / f"captions-{grid.stem}.txt").read_text().splitlines()
    assert len(captions) == 2
    assert all(set(caption.split()) & {"circle", "square", "triangle", "ring"} for caption in captions)


def test_samples_are_asked_for_in_words(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    original = Diffusion.sample

    def spy(self: Diffusion, num_samples: int, condition: Any = None, generator: Any = None) -> torch.Tensor:
        asked.append((self.conditions.words(condition), self.conditions.label_of(condition).tolist()))  # type: ignore[union-attr]
        return original(self, num_samples, condition, generator)

    def sample(*typed: str) -> Any:
        main(["sample", f"run={run}", "n=2", f"out={tmp_path / 'a.png'}", *typed])
        return asked.pop()

    monkeypatch.setattr(Diffusion, "sample", spy)
    held_out, of_shapes = sample()
    assert (tmp_path / "captions-a.txt").read_text().splitlines() == held_out
    assert [words.split()[-1] for words in held_out] == [SHAPE_NAMES[label] for label in of_shapes]
    assert sample("prompt=A large  red circle") == (["a large red circle"] * 2, [-1, -1])
    assert (tmp_path / "captions-a.txt").read_text() == "a large red circle\n" * 2
    assert sample("prompt=a ring", "label=ring") == (["a ring"] * 2, [3, 3])
    assert sample("label=[1,ring]") == (["", ""], [1, 3])
    capsys.readouterr()
    for words, said in [("a rad circle", "unknown word 'rad'. Did you mean 'red'?"), ("a " * 9, "it has 9 words")]:
        with pytest.raises(SystemExit) as end:
            main(["sample", f"run={run}", f"prompt={words}"])
        assert end.value.code == 2
        assert f"prompt={words}: {said}" in capsys.readouterr().err


def test_an_evaluation_asks_for_what_the_reference_has(run: Path) -> None:
    config = ConfigTree().change(run_folder.read_config(run), run_folder.read_overrides(run), [])
    data, (model, _) = build_data(config), load_run(config, run)
    assert isinstance(model, GenerativeModel)
    subject, table = Generate().on(data, "val"), data.table("val")  # type: ignore[arg-type, attr-defined]
    asked = subject.asked(model, [0, 3, 9])
    assert asked is not None
    assert table.captions is not None
    assert table.labels is not None
    assert asked["caption"].tolist() == table.captions[[0, 3, 1]].tolist()
    assert asked["label"].tolist() == table.labels[[0, 3, 1]].tolist()
    (said,) = subject.asked_facts(model).values()
    assert said.startswith("rows of the reference")
