"""Writes edited pictures: a strip, an array, a folder or a moving picture, and the noise of a picture."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from genlab.files.atomic import write_atomically, writing
from genlab.sampling.pictures import save_grid
from genlab.sampling.png import save_png
from genlab.sampling.video import is_video, write_video

_COLUMNS = 10  # of a strip


def write_edited(
    beside: Mapping[str, Tensor], results: Tensor, noise: Tensor | None, path: Path, fps: int
) -> Path | None:
    """Write ``results`` (N, C, H, W), uint8 or uint16: after the pictures ``beside`` (C, H, W), by name, as a ``.png``;
    as ``images`` (N, H, W, C) of a ``.npz``; as a PNG each in a folder that is there, ``beside`` among them by their
    names; or as a ``.gif`` or ``.mp4`` of ``fps`` pictures a second that goes there and back.

    ``noise`` (N, ...) is ``noise`` of a .npz, or a .safetensors of the same name, whose path is returned. Raises
    StorageError.
    """
    if path.is_dir():
        with writing(path):
            numbered = {f"{i:06d}": picture for i, picture in enumerate(results)}
            for name, picture in {**beside, **numbered}.items():
                save_png(picture.permute(1, 2, 0).numpy(), path / f"{name}.png")
    elif path.suffix.lower() == ".npz":
        arrays = {"images": results.permute(0, 2, 3, 1).numpy()}
        arrays |= {} if noise is None else {"noise": noise.cpu().numpy()}
        write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
        return None
    elif is_video(str(path)):
        write_video(_there_and_back(results), path, fps)
    else:
        tiles = torch.cat([torch.stack([*beside.values()]), results])
        with writing(path.parent):
            save_grid(tiles, min(len(tiles), _COLUMNS), path)
    if noise is None:
        return None
    content = save({"noise": noise.cpu().contiguous()})
    beside_it = path / "noise.safetensors" if path.is_dir() else path.with_suffix(".safetensors")
    write_atomically(beside_it, lambda file: file.write(content))
    return beside_it


def _there_and_back(results: Tensor) -> Iterator[Tensor]:
    yield from results
    yield from results[1:-1].flip(0)
