"""Reconstructions of held-out images, and interpolations between them, for models with latents."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.data.image import ImageTable, bits_of, to_float, to_pixels
from genlab.model.base import Condition, GenerativeModel, in_eval_mode
from genlab.model.condition import moved


def reconstructions(model: GenerativeModel, table: ImageTable, rows: int, columns: int) -> Tensor:
    """Rows of images spread over ``table``, and below each its reconstruction. Rows of ``columns`` uint8
    images, 2 * ``rows`` of them; on the CPU."""
    chosen = np.arange(rows * columns) * len(table) // (rows * columns)
    x, condition = _held_out(model, table, chosen)
    with in_eval_mode(model), torch.no_grad():
        again = model.decode(model.encode(x, condition), condition)  # type: ignore[operator]
    pairs = torch.stack([x.unflatten(0, (rows, columns)), again.unflatten(0, (rows, columns))], dim=1)
    return to_pixels(pairs.flatten(0, 2), bits_of(table.images)).cpu()


def interpolations(model: GenerativeModel, table: ImageTable, rows: int, columns: int) -> Tensor:
    """Rows of decoded latents interpolated from one image of ``table`` to another, of the same class if there are any;
    (rows * columns, C, H, W) uint8, on the CPU."""
    starts = np.arange(rows) * len(table) // rows
    ends = [_partner(table, int(start)) for start in starts]
    (x, condition), (y, _) = _held_out(model, table, starts), _held_out(model, table, np.array(ends))
    with in_eval_mode(model), torch.no_grad():
        start, end = model.encode(x, condition), model.encode(y, condition)  # type: ignore[operator]
        path = [slerp(start, end, t) for t in torch.linspace(0, 1, columns).tolist()]
        images = [model.decode(z, condition) for z in path]  # type: ignore[operator]
    return to_pixels(torch.stack(images, dim=1).flatten(0, 1), bits_of(table.images)).cpu()


def slerp(start: Tensor, end: Tensor, t: float | Tensor) -> Tensor:
    """Spherical interpolation of the direction (Shoemake 1985), and linear interpolation of the length.

    A straight path between normal latents would pass too close to 0. ``t``: 0 to 1, of all rows, or (N,) of each.
    Like ``start``."""
    a, b = start.flatten(1), end.flatten(1)
    t = torch.as_tensor(t, dtype=a.dtype, device=a.device).view(-1, 1)
    lengths = torch.lerp(a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True), t)
    a, b = F.normalize(a), F.normalize(b)
    angle = (a * b).sum(dim=1, keepdim=True).clamp(-1, 1).acos()
    turned = torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b
    direction = F.normalize(torch.where(angle.sin() > 1e-4, turned, torch.lerp(a, b, t)))
    return (lengths * direction).view_as(start)


def _partner(table: ImageTable, start: int) -> int:
    """Another image of the same class, about half a table further on; without classes, any image."""
    others = (np.arange(len(table)) + start + len(table) // 2) % len(table)
    if table.labels is not None:
        others = others[table.labels[others] == table.labels[start]]
    return int(others[0])


def _held_out(model: GenerativeModel, table: ImageTable, indices: np.ndarray) -> tuple[Tensor, Condition | None]:
    images = to_float(torch.from_numpy(table.images[indices])).to(model.device)
    known = {key: value for key, value in table.told(indices).items() if key in model.conditions.kinds}
    return images, moved(known or None, model.device)
