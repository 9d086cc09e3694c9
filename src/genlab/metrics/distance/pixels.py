"""Mean squared difference of pixels."""

from torch import Tensor


class PixelDistance:
    """Mean squared difference of pixels on [-1, 1]. It needs no weights, and does not model human perception."""

    name = "pixels"

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """(N, C, H, W), (N, C, H, W) -> (N,), in [0, 4]."""
        return (a - b).square().flatten(1).mean(dim=1)

    def settings(self) -> dict[str, int | float | str]:
        return {"distance": "mean square of pixels on [-1, 1]"}
