"""LoRA (Hu et al. 2021): low-rank updates of linear maps and convolutions, trained in place of these themselves; and
QLoRA (Dettmers et al. 2023), where linear maps have 8 or 4 bits."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import ConfigError
from genlab.model.network.fused_linear import FusedLinear
from genlab.model.network.quantized_weight import Quantization, QuantizedWeight, dequantize, quantize

WHOLE = "whole"  # the one part of a map that is not fused
_SHOWN = 12  # names in a message
QUANTIZED = "quantized"  # of the names of a weight's numbers and scales: blocks.0.attention.qkv.quantized.numbers
UPDATES = "updates"  # of the names of an adapter's weights: blocks.0.attention.qkv.updates.query.a


class LoRA:
    """Freezes a network, and adds to each map W of it that ``targets`` names the product of two small matrices:
    W + alpha / rank * B A (eq. 3).

    Each part of a fused map has its own A and B. A starts as a linear map of torch does, B at zero, so that the network
    starts as it was. Of a convolution, A is one of the same kernel with ``rank`` outputs, and B one of 1x1.
    """

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,  # of what A reads
        targets: Sequence[str] = ("*",),  # patterns of the names of maps in the network; * stands for any characters
        rslora: bool = False,  # alpha / sqrt(rank) in place of alpha / rank (Kalajdzievski 2023)
        quantization: Quantization | None = None,  # of the weights of all linear maps, those without an update too
        convolutions: bool = False,  # whether ``targets`` names convolutions too, those of several groups excepted
    ):
        """Raises ValueError: an argument is outside its range."""
        if rank < 1:
            raise ValueError(f"rank={rank} must be 1 or more.")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha={alpha} must be finite and above 0.")
        if not targets:
            raise ValueError("targets=[] names no map to adapt. Use targets=['*'] for all of them.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must be at least 0 and below 1.")
        self.rank, self.dropout, self.targets, self.quantization = rank, dropout, tuple(targets), quantization
        self.convolutions = convolutions
        self.scale = alpha / math.sqrt(rank) if rslora else alpha / rank

    def adapt(self, network: nn.Module) -> None:
        """Freeze ``network``, in place, and put updates beside its maps, those of frozen parts excepted.

        Raises ConfigError: one of the targets names no map.
        """
        found = {name: layer for name, layer in _maps(network) if self.convolutions or isinstance(layer, nn.Linear)}
        known = [name for name, layer in found.items() for name in _names(name, parts_of(layer))]
        for pattern in self.targets:
            if not any(_matches(name, (pattern,)) for name in known):
                kind = "linear map or convolution" if self.convolutions else "linear map"
                raise ConfigError(
                    f"model.adapter.targets: no {kind} of the network is called {pattern}. There are "
                    f"{_some(known)}; * stands for any characters."
                )
        network.requires_grad_(False)
        for name, layer in found.items():
            parts = parts_of(layer)
            named = zip(parts, _names(name, parts), strict=True)
            chosen = [part for part, full in named if _matches(full, self.targets)]
            adapted: nn.Module
            if isinstance(layer, nn.Conv2d):
                if not chosen:
                    continue
                adapted = LoRAConv2d(layer, self.rank, self.scale, self.dropout)
            elif chosen or self.quantization is not None:
                adapted = LoRALinear(layer, chosen, self.rank, self.scale, self.dropout, self.quantization)
            else:
                continue
            above, _, own = name.rpartition(".")
            network.get_submodule(above).register_module(own, adapted)

    @contextmanager
    def switched_off(self, network: nn.Module) -> Iterator[None]:
        """``network``, which has been adapted, is as it was before inside the block. What is trained stays so."""
        layers = [layer for _, layer in adapted_maps(network)]
        for layer in layers:
            layer.is_on = False
        try:
            yield
        finally:
            for layer in layers:
                layer.is_on = True


class LoRALinear(nn.Linear):
    """A linear map, whose weights keep their names unless they are quantized, and updates of all, some or none of its
    parts."""

    is_on = True  # whether the updates are added

    def __init__(
        self,
        base: nn.Linear,
        adapted: Sequence[str],
        rank: int,
        scale: float,
        dropout: float,
        quantization: Quantization | None = None,
    ):
        """``adapted``: those of :func:`parts_of` the map ``base`` that have an update."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.quantized = None if quantization is None else QuantizedWeight(base.weight, quantization)
        if quantization is None:
            self.weight = base.weight
        self.register_parameter("bias", base.bias)
        self.parts, self.rank, self.scale = parts_of(base), rank, scale
        self.updates = nn.ModuleDict(
            {part: LowRank(base.weight, self.parts[part], rank, scale, dropout) for part in adapted}
        )

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self.quantized is None:
            unchanged = F.linear(input, self.weight, self.bias)
        else:
            unchanged = self.quantized(input, self.bias)
        if not self.updates or not self.is_on:
            return unchanged
        changes = [
            self.updates[part](input) if part in self.updates else unchanged.new_zeros(*unchanged.shape[:-1], size)
            for part, size in self.parts.items()
        ]
        return unchanged + (changes[0] if len(changes) == 1 else torch.cat(changes, dim=-1))

    def __getattr__(self, name: str) -> Any:
        """Networks ask for the type of ``weight``, and some for itself."""
        found = self.__dict__.get("_modules", {}).get(QUANTIZED) if name == "weight" else None
        return super().__getattr__(name) if found is None else found.dense()


