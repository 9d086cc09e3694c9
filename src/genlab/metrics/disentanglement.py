"""Disentanglement: whether single latents stand for single factors of data whose factors are known."""

import hashlib
from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, HasFactors, Split
from genlab.data.image import ImageDataModule, to_float
from genlab.errors import ConfigError
from genlab.machine.rank import rank, world
from genlab.metrics.base import Direction
from genlab.metrics.disentanglement_scores import dci, factor_vae_score, mig, sap
from genlab.metrics.extractor.precision import full_precision
from genlab.metrics.ordered import in_order
from genlab.metrics.probe import DEPTH
from genlab.model.base import Model, in_eval_mode
from genlab.model.representation import features_of, is_represented, reading_of, unknown_place
from genlab.progress import progress

_LEAST = 100  # images
_NAMES = ("mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness", "factor_vae_score")


class Disentanglement(Metric):
    """MIG (Chen et al. 2018), SAP (Kumar et al. 2018), the three parts of DCI (Eastwood and Williams 2018) and the
    score of Kim and Mnih (2018) of what a model makes of images, by the factors that the data know: of ``data=shapes
    data.max_objects=1`` shape, color, size and place. Higher is better, 1 the most.

    A model is read where probes read it: of a VAE the means of latents. Images are of the training split, since factors
    of held-out scenes depend on each other on purpose; nothing is measured but what their factors are.
    """

    name: ClassVar[str] = "disentanglement"
    directions: ClassVar[Mapping[str, Direction | None]] = dict.fromkeys(_NAMES, "higher")
    is_differentiable = False
    full_state_update = False

    latents: list[Tensor]
    index: list[Tensor]

    def __init__(
        self,
        num_images: int = 5000,  # training images, spread evenly
        bins: int = 20,  # parts of a latent's range, for MIG
        votes: int = 800,  # of the score of Kim and Mnih
        seed: int = 0,  # of the votes
        layer: float | None = None,  # depth of the block that is read, in [0, 1]; None: the family's own place
        noise_level: float | None = None,  # sigma, of a diffusion model; None: the family's own
    ):
        """Raises ValueError: a value outside its range."""
        super().__init__()
        if num_images < 2 or bins < 2 or votes < 2:
            raise ValueError(f"num_images={num_images}, bins={bins} and votes={votes} must be 2 or more.")
        if layer is not None and not 0 <= layer <= 1:
            raise ValueError(DEPTH.format(layer))
        if noise_level is not None and noise_level < 0:
            raise ValueError(f"noise_level={noise_level} must be 0 or more, or null.")
        self.num_images, self.bins, self.votes, self.seed = num_images, bins, votes, seed
        self.layer, self.noise_level = layer, noise_level
        self._factors: dict[str, np.ndarray] = {}
        self._facts: dict[str, int | float | str] = {}
        for state in ("latents", "index"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, latents: Tensor, index: Tensor) -> None:
        """Take in latents (n, D) of images of these places (n,)."""
        self.latents.append(latents)
        self.index.append(index)

    def compute(self) -> dict[str, Tensor]:
        latents = in_order(self.latents, self.index).double().cpu().numpy()
        factors = self._factors
        found = (
            mig(latents, factors, self.bins),
            sap(latents, factors),
            *dci(latents, factors),
            factor_vae_score(latents, factors, self.votes, self.seed),
        )
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in zip(_NAMES, found, strict=True)}

    def settings(self) -> dict[str, int | float | str]:
        own = "of the family"
        return {
            "num_images": self.num_images,
            "bins": self.bins,
            "votes": self.votes,
            "seed": self.seed,
            "layer": own if self.layer is None else self.layer,
            "noise_level": own if self.noise_level is None else self.noise_level,
            **self._facts,
        }

    def measure(self, model: Model, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in this rank's share of the latents. The model may be in any mode. Raises ConfigError as
        :meth:`check`."""
        self.check(model, data)
        assert isinstance(data, HasFactors)
        images, factors = cast(ImageDataModule, data).table("train").images, data.factors("train")
        chosen = np.arange(len(images))
        if self.num_images < len(chosen):
            chosen = np.linspace(0, len(chosen) - 1, self.num_images).round().astype(np.int64)
        self._factors = {name: values[chosen] for name, values in factors.items()}
        digest = hashlib.sha256(np.ascontiguousarray(images[chosen]).data)
        self._facts = {"factors": ",".join(factors), "train_sha256": digest.hexdigest()[:16]}
        mine = np.arange(len(chosen))[rank() :: world()]
        with (
            in_eval_mode(model),
            full_precision(model.device),
            progress(f"reading latents of {len(mine):,} images", len(mine), quiet=rank() != 0) as advance,
        ):
            for start in range(0, len(mine), batch_size):
                places = mine[start : start + batch_size]
                x = to_float(torch.from_numpy(images[chosen[places]]).to(model.device))
                found = features_of(model, x, self.layer, self.noise_level)
                self.update(found.to(self.device), torch.from_numpy(places).to(self.device))
                advance(len(places))

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError: the model has no latents at this place, or the data do not know their factors."""
        if not isinstance(data, HasFactors):
            raise ConfigError(
                "metrics=disentanglement needs data that know their factors. Use data=shapes data.max_objects=1, or "
                "leave it out of metrics=[...]."
            )
        factors, name = data.factors("train"), type(model).__name__
        if (found := min(self.num_images, len(next(iter(factors.values()))))) < _LEAST:
            raise ConfigError(
                f"metrics=disentanglement needs {_LEAST} training images or more, got {found}. Leave it out of "
                "metrics=[...]."
            )
        if not is_represented(model):
            raise ConfigError(f"metrics=disentanglement: a {name} has no latents. Leave it out of metrics=[...].")
        if (unknown := unknown_place(model, self.layer, self.noise_level)) is not None:
            raise ConfigError(
                f"metrics.disentanglement.{unknown}: {reading_of(model).what} of a {name} are read, without a "
                f"{unknown}. Use metrics.disentanglement.{unknown}=null."
            )

    def subject(self, model: Model, split: Split) -> str:
        return "train"
