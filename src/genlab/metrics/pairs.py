"""A picture of pairs of images and how far apart they are."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_ACROSS = 6  # pairs in a row
_SMALLEST = 64  # pixels that an image is at least wide on the picture; small ones are enlarged, pixel by pixel
_GAP, _STRIP = 10, 18  # pixels between pairs, and below them for the distance
_FONT = ImageFont.load_default(size=13)


def pairs_picture(left: Tensor, right: Tensor, distances: Tensor) -> Tensor:
    """Images (N, C, H, W) uint8, each beside its partner, and below it their distance (N,) -> (3, H', W') uint8."""
    scale = -(-_SMALLEST // left.shape[-1])
    pairs = torch.cat([left, torch.full_like(left[..., :1], 255), right], dim=-1).expand(-1, 3, -1, -1)
    height, width = (scale * side for side in pairs.shape[-2:])
    rows, across = -(-len(pairs) // _ACROSS), min(_ACROSS, len(pairs))
    size = (across * (width + _GAP) + _GAP, rows * (height + _STRIP + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for i, (pair, distance) in enumerate(zip(pairs, distances.tolist(), strict=True)):
        x, y = _GAP + i % _ACROSS * (width + _GAP), _GAP + i // _ACROSS * (height + _STRIP + _GAP)
        tile = Image.fromarray(pair.permute(1, 2, 0).contiguous().numpy())
        sheet.paste(tile.resize((width, height), Image.Resampling.NEAREST), (x, y))
        draw.text((x, y + height + 2), f"{distance:.4f}", fill="black", font=_FONT)
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)