class LowRank(nn.Module):
    """x -> scale * B A x. ``like``: a weight with the input's channels, on the device and of the type wanted."""

    def __init__(self, like: Tensor, out_features: int, rank: int, scale: float, dropout: float):
        super().__init__()
        self.scale, self.dropout = scale, dropout
        self.a = nn.Parameter(like.new_empty(rank, like.shape[1]))
        self.b = nn.Parameter(like.new_zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(F.dropout(x, self.dropout, self.training), self.a), self.b) * self.scale


class LoRAConv2d(nn.Conv2d):
    """A convolution, whose weights keep their names, and its update (LoCon; Yeh et al. 2024, arXiv:2309.14859)."""

    is_on = True  # whether the update is added
    quantized: ClassVar[None] = None

    def __init__(self, base: nn.Conv2d, rank: int, scale: float, dropout: float):
        """``base``: of one group."""
        nn.Module.__init__(self)
        for name in base.__constants__:  # sizes, stride, padding and the like
            setattr(self, name, getattr(base, name))
        self._reversed_padding_repeated_twice = base._reversed_padding_repeated_twice
        self.weight = base.weight
        self.register_parameter("bias", base.bias)  # type: ignore[arg-type]
        self.in_features, self.rank, self.scale = base.in_channels, rank, scale
        self.parts = {WHOLE: base.out_channels}
        self.updates = nn.ModuleDict({WHOLE: LowRankConvolution(base, rank, scale, dropout)})

    def forward(self, input: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H', W')."""
        unchanged = super().forward(input)
        if not self.is_on:
            return unchanged
        update = self.updates[WHOLE]
        seen = F.dropout(input, update.dropout, update.training)  # type: ignore[arg-type]
        narrow = self._conv_forward(seen, update.a, None)  # type: ignore[arg-type]
        return unchanged + F.conv2d(narrow, update.b) * update.scale  # type: ignore[arg-type, operator]


class LowRankConvolution(nn.Module):
    """The weights of an update of ``like``: ``a`` (rank, in, h, w) and ``b`` (out, rank, 1, 1), as in peft."""

    def __init__(self, like: nn.Conv2d, rank: int, scale: float, dropout: float):
        super().__init__()
        self.scale, self.dropout = scale, dropout
        self.a = nn.Parameter(like.weight.new_empty(rank, *like.weight.shape[1:]))
        self.b = nn.Parameter(like.weight.new_zeros(like.out_channels, rank, 1, 1))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))


def parts_of(layer: nn.Linear | nn.Conv2d) -> dict[str, int]:
    """Channels of the output by part."""
    if isinstance(layer, nn.Conv2d):
        return {WHOLE: layer.out_channels}
    return layer.parts if isinstance(layer, FusedLinear | LoRALinear) else {WHOLE: layer.out_features}


def _maps(network: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Those that can be adapted. Classes of their own may read a weight without calling the map."""
    for name, module in network.named_modules():
        is_map = type(module) in (nn.Linear, FusedLinear, nn.Conv2d) and getattr(module, "groups", 1) == 1
        if is_map and module.weight.requires_grad:  # type: ignore[union-attr]
            yield name, module  # type: ignore[misc]


