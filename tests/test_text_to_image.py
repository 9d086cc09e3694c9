"""task=text_to_image: sample i is drawn for caption i of the reference, and judged by it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genlab import cli
from genlab.data.digits import Digits
from genlab.data.shapes import Shapes
from genlab.errors import ConfigError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.scene_accuracy import SceneAccuracy
from genlab.model.base import GenerativeModel
from genlab.model.condition import Conditions
from genlab.model.schedule import Constant
from genlab.seeding import RandomStream
from genlab.task.text_to_image import TextToImage
from tiny_run import MLP

DATA = Shapes(image_size=16, max_objects=2, num_train=8, num_val=60, fresh=False)


class Paints(GenerativeModel):
    """Draws for each caption the held-out picture that has it."""

    kinds = frozenset({"continuous"})

    def __init__(self) -> None:
        super().__init__(0, Constant())
        self.conditions = Conditions.told(DATA.spec.to_config()["condition"], ["caption"])
        table = DATA.table("val")
        assert table.captions is not None
        self.known = {tuple(row): image for row, image in zip(table.captions.tolist(), table.images, strict=True)}

    def sample(self, num_samples: int, condition: Any = None, generator: RandomStream | None = None) -> Tensor:
        images = [torch.from_numpy(self.known[tuple(row)]) for row in condition["caption"].tolist()]
        return torch.stack(images).float() / 127.5 - 1

    def configure_model(self) -> None: ...

    def training_step(self, batch: Any, batch_idx: int) -> None: ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        return {}


def test_who_listens_is_right_and_who_is_held_against_others_is_not() -> None:
    """70 samples for 60 captions: the first come again. Batches do not show."""
    results = [
        Evaluation(None, {"m": SceneAccuracy()}, 70, batch_size=size, task=TextToImage()).run(
            Paints(), DATA, weights="raw"
        )
        for size in (64, 7)
    ]
    assert results[0].values == results[1].values
    assert results[0].values["scene_accuracy_70"] == 1
    assert results[0].values["scene_reader_error_70"] == 0
    shuffled = Evaluation(None, {"m": SceneAccuracy()}, 70, task=TextToImage(shuffled=True))
    chance = shuffled.run(Paints(), DATA, weights="raw")
    assert chance.values["scene_accuracy_70"] < 0.1
    assert chance.ids["scene_accuracy_70"] != results[0].ids["scene_accuracy_70"]


def test_baselines_have_captions() -> None:
    """Real pictures show their captions, and hardly ever those of others; 60 are asked for, of 60, and 8 to train."""
    judge = Evaluation(None, {"m": SceneAccuracy()}, 60, task=TextToImage())
    made = TextToImage().on(DATA, "val").baselines(60, 0)
    assert set(made) == {"real", "shuffled", "uniform_noise"}, "there are too few training scenes for a floor"
    accuracy = {name: judge.score(examples, DATA).values["scene_accuracy_60"] for name, examples in made.items()}
    assert accuracy["real"] == 1
    assert accuracy["shuffled"] < 0.1
    assert accuracy["uniform_noise"] == 0
    assert torch.equal(made["real"]["image"], made["shuffled"]["image"])
    few = TextToImage().on(DATA, "val").baselines(8, 0)
    assert Evaluation(None, {"m": SceneAccuracy()}, 8).score(few["floor"], DATA).values["scene_accuracy_8"] == 1


def test_what_cannot_be() -> None:
    untold = Paints()
    untold.conditions = Conditions.told(DATA.spec.to_config()["condition"], ["label"])
    judge = Evaluation(None, {"m": SceneAccuracy()}, 8, task=TextToImage())
    with pytest.raises(ConfigError, match=r"takes no captions. Train it with model.conditions=\[caption\]"):
        judge.run(untold, DATA, weights="raw")
    with pytest.raises(ConfigError, match=r"needs images with captions; the data are image without\. Leave task= out"):
        Evaluation(None, {"m": SceneAccuracy()}, 8, task=TextToImage()).check(Paints(), Digits())
    with pytest.raises(ConfigError, match="metrics=m needs a model that takes captions"):
        Evaluation(None, {"m": SceneAccuracy()}, 8).check(untold, DATA)


def test_a_run_is_judged_by_its_captions(tmp_path: Path) -> None:
    cli.run(
        ["train", "data=shapes", "data.max_objects=1", "data.image_size=16", "data.num_val=20", "data.batch_size=8",
         "model=diffusion", *MLP, "model.conditions=[caption]", "task=text_to_image", "metrics=[scene_accuracy]",
         "trainer=cpu", "logger=[none]", "budget.value=16", "evaluation.num_samples=8", "callbacks.samples.times=1",
         "callbacks.samples.rows=1", "callbacks.samples.columns=2", "callbacks.evaluation.times=0",
         f"folder={tmp_path / 'run'}"]
    )  # fmt: skip
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert 0 <= summary["metrics"]["color_accuracy_8"] <= 1
    assert summary["metrics"]["scene_reader_error_8"] == 0
    cli.run(["sample", f"run={tmp_path / 'run'}", "n=2", "prompt=a small red ring", f"out={tmp_path / 'out.png'}"])
    assert (tmp_path / "captions-out.txt").read_text() == "a small red ring\n" * 2
