"""Bits per dimension of held-out images."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.data.image import content_hash
from genlab.errors import ConfigError
from genlab.metrics.base import Direction, short
from genlab.metrics.data_of import images_of
from genlab.model.base import GenerativeModel, HasLikelihood
from genlab.model.bits_per_dim import bits_per_dim, bits_to_nats
from genlab.model.likelihood_settings import likelihood_settings
from genlab.seeding import RandomStream

_AT_ONCE = 64  # images: a likelihood keeps more in memory than a sample does


class BitsPerDim(Metric):
    """Minus the base-2 log-likelihood of 8-bit images, for each dimension (Theis et al. 2016, arXiv:1511.01844), on
    average over held-out images spread evenly over the split, each with the model's conditions; and the
    same in nats an image, at the gray levels that the model tells apart.

    The names include the kind of the number: exact, an upper bound, or an estimate of a bound. Pixels are
    dequantized with uniform noise, a function of (seed, image), and a density of what comes out is a bound of the
    discrete likelihood. Noise and model agree on the cell of each level. A uniform model has 8 bits.
    """

    full_state_update = False

    def __init__(self, num_images: int = 100, split: Split = "val"):  # at most all of the split
        """Raises ConfigError if there is no such number of images."""
        super().__init__()
        if num_images < 1:
            raise ConfigError(f"metrics.bits_per_dim.num_images must be a whole number >= 1, got {num_images}.")
        self.num_images, self.split = num_images, split
        self._used, self._seed, self._levels, self._dimensions = num_images, 0, 256, 1
        self._facts: dict[str, int | float | str] = {}  # of the latest measure
        self.add_state("bits", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.bits: Tensor
        self.count: Tensor

    @property
    def directions(self) -> Mapping[str, Direction | None]:
        return {"bits_per_dim": "lower", f"nats_{self._levels}_levels": "lower"}

    def update(self, bits: Tensor) -> None:
        """Take in bits per dimension of images, (N,)."""
        self.bits += bits.to(self.bits.device).double().sum()
        self.count += len(bits)

    def compute(self) -> dict[str, Tensor]:
        mean = self.bits / self.count
        nats = bits_to_nats(float(mean), self._dimensions, self._levels)
        return {"bits_per_dim": mean, f"nats_{self._levels}_levels": torch.tensor(nats, dtype=torch.float64)}

    def settings(self) -> dict[str, int | float | str]:
        """As used by the latest ``measure``: with what the model's likelihood depends on, and hashes of the labels that
        it was told and of images of another split than the reference."""
        images: dict[str, int | float | str] = {"num_images": self._used, "split": self.split}
        return {**images, "dequantisation": "uniform in cells", "seed": self._seed, **self._facts}

    def check(self, model: GenerativeModel, data: DataModule) -> None:
        """Raises ConfigError: the data are not images, or the model has no likelihood."""
        if data.spec.modality != "image":
            raise ConfigError(
                f"metrics=bits_per_dim is for images; the data are {data.spec.modality}. Use metrics=[perplexity]."
            )
        data.check_split(self.split, "metrics.bits_per_dim.split")
        if not isinstance(model, HasLikelihood):
            raise ConfigError(
                f"metrics=bits_per_dim: {type(model).__name__} has no likelihood. Leave it out of metrics=[...]."
            )

    def subject(self, model: GenerativeModel, split: Split) -> str:
        return f"{model.likelihood_kind}_{self.split}_{short(self._used)}"  # type: ignore[attr-defined]

    @torch.no_grad()
    def measure(self, model: GenerativeModel, data: DataModule, split: Split, batch_size: int, seed: int) -> None:
        """Take in this rank's share of the images; ``split`` is for other metrics. Raises ConfigError as ``check``."""
        self.check(model, data)
        assert isinstance(model, HasLikelihood)
        table = images_of(data, "bits_per_dim").table(self.split)
        self._used, self._seed = min(self.num_images, len(table)), seed
        self._levels, self._dimensions = model.num_levels, table.images[0].size
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        chosen = np.linspace(0, len(table) - 1, self._used).round().astype(int)
        self._facts = likelihood_settings(model)
        if self.split != split:
            self._facts["images_sha256"] = content_hash(table.images[chosen])
        told = {key: value for key, value in table.told(chosen).items() if key in model.conditions.kinds}
        self._facts |= {f"{key}s_sha256": content_hash(value.numpy()) for key, value in told.items()}
        chosen = chosen[rank::world]
        for part in np.split(chosen, range(_AT_ONCE, len(chosen), _AT_ONCE)):
            pixels = torch.from_numpy(table.images[part]).to(model.device)
            rows = table.told(part)
            condition = {key: rows[key].to(model.device) for key in told} or None
            noise = RandomStream.for_samples(seed, part.tolist(), model.device)
            self.update(bits_per_dim(model, pixels, condition, noise))
