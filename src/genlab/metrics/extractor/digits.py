"""Features of scikit-learn's digits, from a small network that comes with genlab."""

from pathlib import Path
from typing import Literal

from safetensors.torch import load_file
from torch import Tensor, nn

from genlab.data.image import to_float
from genlab.errors import DataError
from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision

WEIGHTS = Path(__file__).with_name("digits.safetensors")
_SHAPE = (1, 16, 16)
_ARCHITECTURE = (
    "3x3 convolutions 16, 32, 64, 64 at strides 1, 2, 2, 2, batch norm, SiLU, mean; standardised; of [-1, 1]"
)


class DigitsFeatures:
    """64 features of a network trained to classify and to reconstruct digits, with unit variance over training images.

    ``scripts/train_digits_extractor.py`` made the weights, from training images only.
    """

    name = "digits64"
    modality: Literal["image"] = "image"
    gives = frozenset({"features"})
    preprocessing = _ARCHITECTURE

    def __init__(self, weights: str | None = None):  # a .safetensors file; null: the one that comes with genlab
        self.network = DigitsNetwork()
        self.network.load_state_dict(load_file(weights or WEIGHTS))
        self.network.eval().requires_grad_(False)

    def fingerprint(self) -> str:
        return network_fingerprint(self.network, _ARCHITECTURE)

    def extract(self, examples: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """uint8 (N, 1, 16, 16) -> ``features`` (N, 64), float32. Raises DataError for images of another shape."""
        if tuple(examples.shape[1:]) != _SHAPE:
            raise DataError(
                f"metrics/extractor=digits is for images of shape {_SHAPE}, got {tuple(examples.shape[1:])}. "
                "Use metrics/extractor=random or metrics/extractor=inception."
            )
        self.network.to(examples.device)
        with full_precision(examples.device):
            return {"features": self.network(to_float(examples))}


class DigitsNetwork(nn.Module):
    """Images (N, 1, 16, 16) in [-1, 1] to features (N, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *_stage(1, 16, stride=1),
            *_stage(16, 32, stride=2),
            *_stage(32, 64, stride=2),
            *_stage(64, 64, stride=2),  # (N, 64, 2, 2)
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),  # (N, 64)
        )
        self.standardise = nn.BatchNorm1d(64, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.standardise(self.trunk(x))


def _stage(channels: int, width: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.SiLU(),
    )
