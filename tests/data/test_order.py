"""The order of the data is a function of (seed, epoch), whatever the number of ranks, workers and interruptions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from genlab.data.base import Split
from genlab.data.image import ImageDataModule, ImageDataset, ImageTable
from genlab.data.sampler import ResumableBatchSampler


def order(seed: int = 0, epoch: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> list[list[int]]:
    sampler = ResumableBatchSampler(103, 20, seed, rank, world, epoch, start)
    return [[index for _, index in keys] for keys in sampler]


def counted_table(count: int, size: int = 4) -> ImageTable:
    """Image i is full of i but for its left column, which is 255."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 1, size, size)).copy()
    images[..., 0] = 255
    return ImageTable(images, np.arange(count) % 3, ("a", "b", "c"))


class CountedData(ImageDataModule):
    def load(self, split: Split) -> ImageTable:
        return counted_table(23 if split == "train" else 7)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert order() == order()
    assert len({str(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert order()[0][:5] == [0, 95, 41, 60, 43]  # pinned: a change breaks every resume


def test_an_epoch_has_every_index_at_most_once_and_drops_what_fills_no_batch() -> None:
    seen = [index for batch in order() for index in batch]
    assert len(seen) == len(set(seen)) == 100


@pytest.mark.parametrize("world", [2, 4])
def test_global_batches_do_not_depend_on_the_number_of_ranks(world: int) -> None:
    shares = [order(rank=rank, world=world) for rank in range(world)]
    for batch, *parts in zip(order(), *shares, strict=True):
        assert [index for entry in zip(*parts, strict=True) for index in entry] == batch


@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_a_resumed_epoch_goes_on_where_it_stopped(start: int) -> None:
    assert order(epoch=2, start=start) == order(epoch=2)[start:]
    sampler = ResumableBatchSampler(103, 20, 0, 0, 1, 2, start)
    assert len(sampler) == 5
    sampler.set_epoch(2)
    assert len(list(sampler)) == 5 - start
    sampler.set_epoch(3)
    assert [[index for _, index in keys] for keys in sampler] == order(epoch=3)


def batches(num_workers: int, flip: bool = True) -> list[dict[str, Tensor]]:
    dataset = ImageDataset(counted_table(103), flip, seed=5)
    sampler = ResumableBatchSampler(103, 20, 5, 0, 1)
    return list(DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=num_workers))


@pytest.mark.parametrize("num_workers", [1, 4])
def test_workers_do_not_change_the_data(num_workers: int) -> None:
    for alone, helped in zip(batches(0), batches(num_workers), strict=True):
        assert alone.keys() == helped.keys() == {"image", "index", "label"}
        assert all(torch.equal(alone[name], helped[name]) for name in alone)


def flipped(dataset: ImageDataset, epoch: int, indices: list[int]) -> list[bool]:
    image = dataset[[(epoch, index) for index in indices]]["image"]
    assert bool((image.amax(dim=(1, 2, 3)) == 255).all())
    return (image[:, 0, 0, -1] == 255).tolist()


def test_flips_are_a_function_of_seed_epoch_and_index_and_hit_half() -> None:
    dataset = ImageDataset(counted_table(200), True, seed=1)
    indices = list(range(200))
    whole = flipped(dataset, 0, indices)
    assert whole == [flipped(dataset, 0, [index])[0] for index in indices]
    assert whole[::-1] == flipped(dataset, 0, indices[::-1])
    assert whole != flipped(dataset, 1, indices)
    assert whole != flipped(ImageDataset(counted_table(200), True, seed=2), 0, indices)
    many = [flag for epoch in range(50) for flag in flipped(dataset, epoch, indices)]
    assert abs(np.mean(many) - 0.5) < 4 * 0.5 / len(many) ** 0.5


def test_a_mapped_table_gives_writable_batches_and_is_left_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", counted_table(50).images)
    mapped = np.lib.format.open_memmap(tmp_path / "images.npy", mode="r")
    batch = ImageDataset(ImageTable(mapped), True, seed=1)[[(0, index) for index in range(50)]]
    assert set(batch) == {"image", "index"}
    assert batch["image"].numpy().flags.writeable
    batch["image"].zero_()
    assert np.array_equal(mapped, counted_table(50).images)


class Recorder(LightningModule):
    """Notes the indices it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []
        self.validated: list[int] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(batch["index"].tolist())
        return self.weight

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.validated += batch["index"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveEverywhere(Callback):
    def __init__(self, folder: Path):
        self.folder, self.steps = folder, {}

    def save(self, name: str, trainer: Trainer, module: Recorder) -> None:
        path = self.folder / f"{name}-{len(self.steps)}.ckpt"
        trainer.save_checkpoint(path)
        self.steps[path] = len(module.seen)

    def on_train_batch_end(self, trainer, module, *_) -> None:  # type: ignore[no-untyped-def]
        self.save("batch-end", trainer, module)

    def on_validation_end(self, trainer, module) -> None:  # type: ignore[no-untyped-def]
        self.save("validation-end", trainer, module)

    def on_train_epoch_end(self, trainer, module) -> None:  # type: ignore[no-untyped-def]
        self.save("epoch-end", trainer, module)

    def on_train_end(self, trainer, module) -> None:  # type: ignore[no-untyped-def]
        self.save("train-end", trainer, module)


class StopAfter(Callback):
    """Ends a run after so many batches in all, as a budget does."""

    def __init__(self, batches: int):
        self.batches = batches

    def on_train_batch_end(self, trainer, *_) -> None:  # type: ignore[no-untyped-def]
        trainer.should_stop = trainer.fit_loop.total_batch_idx + 1 >= self.batches


def fit(epochs: int, checkpoint: Path | None = None, callbacks: list[Callback] | None = None) -> Recorder:
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=callbacks,
    )
    trainer.fit(module, CountedData(batch_size=5, seed=3), ckpt_path=checkpoint, weights_only=True)
    return module


@pytest.mark.filterwarnings("ignore")
def test_epochs_resume_exactly_from_wherever_a_checkpoint_was_written(tmp_path: Path) -> None:
    saver = SaveEverywhere(tmp_path)
    fit(2, callbacks=[saver])
    whole = fit(4)
    assert len(whole.seen) == 16
    assert whole.validated == list(range(7)) * 4
    assert len(saver.steps) == 2 * (4 + 1 + 1) + 1
    for path, steps in saver.steps.items():
        assert fit(4, path).seen == whole.seen[steps:], path.name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_a_stopped_run_resumes_exactly_from_the_end_of_a_batch(tmp_path: Path, stop: int) -> None:
    """After it Lightning counts the interrupted epoch as a whole one: no state written then can be exact."""
    saver = SaveEverywhere(tmp_path)
    fit(-1, callbacks=[StopAfter(stop), saver])
    whole = fit(-1, callbacks=[StopAfter(13)])
    exact = {path: steps for path, steps in saver.steps.items() if path.name.startswith(("batch", "validation"))}
    assert max(exact.values()) == stop
    for path, steps in exact.items():
        assert fit(-1, path, [StopAfter(13)]).seen == whole.seen[steps:], path.name
