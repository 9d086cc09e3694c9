"""Writes a run's checkpoints atomically, and only if all values are finite."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import nn

from genlab.checkpoint.read import load
from genlab.errors import NumericsError
from genlab.files.atomic import prepare_folder, write_atomically


def expected_bytes(model: nn.Module) -> int:
    """Approximate size of a checkpoint: weights, their averages, and two optimizer moments."""
    tensors = model.state_dict().values()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return sum(t.numel() * t.element_size() for t in tensors) + 12 * trained


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written atomically and read by :func:`genlab.checkpoint.read.load`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises NumericsError if a tensor is not finite, StorageError if it cannot be written."""
        check_finite(checkpoint)
        prepare_folder(Path(path).parent, Path(path).parent.parent)
        write_atomically(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load(Path(path), "cpu" if map_location is None else map_location)  # also where the GPU is missing


def check_finite(content: Mapping[str, Any], shards: Sequence[torch.Tensor] = ()) -> None:
    """Raises NumericsError if a tensor of what is to be saved is not finite."""
    parts = {part: content.get(part, {}) for part in ("state_dict", "ema", "optimizer_states")}
    for part, tensors in {**parts, "a shard": shards}.items():
        if not _is_finite(tensors):
            examples = content["progress"]["examples"]
            raise NumericsError(
                f"{part} is not finite after {examples:,} examples, so it was not saved; "
                "the last good state is kept. Lower model.optimizer.lr, or set trainer.gradient_clip_val=1.0."
            )


def _is_finite(node: Any) -> bool:
    if isinstance(node, torch.Tensor):
        return not node.is_floating_point() or bool(torch.isfinite(node).all())
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ()
    return all(map(_is_finite, children))
