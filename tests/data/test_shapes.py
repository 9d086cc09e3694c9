"""The datamodule of scenes: batches, epochs, tables and the spec, and what is refused."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from genlab.data.image import ImageDataset
from genlab.data.sampler import ResumableBatchSampler
from genlab.data.scenes import SHAPES, WORDS, to_text
from genlab.data.shapes import Shapes
from genlab.errors import ConfigError


def test_batches_hold_image_label_and_caption_of_their_epoch() -> None:
    data = Shapes(num_train=50)
    dataset = data.dataset("train")
    assert len(dataset) == 50
    batch = dataset[[(2, 7), (2, 3)]]
    scenes = data.scenes("train", 2, [7, 3])
    assert {name: x.dtype for name, x in batch.items()} == {
        "image": torch.uint8, "index": torch.int64, "label": torch.int64, "caption": torch.int64}  # fmt: skip
    assert batch["index"].tolist() == [7, 3]
    assert np.array_equal(batch["image"], data.render(scenes))
    assert np.array_equal(batch["caption"], data.tokens(scenes))
    words = [caption.split()[3] for caption in data.captions(scenes)]
    assert [SHAPES[label] for label in batch["label"]] == words


@pytest.mark.parametrize("num_workers", [0, 2])
def test_epochs_bring_new_scenes_unless_told_otherwise(num_workers: int) -> None:
    def images(epoch: int, **options: object) -> torch.Tensor:
        dataset = Shapes(num_train=40, **options).dataset("train")  # type: ignore[arg-type]
        loader = DataLoader(dataset, sampler=ResumableBatchSampler(len(dataset), 20, 0, 0, 1, epoch), batch_size=None,
                            num_workers=num_workers)  # fmt: skip
        index, image = (torch.cat([batch[name] for batch in loader]) for name in ("index", "image"))
        return image[index.argsort()]

    first = torch.from_numpy(Shapes(num_train=40).table("train").images)
    assert torch.equal(images(0), first)
    assert (images(1) != images(0)).flatten(1).any(1).all()
    assert torch.equal(images(1, fresh=False), first)
    assert torch.equal(images(1, limit=20), first[:20])


def test_tables_and_the_spec_agree() -> None:
    data = Shapes(image_size=48, num_train=30, num_val=20, limit=10)
    assert not data._tables
    spec = data.spec
    assert not data._tables  # nothing was rendered for it
    for split, count in (("train", 10), ("val", 20)):
        table = data.table(split)  # type: ignore[arg-type]
        assert table.images.shape == (count, *spec.shape)
        assert table.labels is not None
        assert table.captions is not None
        assert table.captions.shape == (count, spec.condition["caption"].length)
        assert table.names == spec.condition["label"].names
    assert isinstance(data.dataset("val"), ImageDataset)
    batch = next(iter(data.val_dataloader()))
    assert np.array_equal(batch["caption"], data.table("val").captions)
    caption = spec.to_config()["condition"]["caption"]
    examples = caption.pop("examples")
    assert caption == {"size": 20, "length": 17, "names": list(WORDS)}
    held_out = data.table("val")  # type: ignore[arg-type]
    assert held_out.labels is not None
    assert examples == to_text(batch["caption"])[:64]
    assert spec.to_config()["condition"]["label"]["examples"] == held_out.labels[:64].tolist()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"image_size": 24}, "data.image_size must be a multiple of 16, got 24."),
        ({"image_size": 0}, "data.image_size must be a multiple of 16, got 0."),
        ({"max_objects": 4}, "data.max_objects must be 1, 2 or 3, got 4."),
        ({"num_val": 0}, "data.num_val must be a whole number >= 1, got 0."),
        ({"num_train": -1}, "data.num_train must be a whole number >= 1, got -1."),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, int], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Shapes(**options)  # type: ignore[arg-type]
    assert str(caught.value) == text


def test_a_batch_size_larger_than_an_epoch_is_refused_without_rendering() -> None:
    data = Shapes(num_train=10, batch_size=20)
    with pytest.raises(ConfigError, match="the training set has 10 items"):
        data.check(1)
    assert not data._tables