def _names(name: str, parts: Mapping[str, int]) -> list[str]:
    return [name if part == WHOLE else f"{name}.{part}" for part in parts]


def _some(names: Sequence[str]) -> str:
    """Each kind once, whatever block it is in."""
    kinds = [*dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names)]
    return ", ".join([*kinds[:_SHOWN], "..."] if len(kinds) > _SHOWN else kinds) or "none at all"


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Also a pattern of a fused map as a whole."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern) for pattern in patterns)


def adapted_maps(model: nn.Module) -> Iterator[tuple[str, LoRALinear | LoRAConv2d]]:
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear | LoRAConv2d):
            yield name, module


def adapter_names(model: nn.Module) -> list[str]:
    """The names of an adapter's weights in the state dict of ``model``; none: it has no adapter."""
    return [
        f"{name}.{UPDATES}.{part}.{matrix}"
        for name, layer in adapted_maps(model)
        for part in layer.updates
        for matrix in "ab"
    ]


def quantizations(model: nn.Module) -> dict[str, QuantizedWeight]:
    """The quantized weights of ``model``, by the names of its maps."""
    return {name: layer.quantized for name, layer in adapted_maps(model) if layer.quantized is not None}


@torch.no_grad()
def dense(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights``, a state dict of ``model``, with the weights of its maps as they are, in float32, where there are
    numbers and scales."""
    found = dict(weights)
    for name, own in quantizations(model).items():
        if f"{name}.weight" in found:
            continue
        numbers, scales = (found.pop(f"{name}.{QUANTIZED}.{part}") for part in ("numbers", "scales"))
        found[f"{name}.weight"] = dequantize(numbers, scales, own.shape, own.quantization)
    return found


@torch.no_grad()
def quantized(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights``, all or some of those of ``model``, with numbers and scales in place of those that it has so."""
    found = dict(weights)
    for name, own in quantizations(model).items():
        if f"{name}.weight" in found:
            both = quantize(found.pop(f"{name}.weight"), own.quantization)
            found |= {f"{name}.{QUANTIZED}.{part}": x for part, x in zip(("numbers", "scales"), both, strict=True)}
    return found


@torch.no_grad()
def merged(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights``, a state dict of ``model``, with every update in the weights that it belongs to, computed in float32
    or finer: the state dict of the same model without an adapter. ``model`` may be on the meta device."""
    weights, updates = dense(model, weights), set(adapter_names(model))
    found = {name: value for name, value in weights.items() if name not in updates}
    for name, change in changes(model, weights).items():
        found[name] = (_wide(found[name]) + change).to(found[name].dtype)
    return found


@torch.no_grad()
def changes(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the updates of ``model``, with the state dict ``weights``, add to the weights of its maps, by the names of
    these: scale * B A, in float32 or finer."""
    found = {}
    for name, layer in adapted_maps(model):
        if not layer.updates:
            continue
        sums = []
        for part, size in layer.parts.items():
            if part in layer.updates:
                a, b = (_wide(weights[f"{name}.{UPDATES}.{part}.{matrix}"]) for matrix in "ab")
                product = b.flatten(1) @ a.flatten(1)  # (out, in), of a convolution (out, in * h * w)
                sums.append(layer.scale * product.unflatten(1, a.shape[1:]))
            else:
                sums.append(torch.zeros(size, layer.in_features))
        found[f"{name}.weight"] = torch.cat([each.to(sums[0].device) for each in sums])
    return found


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
