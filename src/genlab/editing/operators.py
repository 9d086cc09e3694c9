"""Linear measurements of pictures, y = A x, with the singular value decomposition A = U S V^T where it is simple.

Each is used through three maps: ``measure`` is A; ``pseudo_inverse`` is A^+ = V S^+ U^T; ``spectral(x, f)`` is
V f(S) V^T x, which treats each direction of x by its singular value, 0 where it is not measured.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R 601, as gray pictures are read
_SMALLEST = 0.03  # singular value of a blur that counts: smaller ones drown in the rounding of pixels


class Operator(Protocol):
    """A linear measurement of images."""

    largest: float  # singular value

    def measure(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> measurements."""
        ...

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Measurements -> the smallest images (N, C, H, W) that have them."""
        ...

    def spectral(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        """V f(S) V^T x of images (N, C, H, W). ``f``: singular values -> numbers, of any shape."""
        ...


class _OneValue(ABC):
    """A measurement all of whose singular values are one, or 0."""

    largest: float

    @abstractmethod
    def measure(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def pseudo_inverse(self, y: Tensor) -> Tensor: ...

    def spectral(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        measured = self.pseudo_inverse(self.measure(x))
        of_measured, of_rest = f(torch.tensor([self.largest, 0.0], dtype=torch.float64)).tolist()
        return of_measured * measured + of_rest * (x - measured)


class SuperResolution(_OneValue):
    """Means of squares of ``factor`` x ``factor`` pixels."""

    def __init__(self, factor: int):
        """Raises ValueError: ``factor`` is below 2."""
        if factor < 2:
            raise ValueError(f"super_resolution={factor} must be 2 or more: how many pixels a side become one.")
        self.factor, self.largest = factor, 1 / factor

    def measure(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.factor)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.factor, dim=2).repeat_interleave(self.factor, dim=3)


class Gray(_OneValue):
    """The luma of RGB images: (N, 3, H, W) -> (N, 1, H, W)."""

    largest = sum(weight**2 for weight in LUMA) ** 0.5

    def measure(self, x: Tensor) -> Tensor:
        return (x * self._weights(x)).sum(dim=1, keepdim=True)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return y * self._weights(y) / self.largest**2

    def _weights(self, x: Tensor) -> Tensor:
        return x.new_tensor(LUMA)[:, None, None]


class Known(_OneValue):
    """The pixels that are known, 0 elsewhere."""

    largest = 1.0

    def __init__(self, unknown: Tensor):
        """``unknown``: (1, 1, H, W) or (N, 1, H, W) bool."""
        self.unknown = unknown

    def measure(self, x: Tensor) -> Tensor:
        return torch.where(self.unknown, 0.0, x)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.measure(y)


class Blur:
    """A Gaussian blur, of pictures that go on at the opposite edge. Waves that it leaves less than 3 % of do not count
    as measured."""

    largest = 1.0

    def __init__(self, std: float, height: int, width: int):
        """``std``: of the Gaussian, in pixels. Raises ValueError: it is not above 0."""
        if not std > 0:
            raise ValueError(f"deblur={std} must be above 0: the standard deviation of the blur in pixels.")
        down, across = (_periodic_gaussian(std, size) for size in (height, width))
        shares = (torch.fft.fft(down).real[:, None] * torch.fft.fft(across).real[None]).clamp(min=0)
        self.singular = torch.where(shares >= _SMALLEST, shares, 0.0)  # (H, W), of waves; U = V

    def measure(self, x: Tensor) -> Tensor:
        return self.spectral(x, lambda s: s)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.spectral(y, lambda s: torch.where(s > 0, 1 / s.clamp(min=_SMALLEST), 0.0))

    def spectral(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        factors = f(self.singular).to(x.device)
        waves: Tensor = torch.fft.ifft2(factors * torch.fft.fft2(x.double())).real
        return waves.to(x.dtype)


def _periodic_gaussian(std: float, size: int) -> Tensor:
    """Weights of 0 to ``size`` - 1 pixels to the right, of a Gaussian wound around; float64, of sum 1."""
    turns = int(6 * std / size) + 1
    places = torch.arange(size, dtype=torch.float64)[:, None] + size * torch.arange(-turns, turns + 1)
    weights = torch.exp(-0.5 * (places / std) ** 2).sum(dim=1)
    return weights / weights.sum()
