"""Images into the step: genlab's folder of images beside torchvision's; and what large inputs cost."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from benchmarks import large_inputs, peers
from benchmarks.beside import in_turns_beside
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row
from benchmarks.timing import timed
from genlab.data.image_folder import ImageFolder


def rows(options: Options) -> Iterator[Row | Skipped]:
    count, side = options.size(2_000, 24), 32
    with tempfile.TemporaryDirectory() as folder:
        draw_images(Path(folder) / "images", count, side)
        yield from _epochs(options, Path(folder), count, side)
    yield from large_inputs.rows("data", ("pictures", "text"), options)


def _epochs(options: Options, folder: Path, count: int, side: int) -> Iterator[Row | Skipped]:
    work = f"{count} PNG of {side} px, an epoch"
    try:
        datasets, transforms = peers.package("torchvision.datasets"), peers.package("torchvision.transforms")
    except peers.Missing as missing:
        yield Skipped("data", work, str(missing))
        return
    batch = options.size(64, 8)
    data = ImageFolder(
        str(folder / "images"), val_root=str(folder / "images"), cache_dir=str(folder / "cache"), batch_size=batch
    )
    decoding = timed(lambda: data.check(1))  # once for all runs
    strategy = SimpleNamespace(root_device=torch.device(options.device))
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)  # type: ignore[assignment]
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    theirs = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(folder / "images"), transform), batch, shuffle=True, drop_last=True
    )

    def ours() -> Iterator[Tensor]:
        data._position = (0, 0)
        for found in data.train_dataloader():
            yield data.on_after_batch_transfer({k: v.to(options.device) for k, v in found.items()}, 0)["image"]

    def others() -> Iterator[Tensor]:
        for found, label in theirs:
            label.to(options.device)
            yield found.to(options.device)

    seen = [torch.cat([batch.mean((1, 2, 3)) for batch in side()]).sort().values.cpu() for side in (ours, others)]
    assert torch.allclose(seen[0].double().mean(), seen[1].double().mean(), atol=0.05)
    every = count % batch == 0
    if every:
        assert torch.allclose(*seen, atol=1e-5), "the two do not read the same images"
    measured = in_turns_beside(
        {"genlab": lambda: [None for _ in ours()]},
        {"ImageFolder + DataLoader": lambda: [None for _ in others()]},
        options.rounds,
        options.seconds,
        options.device,
    )
    yield row(
        "data",
        work,
        measured,
        "ImageFolder + DataLoader",
        "the same images, by their means",
        aim=87,
        device=options.device,
        decoded_once_seconds=decoding.cpu,
    )


def draw_images(folder: Path, count: int, side: int) -> None:
    """Noise over smooth colors, in two classes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        place = folder / f"class{i % 2}" / f"{i:05d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        smooth = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((side, side))
        noisy = np.asarray(smooth) + rng.normal(scale=8.0, size=(side, side, 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(place)
