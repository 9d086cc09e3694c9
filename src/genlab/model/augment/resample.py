"""Images moved and filtered without aliasing, as if reflected endlessly at their edges.

Filters are applied as matrices, one for each axis: an image of any size can be reflected as often as a filter or a
transformation needs, gradients of gradients exist, and nothing depends on the other images of a batch.
"""

from functools import lru_cache

import torch
from torch import Tensor

# The low-pass filter of the symlet of 12 taps (Daubechies 1992, section 8.1.1), as PyWavelets lists it, norm 1.
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
REACH = len(SYM6) // 2 - 1  # places between the first tap of a filter and its middle, on the doubled grid


def fold(places: Tensor, size: int) -> Tensor:
    """Places outside of [0, size), reflected at both edges as often as it takes. An edge is not repeated."""
    if size == 1:
        return torch.zeros_like(places)
    places = places % (2 * size - 2)
    return torch.minimum(places, 2 * size - 2 - places)


def resample(images: Tensor, linear: Tensor, offset: Tensor) -> Tensor:
    """Affine transformations of images on a doubled grid, with the low-pass filter of a wavelet before and after
    (Karras et al. 2020, appendix B.3).

    The doubled image holds a whole period of the reflected one, 16 times as many pixels, so time and memory do not
    depend on the transformations.

    Args:
        images: (N, C, H, W)
        linear: (N, 2, 2): an output pixel o, (x, y) from the center, shows the input at ``linear`` o + ``offset``
        offset: (N, 2), in pixels

    Returns:
        Like ``images``, differentiable with respect to them, twice too.
    """
    count, channels, height, width = images.shape
    device, dtype = images.device, images.dtype
    double = up(height, device, dtype) @ images @ up(width, device, dtype).T  # (N, C, 4 H - 4, 4 W - 4)
    rows, columns = double.shape[2:]
    x = (torch.arange(2 * width + 2 * REACH, device=device, dtype=dtype) - (width + REACH - 1)) / 2
    y = (torch.arange(2 * height + 2 * REACH, device=device, dtype=dtype) - (height + REACH - 1)) / 2
    linear, offset = linear.to(dtype)[..., None, None], offset.to(dtype)[..., None, None]
    x_in = linear[:, 0, 0] * x + linear[:, 0, 1] * y[:, None] + offset[:, 0]  # (N, 2 H + 10, 2 W + 10)
    y_in = linear[:, 1, 0] * x + linear[:, 1, 1] * y[:, None] + offset[:, 1]
    column, right = _neighbors(2 * x_in + width - 1, columns)  # places on the doubled grid
    row, below = _neighbors(2 * y_in + height - 1, rows)
    places = (row[:, :, None] * columns + column[:, None]).view(count, 1, -1)  # (N, 1, 4 K), the corners of a cell
    weights = below[:, :, None] * right[:, None]  # (N, 2, 2, 2 H + 10, 2 W + 10)
    corners = double.flatten(2).gather(2, places.expand(-1, channels, -1)).view(count, channels, *weights.shape[1:])
    moved = (corners * weights[:, None]).sum(dim=(2, 3))
    return down(height, device, dtype) @ moved @ down(width, device, dtype).T


def _neighbors(places: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """The whole places on both sides of each, with their weights in linear interpolation, (N, 2, ...) each."""
    below = places.floor()
    share = places - below
    first = below.long() % period
    return torch.stack([first, (first + 1) % period], dim=1), torch.stack([1 - share, share], dim=1)


@lru_cache(maxsize=16)
def up(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(P, size), the reflected signal on a grid of half the spacing, for a whole period P = 4 size - 4 of it."""
    period = max(4 * size - 4, 2)
    matrix = torch.zeros(period, size, dtype=torch.float64)
    places = torch.arange(period)
    for k, tap in enumerate(SYM6):
        source = places + REACH - k
        at = places[source % 2 == 0]
        matrix[at, fold(source[at] // 2, size)] += 2**0.5 * tap
    return matrix.to(device, dtype)


@lru_cache(maxsize=16)
def down(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(size, 2 size + 10), back from the doubled grid: without a transformation, the inverse of :func:`up`."""
    matrix = torch.zeros(size, 2 * size + 2 * REACH, dtype=torch.float64)
    for k, tap in enumerate(SYM6):
        matrix[torch.arange(size), 2 * torch.arange(size) + k] = tap / 2**0.5
    return matrix.to(device, dtype)


@lru_cache(maxsize=16)
def bands(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(4, size, size): an axis filtered to frequencies up to 1/8, 1/4, 1/2 and all of the highest; the sum is 1.

    Products of the half-band filters of the wavelet of 4 taps (Karras et al. 2020, appendix B.5).
    """
    root = 3**0.5
    wavelet = torch.tensor([1 - root, 3 - root, 3 + root, 1 + root], dtype=torch.float64) / (4 * 2**0.5)
    low = _convolve(wavelet, wavelet.flip(0)) / 2  # 7 taps; the high-pass filter is what it leaves out
    high = -low
    high[3] += 1
    passed, filters = torch.ones(1, dtype=torch.float64), []
    for spacing in (1, 2, 4):
        filters.append(_convolve(passed, _spread(high, spacing)))
        passed = _convolve(passed, _spread(low, spacing))
    filters.append(passed)
    return torch.stack([_matrix(taps, size) for taps in reversed(filters)]).to(device, dtype)


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(a, (len(b) - 1, len(b) - 1))
    return torch.nn.functional.conv1d(padded[None, None], b.flip(0)[None, None])[0, 0]


def _spread(taps: Tensor, spacing: int) -> Tensor:
    """With ``spacing`` - 1 zeros between neighbors."""
    wide = taps.new_zeros(spacing * (len(taps) - 1) + 1)
    wide[::spacing] = taps
    return wide


def _matrix(taps: Tensor, size: int) -> Tensor:
    """(size, size), a filter of odd length on a reflected signal."""
    matrix, places = taps.new_zeros(size, size), torch.arange(size)
    for k, tap in enumerate(taps):
        matrix[places, fold(places + k - len(taps) // 2, size)] += tap
    return matrix
