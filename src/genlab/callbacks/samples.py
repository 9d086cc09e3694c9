"""Sample grids: the same noise all along a run, so that one can watch it turn into pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from genlab.callbacks.checkpoint import save_before
from genlab.callbacks.ema import averaged_weights
from genlab.callbacks.milestones import Milestones
from genlab.data.image import ImageTable, bits_of, to_float, to_pixels
from genlab.loggers import IsolatedLogger
from genlab.memory import enough_memory
from genlab.model.base import Condition, GenerativeModel, HasLatent, in_eval_mode
from genlab.model.condition import moved
from genlab.png import save_png
from genlab.seeding import RandomStream
from genlab.storage import prepare_folder, write_atomically

FOLDER = "samples"


class SampleGrid(Callback):
    """Writes ``samples/examples=N.png`` into the run folder, and to the loggers that show pictures.

    With labels, column c shows class c (modulo the classes, those without a training image left out); with captions,
    samples are asked for held-out ones in turn, which stand in ``captions-examples=N.txt``. Of a model with latents
    there are two more grids, of held-out images: ``reconstructions-examples=N.png``, rows of images and below each what
    comes back of it; and ``interpolations-examples=N.png``, rows of latents from one image's to another's.
    """

    def __init__(self, times: int = 10, rows: int = 8, columns: int = 10, seed: int = 0, count: int | None = None):
        """``count``: samples, in as many rows as that takes. Raises ValueError if a number of them is below 1."""
        if min(rows, columns, count or (1 if count is None else 0)) < 1:
            raise ValueError(
                f"rows={rows}, columns={columns} and count={count} must be at least 1. For no grid: "
                "callbacks.samples.times=0."
            )
        if count is not None:
            rows, columns = -(-count // columns), min(count, columns)
        self.milestones = Milestones(times)
        self.rows, self.columns, self.seed = rows, columns, seed
        self.drawn: tuple[int, Tensor] | None = None  # examples seen at the last grid, and its samples, for who watches

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, GenerativeModel)
        self.milestones.start(pl_module.progress.fraction)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, GenerativeModel)
        if pl_module.at_optimizer_step(batch_idx) and self.milestones.reached(pl_module.progress.fraction):
            save_before(trainer, pl_module)
            self.show(trainer, pl_module)

    def show(self, trainer: Trainer, model: GenerativeModel) -> None:
        remedy = f"callbacks.samples.rows={max(1, self.rows // 2)}"
        with averaged_weights(trainer, model), enough_memory("while samples were drawn", remedy):
            bits = trainer.datamodule.spec.bits  # type: ignore[attr-defined]
            grids = {"samples": sample_images(model, range(self.rows * self.columns), self.seed, bits=bits)}
            self.drawn = model.progress.examples, grids["samples"]
            if isinstance(model, HasLatent):
                table = trainer.datamodule.table("val")  # type: ignore[attr-defined]
                grids["reconstructions"] = reconstructions(model, table, max(1, self.rows // 2), self.columns)
                grids["interpolations"] = interpolations(model, table, self.rows, self.columns)
        asked = model.conditions.words(asked_of(model, range(self.rows * self.columns)))
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir) / FOLDER
            prepare_folder(folder, folder.parent)
            for name, images in grids.items():
                prefix = "" if name == "samples" else f"{name}-"
                file = f"{prefix}examples={model.progress.examples:012d}.png"
                path = folder / file
                save_grid(images, self.columns, path)
                if name == "samples" and asked:
                    write_captions(asked, captions_of(path))
                for logger in trainer.loggers:
                    if isinstance(logger, IsolatedLogger):
                        step = trainer.fit_loop.epoch_loop._batches_that_stepped
                        logger.show_image(name, path, self._caption(name, model, asked), model.progress.examples, step)

    def _caption(self, name: str, model: GenerativeModel, asked: list[str]) -> str:
        shown = {
            "samples": f"samples 0 to {self.rows * self.columns - 1} of seed {self.seed}",
            "reconstructions": "held-out images, and below each what comes back of it",
            "interpolations": "each row: latents on the way from one held-out image to another, decoded",
        }[name]
        if name == "samples" and model.conditions.is_label_alone:
            shown += f"; column c: class c (modulo {model.num_classes})"
        if name == "samples" and asked:
            shown += f", asked for: {' | '.join(asked)}"
        return f"after {model.progress.examples:,} examples: {shown}"


def sample_images(
    model: GenerativeModel, indices: range, seed: int, typed: Condition | None = None, bits: int = 8
) -> Tensor:
    """The samples ``indices`` of a seed, (N, C, H, W) uint8 (uint16 if ``bits`` is 16), on the CPU; asked for as
    :func:`asked_of` says."""
    with in_eval_mode(model):
        stream = RandomStream.for_samples(seed, indices, model.device)
        images = model.sample(len(indices), asked_of(model, indices, typed), stream)
    return to_pixels(images, bits).cpu()


def asked_of(model: GenerativeModel, indices: range, typed: Condition | None = None) -> Condition | None:
    """What the samples ``indices`` of a grid are asked for: the rows of ``typed`` in turn, and nothing by the keys that
    it lacks; or where nothing is typed, all classes, or held-out captions, in turn. An evaluation asks for another mix:
    that of its reference."""
    conditions = model.conditions
    if not typed:
        return moved(conditions.in_turn(indices), model.device)
    rows = {key: values[torch.tensor(indices) % len(values)] for key, values in typed.items()}
    return conditions.filled(rows, len(indices), model.device)


def reconstructions(model: GenerativeModel, table: ImageTable, rows: int, columns: int) -> Tensor:
    """Rows of images from all over ``table``, and below each what decoding its latent gives. Rows of ``columns`` uint8
    images, 2 * ``rows`` of them; on the CPU."""
    chosen = np.arange(rows * columns) * len(table) // (rows * columns)
    x, condition = _held_out(model, table, chosen)
    with in_eval_mode(model), torch.no_grad():
        again = model.decode(model.encode(x, condition), condition)  # type: ignore[operator]
    pairs = torch.stack([x.unflatten(0, (rows, columns)), again.unflatten(0, (rows, columns))], dim=1)
    return to_pixels(pairs.flatten(0, 2), bits_of(table.images)).cpu()


def interpolations(model: GenerativeModel, table: ImageTable, rows: int, columns: int) -> Tensor:
    """Rows of decoded latents on the way from one image of ``table`` to another, of its class where there are classes;
    (rows * columns, C, H, W) uint8, on the CPU."""
    starts = np.arange(rows) * len(table) // rows
    ends = [_partner(table, int(start)) for start in starts]
    (x, condition), (y, _) = _held_out(model, table, starts), _held_out(model, table, np.array(ends))
    with in_eval_mode(model), torch.no_grad():
        start, end = model.encode(x, condition), model.encode(y, condition)  # type: ignore[operator]
        path = [slerp(start, end, t) for t in torch.linspace(0, 1, columns).tolist()]
        images = [model.decode(z, condition) for z in path]  # type: ignore[operator]
    return to_pixels(torch.stack(images, dim=1).flatten(0, 1), bits_of(table.images)).cpu()


def slerp(start: Tensor, end: Tensor, t: float) -> Tensor:
    """Turn the direction of ``start`` towards that of ``end`` at an even pace (Shoemake 1985), its length on a line.

    A straight path between normal latents would pass too close to 0. ``t``: 0 to 1. Like ``start``."""
    a, b = start.flatten(1), end.flatten(1)
    lengths = torch.lerp(a.norm(dim=1), b.norm(dim=1), t)[:, None]
    a, b = F.normalize(a), F.normalize(b)
    angle = (a * b).sum(dim=1, keepdim=True).clamp(-1, 1).acos()
    turned = torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b
    direction = F.normalize(torch.where(angle.sin() > 1e-4, turned, torch.lerp(a, b, t)))
    return (lengths * direction).view_as(start)


def _partner(table: ImageTable, start: int) -> int:
    """Another image of the class, about half a table further on; of any class where there are none."""
    others = (np.arange(len(table)) + start + len(table) // 2) % len(table)
    if table.labels is not None:
        others = others[table.labels[others] == table.labels[start]]
    return int(others[0])


def _held_out(model: GenerativeModel, table: ImageTable, indices: np.ndarray) -> tuple[Tensor, Condition | None]:
    images = to_float(torch.from_numpy(table.images[indices])).to(model.device)
    known = {key: value for key, value in table.told(indices).items() if key in model.conditions.kinds}
    return images, moved(known or None, model.device)


def captions_of(picture: Path) -> Path:
    """Where the captions of a picture of samples stand."""
    return picture.with_name(f"captions-{picture.stem}.txt")


def write_captions(captions: list[str], path: Path) -> None:
    """What samples were asked for, a line each, in the order of a grid. Raises StorageError."""
    write_atomically(path, lambda file: file.write("".join(f"{text}\n" for text in captions).encode()))


def save_grid(images: Tensor, columns: int, path: Path, smallest: int = 48) -> None:
    """Images (N, C, H, W), uint8 or uint16, as one PNG, row by row. Small ones are enlarged, pixel by pixel, to
    ``smallest``. C is 1 grey, 2 grey + alpha, 3 RGB or 4 RGBA."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    kind = np.uint8 if images.dtype == torch.uint8 else np.uint16
    white = np.iinfo(kind).max
    tiles = np.full((rows * columns, channels, height + 1, width + 1), white, dtype=kind)  # a line between tiles
    tiles[:count, :, :-1, :-1] = images.numpy()
    grid = tiles.reshape(rows, columns, channels, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    grid = grid.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    scale = -(-smallest // width)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(grid.repeat(scale, axis=0).repeat(scale, axis=1), path)


def save_pictures(pictures: Mapping[str, Tensor], run: Path, of: str) -> list[Path]:
    """What metrics show, (C, H, W) uint8 by name, as ``samples/<name>-<of>.png`` of a run. Returns where they are.
    Raises StorageError."""
    if pictures:
        prepare_folder(run / FOLDER, run)
    paths = [run / FOLDER / f"{name}-{of}.png" for name in pictures]
    for picture, path in zip(pictures.values(), paths, strict=True):
        save_grid(picture[None], 1, path, smallest=1)
    return paths
