"""A third modality as somebody else would add it: signals of one dimension. Nothing of genlab knows of it."""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from genlab.data.base import DataModule, DataSpec, KeyedDataset, Split
from genlab.errors import ConfigError, DataError
from genlab.files.atomic import prepare_file, write_atomically
from genlab.model.base import Condition, GenerativeModel
from genlab.sampling.draw import draws
from genlab.sampling.examples import Examples
from genlab.sampling.form import Typed
from genlab.seeding import derive_seed, uniform_by_index


class WaveSet(KeyedDataset):
    """Sines of two periods and any phase."""

    def __init__(self, count: int, length: int, seed: int):
        self.count, self.length, self.seed = count, length, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, keys: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        index = np.array([index for _, index in keys])
        phase = torch.from_numpy(uniform_by_index(self.seed, index))[:, None]
        time = torch.arange(self.length) * 2 / self.length
        signal = torch.sin(2 * math.pi * (time + phase))[:, None]
        return {"signal": signal.float(), "index": torch.from_numpy(index)}


class Waves(DataModule):
    def __init__(self, length: int = 16, batch_size: int = 32, limit: int | None = None, seed: int = 0):
        super().__init__(batch_size, 0, limit, seed)
        self.length = length

    @property
    def spec(self) -> DataSpec:
        return DataSpec("signal", (1, self.length))

    def dataset(self, split: Split) -> WaveSet:
        count = self.limit or 512 if split == "train" else 256
        return WaveSet(count, self.length, derive_seed(0, ("train", "val").index(split)))

    def _fingerprint(self) -> dict[str, str]:
        return {}

    def signals(self, split: Split) -> Tensor:
        data = self.dataset(split)
        return data[[(0, i) for i in range(len(data))]]["signal"]


class Arrays:
    """Signals as a .npy file."""

    key: ClassVar[str] = "signal"
    count: ClassVar[int] = 16
    suffix: ClassVar[str] = ".npy"

    def content(self, samples: Tensor) -> Tensor:
        return samples.float().cpu()

    def read(self, model: GenerativeModel, typed: Typed, run: Path) -> Condition:
        if any(values is not None for values in typed.values()):
            raise ConfigError(f"the model of {run} cannot be asked for anything.")
        return {}

    def asked(self, model: GenerativeModel, indices: range, typed: Condition) -> Condition | None:
        return None

    def words(self, model: GenerativeModel, indices: range, typed: Condition) -> dict[str, Sequence[str]]:
        return {}

    def shown(self, examples: Examples, last: bool) -> str:
        return ""

    def destination(self, out: str) -> Path:
        prepare_file(Path(out))
        return Path(out)

    def columns(self, model: GenerativeModel, n: int, typed: Condition) -> int:
        return 1

    def write(self, examples: Examples, path: Path, columns: int) -> list[Path]:
        write_atomically(path, lambda file: np.save(file, examples["signal"].numpy()))
        return [path]


class MakeSignals:
    key: ClassVar[str] = "signal"
    suited: ClassVar[str] = "metrics=[spectrum]"
    of_samples: ClassVar[str] = "metrics=[spectrum]"
    data: Waves
    split: Split

    def form(self, spec: Mapping[str, Any], tokenizer: Any) -> Arrays:
        return Arrays()

    def check(self, spec: DataSpec) -> None:
        if spec.modality != "signal":
            raise ConfigError(f"task=signals is of signals; the data are {spec.modality}.")

    def on(self, data: DataModule, split: Split) -> Self:
        self.check(data.spec)
        bound = copy.copy(self)
        bound.data, bound.split = data, split  # type: ignore[assignment]
        return bound

    def gives(self, model: GenerativeModel) -> frozenset[str]:
        return frozenset({self.key})

    def facts(self) -> dict[str, Any]:
        return {"reference": self.split, "length": self.data.length}

    def sized(self, count: int, of: Any) -> Self:
        return self

    def reference(self) -> Examples:
        return Examples.of(signal=self.data.signals(self.split))

    def reference_hash(self) -> str:
        return f"{self.split} {self.data.length}"

    def condition_facts(self, keys: Iterable[str]) -> dict[str, str]:
        return {}

    def asked_facts(self, model: GenerativeModel) -> dict[str, Any]:
        return {}

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> Condition | None:
        return None

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        return Examples.of(signal=torch.cat([x.cpu() for x in draws(model, indices, None, seed, batch_size)]))

    def check_examples(self, examples: Examples) -> None:
        if examples["signal"].shape[1:] != (1, self.data.length):
            raise DataError("samples are of another length than the data.")

    def baselines(self, count: int, seed: int) -> dict[str, Examples]:
        noise = torch.randn(count, 1, self.data.length, generator=torch.Generator().manual_seed(seed))
        return {"noise": Examples.of(signal=noise), "floor": Examples.of(signal=self.data.signals("train")[:count])}


class WaveNet(nn.Module):
    def __init__(self, shape: Sequence[int], width: int = 64):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(math.prod(shape) + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.out = nn.Linear(width, math.prod(shape))

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        h = self.inner(torch.cat([x.flatten(1), noise_level[:, None]], dim=1))
        return self.out(F.silu(h)).view_as(x)


class Spectrum(Metric):
    """Distance of the mean power at each frequency, relative to the data's power: 0 is best, noise is far."""

    reads: ClassVar[frozenset[str]] = frozenset({"signal"})
    directions: ClassVar[Mapping[str, Any]] = {"spectrum": "lower"}
    real: Tensor
    fake: Tensor

    def __init__(self) -> None:
        super().__init__()
        for side in ("real", "fake"):
            self.add_state(side, torch.zeros(1), dist_reduce_fx="sum")
            self.add_state(f"{side}_count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, batch: Mapping[str, Any], real: bool) -> None:
        power = torch.fft.rfft(batch["signal"]).abs().square().sum(dim=(0, 1))
        name = "real" if real else "fake"
        setattr(self, name, getattr(self, name) + power)
        setattr(self, f"{name}_count", getattr(self, f"{name}_count") + len(batch["signal"]))

    def compute(self) -> dict[str, Tensor]:
        real, fake = self.real / self.real_count, self.fake / self.fake_count  # type: ignore[operator]
        return {"spectrum": (real - fake).abs().sum() / real.sum()}

    def settings(self) -> dict[str, int | float | str]:
        return {}
